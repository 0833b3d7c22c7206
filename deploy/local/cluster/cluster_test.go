package cluster_test

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/openaperture/openaperture/pkg/rabbit"
)

// member runs a Broker until the spec is over; its connections were first made to the node.
func member(node int, topology rabbit.Topology) *rabbit.Broker {
	GinkgoHelper()
	for range 50 { // the order of the addresses is random
		before := proxies[node].Connections()
		b, stop := running(topology, logger(), urls()...)
		if proxies[node].Connections() >= before+2 {
			DeferCleanup(stop)
			return b
		}
		stop()
	}
	Fail("never connected to the node")
	return nil
}

// running runs a Broker with the short times that suit specs; stop ends and joins it.
func running(topology rabbit.Topology, log *zap.Logger, urls ...string) (b *rabbit.Broker, stop func()) {
	GinkgoHelper()
	b, err := rabbit.New(rabbit.Config{Name: "spec", URLs: urls, Topology: topology, Log: log, Heartbeat: 2 * time.Second,
		DialTimeout: 2 * time.Second, WriteTimeout: 3 * time.Second, RPCTimeout: 3 * time.Second,
		PublishTimeout: 4 * time.Second, DrainTimeout: 2 * time.Second, MaxRedial: time.Second})
	Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(context.Background())
	joined := make(chan struct{})
	go func() { defer close(joined); _ = b.Run(ctx) }()
	Eventually(b.Ready).Should(Succeed())
	return b, func() { cancel(); Eventually(joined).Should(BeClosed()) }
}

// subscribe consumes until the spec is over.
func subscribe(b *rabbit.Broker, c rabbit.Consumer) {
	ctx, cancel := context.WithCancel(context.Background())
	joined := make(chan struct{})
	go func() { defer close(joined); _ = b.Consume(ctx, c) }()
	DeferCleanup(func() { cancel(); Eventually(joined).Should(BeClosed()) })
}

// topologyOf is one work queue behind an exchange of its own.
func topologyOf(queue string) rabbit.Topology {
	return rabbit.Topology{Exchanges: []rabbit.Exchange{{Name: queue + "-x"}},
		Queues: []rabbit.Queue{{Name: queue, Kind: rabbit.Work, BindExchange: queue + "-x", BindKey: "k"}}}
}

func messageTo(queue, id string) rabbit.Message {
	return rabbit.Message{Exchange: queue + "-x", Key: "k", ID: id, Body: []byte(id)}
}

func logger() *zap.Logger {
	encoder := zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
	return zap.New(zapcore.NewCore(encoder, zapcore.AddSync(GinkgoWriter), zap.InfoLevel))
}

// traffic publishes numbered messages one after the other, each until it is confirmed, and consumes them.
type traffic struct {
	queue    string
	topology rabbit.Topology
	publish  *rabbit.Broker
	consume  *rabbit.Broker
	stop     context.CancelFunc
	done     chan struct{}

	mu        sync.Mutex
	confirmed int
	stall     time.Duration   // the longest wait for one confirm, with all repeats
	repeated  map[string]bool // ids that were published more than once
	seen      map[string]int
	doubled   []string // ids that came again though neither the publisher nor the broker said that they might
}

// begin starts traffic over one quorum queue that is led by a node, with publisher and consumer connected there.
func begin(queue string) *traffic {
	GinkgoHelper()
	t := &traffic{queue: queue, repeated: map[string]bool{}, seen: map[string]int{}, done: make(chan struct{}),
		topology: topologyOf(queue)}
	member(0, t.topology) // declares
	leader := leaderOf(queue)
	t.publish, t.consume = member(leader, t.topology), member(leader, t.topology)
	subscribe(t.consume, rabbit.Consumer{Queue: queue, Prefetch: 10, Backoff: 50 * time.Millisecond, Handle: t.hear})
	ctx, stop := context.WithCancel(context.Background())
	t.stop = stop
	go func() { defer close(t.done); t.send(ctx) }()
	DeferCleanup(func() { stop(); Eventually(t.done).Should(BeClosed()) })
	t.flows(100)
	return t
}

func (t *traffic) send(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		id, began := fmt.Sprint(i), time.Now()
		for tries := 1; ; tries++ {
			err := t.publish.Publish(context.WithoutCancel(ctx), messageTo(t.queue, id))
			t.mu.Lock()
			t.repeated[id] = t.repeated[id] || err != nil && rabbit.OutcomeOf(err) == rabbit.Unknown
			if err == nil {
				t.confirmed++
				t.stall = max(t.stall, time.Since(began))
			}
			t.mu.Unlock()
			if err == nil {
				break
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done(): // the last one may remain unconfirmed
				return
			}
		}
	}
}

func (t *traffic) hear(_ context.Context, d *rabbit.Delivery) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen[d.ID]++; t.seen[d.ID] > 1 && !d.Redelivered && !t.repeated[d.ID] {
		t.doubled = append(t.doubled, d.ID)
	}
	return nil
}

func (t *traffic) sent() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.confirmed
}

// flows waits until n more messages were confirmed.
func (t *traffic) flows(n int) {
	GinkgoHelper()
	want := t.sent() + n
	Eventually(t.sent).Should(BeNumerically(">=", want))
}

// balance ends the traffic: what was confirmed was seen, and what was seen twice may be.
func (t *traffic) balance(event string) {
	GinkgoHelper()
	t.stop()
	Eventually(t.done).Should(BeClosed())
	missing := func() (list []string) {
		t.mu.Lock()
		defer t.mu.Unlock()
		for i := range t.confirmed {
			if t.seen[fmt.Sprint(i)] == 0 {
				list = append(list, fmt.Sprint(i))
			}
		}
		return list
	}
	Eventually(missing).Should(BeEmpty(), "confirmed and lost")
	t.mu.Lock()
	defer t.mu.Unlock()
	Expect(t.doubled).To(BeEmpty(), "came again, unasked")
	twice := 0
	for _, n := range t.seen {
		if n > 1 {
			twice++
		}
	}
	AddReportEntry(event, fmt.Sprintf("%d messages, longest wait for a confirm %s, %d came twice", t.confirmed,
		t.stall.Round(time.Millisecond), twice))
}

var _ = Describe("Three nodes", Ordered, func() {
	It("lose the leader of a queue (A1, A11, T16): nothing is lost, members go to another node", func(ctx SpecContext) {
		t := begin("killed")
		leader := leaderOf(t.queue)
		signal(leader, syscall.SIGKILL)
		t.flows(200)
		Expect(proxies[leader].Connections()).To(BeZero())
		Eventually(t.consume.Ready).Should(Succeed())
		Eventually(mq.Start).WithArguments(ctx).Should(Succeed()) // one that was killed may fail once
		t.flows(50)
		t.balance("kill -9 of the leader")
	}, SpecTimeout(2*time.Minute))

	It("have a leader that hangs (A5, T5): members leave it, every call ends, and all goes on later", func(_ SpecContext) {
		t := begin("hangs")
		leader := leaderOf(t.queue)
		core, logs := observer.New(zap.InfoLevel)
		late, stop := running(t.topology, zap.New(core), urls()[(leader+1)%3])
		DeferCleanup(stop)
		signal(leader, syscall.SIGSTOP)
		DeferCleanup(func() { _ = mq.Nodes[leader].Signal(syscall.SIGCONT) })
		subscribe(late, rabbit.Consumer{Queue: t.queue, Handle: t.hear}) // its node answers, the leader does not
		Eventually(func() int { return proxies[leader].Connections() }, "8s").Should(BeZero())
		Eventually(func() string { return fmt.Sprint(logs.All()) }, "8s").
			Should(ContainSubstring("no answer from the broker within 3s"))
		signal(leader, syscall.SIGCONT)
		t.flows(200)
		Eventually(t.consume.Ready).Should(Succeed())
		Eventually(func() bool { return late.Subscribed(t.queue) }).Should(BeTrue())
		t.balance("SIGSTOP of the leader")
	}, SpecTimeout(2*time.Minute))

	It("are cut apart, our consumer on the smaller side (A16): what it had goes to the others", func(ctx SpecContext) {
		const queue = "apart"
		minority := 2
		alone, stop := running(topologyOf(queue), logger(), urls()[minority])
		DeferCleanup(stop)
		publisher := member(0, topologyOf(queue))
		began, gone, release := make(chan struct{}, 10), make(chan error, 10), make(chan struct{})
		subscribe(alone, rabbit.Consumer{Queue: queue, Handle: func(ctx context.Context, _ *rabbit.Delivery) error {
			began <- struct{}{}
			select {
			case <-ctx.Done():
				gone <- context.Cause(ctx)
				return context.Cause(ctx)
			case <-release:
				return nil
			}
		}})
		Expect(publisher.Publish(ctx, messageTo(queue, "in hand"))).To(Succeed())
		Eventually(began).Should(Receive())

		Expect(mq.Isolate(ctx, minority)).To(Succeed())
		Eventually(gone).Should(Receive(MatchError(rabbit.ErrStale)), "what it does after this is not acknowledged")
		heard := make(chan string, 10)
		subscribe(publisher, rabbit.Consumer{Queue: queue, Handle: func(_ context.Context, d *rabbit.Delivery) error {
			heard <- fmt.Sprint(d.ID, " ", d.Redelivered)
			return nil
		}})
		Eventually(heard).Should(Receive(Equal("in hand true")))
		Eventually(func() error { return publisher.Publish(ctx, messageTo(queue, "meanwhile")) }).Should(Succeed())
		Eventually(heard).Should(Receive(HavePrefix("meanwhile")))
		Expect(alone.Ready()).NotTo(Succeed())

		Expect(mq.Rejoin(ctx, minority)).To(Succeed())
		close(release)
		Eventually(func() bool { return alone.Subscribed(queue) }).Should(BeTrue())
		Expect(heard).NotTo(Receive(), "nothing comes again")
		Expect(began).NotTo(Receive())
	}, SpecTimeout(2*time.Minute))

	It("lose the majority and get it back (A1): publishers wait, and nothing is lost", func(ctx SpecContext) {
		t := begin("majority")
		leader := leaderOf(t.queue)
		other := (leader + 1) % 3
		signal(leader, syscall.SIGKILL)
		signal(other, syscall.SIGKILL)
		before := t.sent()
		Eventually(t.publish.Ready).ShouldNot(Succeed())
		Consistently(t.sent, "1s").Should(BeNumerically("<=", before+1), "two of three are gone")
		Eventually(mq.Start).WithArguments(ctx).Should(Succeed()) // one that was killed may fail once
		t.flows(200)
		Eventually(t.consume.Ready).Should(Succeed())
		t.balance("2 of 3 killed and back")
	}, SpecTimeout(2*time.Minute))
})
