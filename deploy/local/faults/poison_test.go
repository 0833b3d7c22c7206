//go:build e2e

package faults_test

import (
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/rabbit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// poison are bodies that nobody can read.
var poison = []string{"no JSON", `{"hostname":"nobody"}`, `[]`, ""}

// queues are those that somebody consumes; what can't be read is kept aside for all but heartbeats.
var queues = map[messages.Queue]bool{
	messages.QueueSystemModules: false, messages.QueueWorkflowOrchestration: true, messages.QueueOverseer: true,
	messages.QueueDeployer: true, messages.QueueDeployOA: true,
}

var local = messages.Address{Name: stack.ExchangeName, Root: stack.ExchangeName, RoutingKey: stack.ExchangeName}

var _ = Describe("A message that nobody can read", Label("faults"), func() {
	var channel *amqp.Channel

	BeforeEach(func() {
		conn, err := amqp.Dial(suite.RabbitMQ.URL())
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(conn.Close)
		channel, err = conn.Channel()
		Expect(err).NotTo(HaveOccurred())
	})

	waiting := func(queue string) func() (int, error) {
		return func() (int, error) {
			q, err := channel.QueueDeclarePassive(queue, true, false, false, false, nil)
			return q.Messages, err
		}
	}

	It("is put aside, and every service goes on", func(ctx SpecContext) {
		before := own()
		Expect(channel.Confirm(false)).To(Succeed())
		returned := channel.NotifyReturn(make(chan amqp.Return, len(queues)*len(poison)))
		for queue := range queues {
			for _, body := range poison {
				confirmed, err := channel.PublishWithDeferredConfirmWithContext(ctx, local.Root, local.Key(queue), true, false,
					amqp.Publishing{ContentType: "application/json", Body: []byte(body)})
				Expect(err).NotTo(HaveOccurred())
				Expect(confirmed.WaitContext(ctx)).To(BeTrue(), "%s took %q", queue, body)
			}
		}
		Expect(returned).To(BeEmpty(), "an empty queue proves nothing where nothing arrived")
		for queue, kept := range queues {
			name := local.QueueName(queue)
			Eventually(waiting(name)).WithContext(ctx).WithTimeout(20*time.Second).Should(BeZero(), name)
			if kept {
				aside := rabbit.DeadLetterName(name)
				Eventually(waiting(aside)).WithContext(ctx).WithTimeout(20*time.Second).Should(Equal(len(poison)), aside)
				Expect(drain(channel, aside)).To(ConsistOf(poison), aside)
			}
		}
		ref := newHello(ctx)
		completedOnce(ctx, request(ctx, stack.Hello, ref), stack.Hello, ref, "config completed", "deploy completed")
		Expect(own()).To(Equal(before))
	}, SpecTimeout(2*time.Minute))
})

// own are the processes of OpenAperture itself.
func own() []proc.Process {
	GinkgoHelper()
	all, err := proc.Running(suite.Releases())
	Expect(err).NotTo(HaveOccurred())
	return slices.DeleteFunc(all, func(p proc.Process) bool { return p.Binary == stack.Hello.Name })
}

// drain takes what is in a queue.
func drain(channel *amqp.Channel, queue string) []string {
	GinkgoHelper()
	found := []string{}
	for {
		d, ok, err := channel.Get(queue, true)
		Expect(err).NotTo(HaveOccurred())
		if !ok {
			return found
		}
		found = append(found, string(d.Body))
	}
}
