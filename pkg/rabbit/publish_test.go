package rabbit_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	amqp "github.com/rabbitmq/amqp091-go"
	"go.opentelemetry.io/otel/trace"

	"github.com/openaperture/openaperture/pkg/rabbit"
	"github.com/openaperture/openaperture/pkg/rabbittest"
)

var _ = Describe("publishing", func() {
	ctx := context.Background()

	It("confirms a message that went from the root exchange into the child's queue, with all its properties", func() {
		h := open()
		m := h.to("work", `{"a":1}`)
		m.ID, m.Type, m.CorrelationID, m.AppID = "id-1", "order", "c-1", "spec/host"
		m.Timestamp = time.Unix(1_700_000_000, 0)
		m.Headers = map[string]any{"x-note": "kept"}
		Expect(h.Publish(ctx, m)).To(Succeed())
		d, ok := host.Get(h.work())
		Expect(ok).To(BeTrue())
		Expect(d.Body).To(BeEquivalentTo(`{"a":1}`))
		Expect([]string{d.MessageId, d.Type, d.CorrelationId, d.AppId, d.ContentType}).
			To(Equal([]string{"id-1", "order", "c-1", "spec/host", "application/json"}))
		Expect(d.Timestamp.Unix()).To(BeEquivalentTo(1_700_000_000))
		Expect(d.DeliveryMode).To(Equal(amqp.Persistent))
		Expect(d.Headers).To(HaveKeyWithValue("x-note", "kept"))
	})

	It("carries the trace of the publisher's context to the handler (traceparent)", func() {
		h := open()
		span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2},
			TraceFlags: trace.FlagsSampled})
		Expect(h.Publish(trace.ContextWithSpanContext(ctx, span), h.to("work", "x"))).To(Succeed())
		seen := make(chan trace.SpanContext, 1)
		h.consume(rabbit.Consumer{Queue: h.work(), Handle: func(ctx context.Context, _ *rabbit.Delivery) error {
			seen <- trace.SpanContextFromContext(ctx)
			return nil
		}})
		var got trace.SpanContext
		Eventually(seen).Should(Receive(&got))
		Expect(got.TraceID()).To(Equal(span.TraceID()))
	})

	It("T13/A10: reports an unroutable message as returned, although the broker acks it", func() {
		h := open()
		err := h.Publish(ctx, rabbit.Message{Exchange: h.name + "-root", Key: "nowhere"})
		Expect(rabbit.OutcomeOf(err)).To(Equal(rabbit.Returned))
		Expect(err).To(MatchError(ContainSubstring("NO_ROUTE")))
	})

	It("T14: tells 2000 unroutable messages from 2000 routable ones in flight together, and misses none", func() {
		h := open()
		messages := make([]rabbit.Message, 4000)
		for i := range messages {
			messages[i] = h.to("beats", fmt.Sprint(i))
			if i%2 == 1 {
				messages[i].Key = "nowhere"
			}
		}
		long, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		counted := map[rabbit.Outcome]int{}
		for i, err := range h.PublishBatch(long, messages) {
			outcome := rabbit.OutcomeOf(err)
			counted[outcome]++
			Expect(outcome).To(Equal([]rabbit.Outcome{rabbit.Confirmed, rabbit.Returned}[i%2]), "message %d: %v", i, err)
		}
		Expect(counted).To(Equal(map[rabbit.Outcome]int{rabbit.Confirmed: 2000, rabbit.Returned: 2000}))
	})

	It("T15: says unknown, not refused, when the connection dies between publish and confirm", func() {
		proxy := rabbittest.NewProxy(host.Address())
		h := open(func(c *rabbit.Config) { c.URLs = []string{host.Through(proxy.Address())} })
		proxy.Stall()
		result := make(chan error, 1)
		go func() { result <- h.Publish(ctx, h.to("work", "x")) }()
		Consistently(result, 200*time.Millisecond).ShouldNot(Receive())
		proxy.Reset()
		var err error
		Eventually(result).Should(Receive(&err))
		Expect(rabbit.OutcomeOf(err)).To(Equal(rabbit.Unknown))
		proxy.Resume()
		h.awaitState(rabbit.Open)
		Eventually(func() error { return h.Publish(ctx, h.to("work", "again")) }).Should(Succeed())
	})

	It("T3/A4: a publish into a stalled broker ends at its deadline, and so does the shutdown", func() {
		proxy := rabbittest.NewProxy(host.Address())
		h := open(func(c *rabbit.Config) {
			c.URLs = []string{host.Through(proxy.Address())}
			c.WriteTimeout = 300 * time.Millisecond
		})
		proxy.Stall()
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		messages := make([]rabbit.Message, 400) // 100 MiB: more than any socket buffer
		for i := range messages {
			messages[i] = h.to("work", "")
			messages[i].Body = make([]byte, rabbit.MaxBody)
		}
		began := time.Now()
		results := h.PublishBatch(short, messages)
		Expect(time.Since(began)).To(BeNumerically("<", 5*time.Second))
		for _, err := range results {
			Expect(rabbit.OutcomeOf(err)).To(BeElementOf(rabbit.Unknown, rabbit.NotSent))
		}
		Eventually(func() string { _, why := h.State(); return why }).ShouldNot(BeEmpty())
		h.stop()
		Eventually(h.done, 10*time.Second).Should(BeClosed())
	})

	It("writes nothing for a context that has ended", func() {
		h := open()
		over, cancel := context.WithCancel(ctx)
		cancel()
		for range 50 {
			Expect(rabbit.OutcomeOf(h.Publish(over, h.to("work", "x")))).To(Equal(rabbit.NotSent))
		}
		Expect(host.Depth(h.work())).To(BeZero())
	})

	It("T14: never has more unconfirmed messages in flight than the window allows", func() {
		proxy := rabbittest.NewProxy(host.Address())
		h := open(func(c *rabbit.Config) { c.URLs, c.Window = []string{host.Through(proxy.Address())}, 3 })
		proxy.Stall()
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		counted := map[rabbit.Outcome]int{}
		for _, err := range h.PublishBatch(short, make([]rabbit.Message, 10)) {
			counted[rabbit.OutcomeOf(err)]++
		}
		Expect(counted).To(Equal(map[rabbit.Outcome]int{rabbit.Unknown: 3, rabbit.NotSent: 7}))
	})

	It("T16: gives up a channel on which confirms stop coming, long before missing heartbeats end the connection", func() {
		proxy := rabbittest.NewProxy(host.Address())
		h := open(func(c *rabbit.Config) {
			c.URLs, c.Heartbeat = []string{host.Through(proxy.Address())}, time.Minute
			c.PublishTimeout, c.RPCTimeout, c.DialTimeout = 100*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond
		})
		proxy.Stall()
		Expect(rabbit.OutcomeOf(h.Publish(ctx, h.to("work", "x")))).To(Equal(rabbit.Unknown))
		h.awaitState(rabbit.Connecting)
		proxy.Resume()
		Eventually(func() error { return h.Publish(ctx, h.to("work", "again")) }).Should(Succeed())
	})

	It("A19/T9: serves many callers at once, while the topology is replaced and messages are consumed", func() {
		h := open()
		var seen bodies
		h.consume(rabbit.Consumer{Queue: h.work(), Prefetch: 50, Handle: func(_ context.Context, d *rabbit.Delivery) error {
			seen.add(d)
			return nil
		}})
		var callers sync.WaitGroup
		errs := make(chan error, 20*25)
		for i := range 20 {
			callers.Go(func() {
				for j := range 25 {
					errs <- h.Publish(ctx, h.to("work", fmt.Sprint(i, " ", j)))
				}
			})
			h.SetTopology(topologyFor(h.name))
		}
		callers.Wait()
		close(errs)
		for err := range errs {
			Expect(err).NotTo(HaveOccurred())
		}
		Eventually(func() int { return len(seen.all()) }).Should(Equal(500))
	})

	DescribeTable("refuses what AMQP cannot carry before it is written, and says that no repeat helps",
		func(change func(*rabbit.Message), words string) {
			h := open()
			m := h.to("work", "x")
			change(&m)
			err := h.Publish(context.Background(), m)
			Expect(rabbit.OutcomeOf(err)).To(Equal(rabbit.Refused))
			Expect(err).To(MatchError(rabbit.ErrUnpublishable))
			Expect(err).To(MatchError(ContainSubstring(words)))
			Expect(h.Publish(context.Background(), h.to("work", "x"))).To(Succeed(), "on the same session")
			Expect(h.logText()).NotTo(ContainSubstring("not usable"))
		},
		Entry("a routing key", func(m *rabbit.Message) { m.Key = strings.Repeat("k", 256) }, "routing key of 256 bytes"),
		Entry("a correlation id", func(m *rabbit.Message) { m.CorrelationID = strings.Repeat("k", 256) },
			"correlation id of 256 bytes"),
		Entry("a header", func(m *rabbit.Message) { m.Headers = map[string]any{"x": struct{}{}} }, "headers: "),
	)

	It("T19: refuses a body over 256 KiB before it is written", func() {
		h := open()
		m := h.to("work", "")
		m.Body = make([]byte, rabbit.MaxBody+1)
		err := h.Publish(ctx, m)
		Expect(rabbit.OutcomeOf(err)).To(Equal(rabbit.Refused))
		Expect(err).To(MatchError(rabbit.ErrUnpublishable))
		m.Body = m.Body[1:]
		Expect(h.Publish(ctx, m)).To(Succeed())
	})

	It("fails at once with ErrUnavailable, never with unknown, while there is no connection", func() {
		h := start(func(c *rabbit.Config) { c.URLs = []string{"amqp://guest:guest@127.0.0.1:1/"} })
		h.awaitState(rabbit.Connecting)
		began := time.Now()
		err := h.Publish(ctx, h.to("work", "x"))
		Expect(time.Since(began)).To(BeNumerically("<", time.Second))
		Expect(rabbit.OutcomeOf(err)).To(Equal(rabbit.NotSent))
		Expect(err).To(MatchError(rabbit.ErrUnavailable))
		Expect(h.Ready()).To(MatchError(ContainSubstring("connecting")))
	})

	It("goes on after a publish to an exchange that does not exist, which closes the channel", func() {
		h := open()
		err := h.Publish(ctx, rabbit.Message{Exchange: h.name + "-missing", Key: "x"})
		Expect(rabbit.OutcomeOf(err)).To(Equal(rabbit.Unknown))
		Expect(err).To(MatchError(ContainSubstring("no exchange")))
		Expect(h.Publish(ctx, h.to("work", "x"))).To(Succeed())
	})

	It("A8: declares the topology again when messages come back because a queue was deleted", func() {
		h := open()
		host.DeleteQueue(h.work())
		Expect(rabbit.OutcomeOf(h.Publish(ctx, h.to("work", "x")))).To(Equal(rabbit.Returned))
		Eventually(func() error { return h.Publish(ctx, h.to("work", "x")) }).Should(Succeed())
	})

	It("A11/T16: replaces the channel after ten nacks in a row and works again when the queue takes messages", func() {
		h := open()
		full := h.name + "-full"
		host.DeclareQueue(full, amqp.Table{"x-max-length": int64(0), "x-overflow": "reject-publish"})
		for i := range 25 {
			err := h.Publish(ctx, rabbit.Message{Key: full, Body: []byte("x")})
			Expect(rabbit.OutcomeOf(err)).To(BeElementOf(rabbit.Refused, rabbit.NotSent), "publish %d: %v", i, err)
		}
		Eventually(func() error { return h.Publish(ctx, h.to("work", "x")) }).Should(Succeed())
	})
})
