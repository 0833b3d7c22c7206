package member_test

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/member"
	"github.com/openaperture/openaperture/pkg/rabbit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// declared runs a broker that has declared the topology, until the spec is over.
func declared(t rabbit.Topology) *rabbit.Broker {
	GinkgoHelper()
	b, err := rabbit.New(rabbit.Config{Name: "spec", URLs: []string{host.URL}, Topology: t})
	Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(context.Background())
	joined := make(chan struct{})
	go func() { defer close(joined); _ = b.Run(ctx) }()
	DeferCleanup(func() { cancel(); Eventually(joined).Should(BeClosed()) })
	Eventually(b.Ready).Should(Succeed())
	return b
}

var _ = Describe("The topology of an exchange", func() {
	leaf := managerapi.Exchange{Name: "top-leaf", RootExchangeName: "top-root", RoutingKey: "aws.us-east-1",
		Ancestors: []managerapi.Ancestor{{Name: "top-mid", RoutingKey: "aws"}, {Name: "top-root", RoutingKey: ""}}}

	DescribeTable("brings what is published to the root into the exchange's own queue",
		func(ex managerapi.Exchange, queue string) {
			b := declared(member.Topology(ex))
			a := ex.Address()
			for _, q := range []messages.Queue{messages.QueueOverseer, messages.QueueSystemModules} {
				Expect(b.Publish(context.Background(), rabbit.Message{Exchange: a.Root, Key: a.Key(q), Body: []byte(q)})).
					To(Succeed())
				d, ok := host.Get(queue + "." + string(q))
				Expect(ok).To(BeTrue())
				Expect(string(d.Body)).To(Equal(string(q)))
			}
		},
		Entry("through two ancestors", leaf, "aws:us-east-1"),
		Entry("that is a root of its own", managerapi.Exchange{Name: "alone", RootExchangeName: "alone", RoutingKey: "local"},
			"local"),
		Entry("whose whole key is empty", managerapi.Exchange{Name: "bare", RootExchangeName: "bare"}, "bare"),
	)

	It("holds every logical queue, all but the heartbeats with a dead-letter queue", func() {
		declared(member.Topology(managerapi.Exchange{Name: "full", RootExchangeName: "full", RoutingKey: "full"}))
		for _, q := range member.Queues {
			Expect(host.Depth("full."+string(q))).To(BeZero(), string(q))
			dead := 0
			if q == messages.QueueSystemModules {
				dead = -1
			}
			Expect(host.Depth(rabbit.DeadLetterName("full."+string(q)))).To(Equal(dead), string(q))
		}
	})

	It("lets no heartbeat grow older than two beats (HB7)", func() {
		t := member.Topology(managerapi.Exchange{Name: "ttl", RootExchangeName: "ttl", RoutingKey: "ttl"})
		declared(t)
		err := host.Do(func(ch *amqp.Channel) error { // only equal arguments are accepted
			_, err := ch.QueueDeclare("ttl.system_modules", true, false, false, false,
				amqp.Table{"x-queue-type": "classic", "x-message-ttl": (60 * time.Second).Milliseconds(),
					"x-max-length": int64(500_000)})
			return err
		})
		Expect(err).NotTo(HaveOccurred())
	})
})
