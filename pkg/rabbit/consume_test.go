package rabbit_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/rabbit"
	"github.com/openaperture/openaperture/pkg/rabbittest"
)

// bodies collects what handlers saw, in order.
type bodies struct {
	mu   sync.Mutex
	seen []string
}

func (b *bodies) add(d *rabbit.Delivery) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = append(b.seen, string(d.Body))
}

func (b *bodies) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string{}, b.seen...)
}

func raw(texts ...string) []amqp.Publishing {
	out := make([]amqp.Publishing, len(texts))
	for i, t := range texts {
		out[i] = amqp.Publishing{Body: []byte(t), DeliveryMode: amqp.Persistent}
	}
	return out
}

func ignore(context.Context, *rabbit.Delivery) error { return nil }

var _ = Describe("consuming", func() {
	It("acks what the handler has handled, one at a time and in order", func() {
		h := open()
		host.Publish(h.work(), raw("a", "b", "c")...)
		var seen bodies
		h.consume(rabbit.Consumer{Queue: h.work(), Handle: func(_ context.Context, d *rabbit.Delivery) error {
			seen.add(d)
			return nil
		}})
		Eventually(seen.all).Should(Equal([]string{"a", "b", "c"}))
		h.stop()
		Eventually(h.done).Should(BeClosed())
		Expect(host.Depth(h.work())).To(BeZero())
	})

	It("T25: holds one message of a work queue at a time: a crash of its handler counts against no other", func() {
		h := open()
		host.Publish(h.work(), raw("a", "b", "c")...)
		begun, finish := make(chan string, 3), make(chan struct{})
		h.consume(rabbit.Consumer{Queue: h.work(), Handle: func(ctx context.Context, d *rabbit.Delivery) error {
			begun <- string(d.Body)
			select {
			case <-finish:
			case <-ctx.Done():
			}
			return nil
		}})
		Eventually(begun).Should(Receive(Equal("a")))
		Consistently(func() int { return host.Depth(h.work()) }, 300*time.Millisecond).Should(Equal(2))
		close(finish)
		Eventually(begun).Should(Receive(Equal("b")))
		Eventually(begun).Should(Receive(Equal("c")))
	})

	It("dead-letters what the handler rejects", func() {
		h := open()
		host.Publish(h.work(), raw("bad", "good")...)
		var seen bodies
		h.consume(rabbit.Consumer{Queue: h.work(), Handle: func(_ context.Context, d *rabbit.Delivery) error {
			seen.add(d)
			if string(d.Body) == "bad" {
				return fmt.Errorf("handle: %w", rabbit.Reject(errors.New("not JSON")))
			}
			return nil
		}})
		Eventually(seen.all).Should(Equal([]string{"bad", "good"}))
		Eventually(func() int { return host.Depth(rabbit.DeadLetterName(h.work())) }).Should(Equal(1))
		Expect(h.logText()).To(ContainSubstring("messages dead-lettered"))
	})

	It("drops what the handler rejects of a queue without dead letters, and says so", func() {
		h := open()
		host.Publish(h.beats(), raw("bad")...)
		h.consume(rabbit.Consumer{Queue: h.beats(), Handle: func(context.Context,
			*rabbit.Delivery) error {
			return rabbit.Reject(errors.New("not JSON"))
		}})
		Eventually(h.logText).Should(ContainSubstring("messages dropped"))
		Expect(h.logText()).NotTo(ContainSubstring("dead-lettered"))
	})

	DescribeTable("T23/T24/A13: a poison message is retried with a back-off, then dead-lettered by the delivery limit; "+
		"others proceed",
		func(fail func() error) {
			h := open()
			host.Publish(h.work(), raw("poison", "good")...)
			var seen bodies
			h.consume(rabbit.Consumer{Queue: h.work(), Backoff: 10 * time.Millisecond,
				Handle: func(_ context.Context, d *rabbit.Delivery) error {
					seen.add(d)
					if string(d.Body) == "poison" {
						return fail()
					}
					return nil
				}})
			Eventually(func() int { return host.Depth(rabbit.DeadLetterName(h.work())) }).Should(Equal(1))
			Eventually(seen.all).Should(ConsistOf("poison", "poison", "poison", "good")) // limit 2: three deliveries
		},
		Entry("when it returns an error", func() error { return errors.New("no luck") }),
		Entry("when it panics", func() error { panic("boom") }),
	)

	It("tells of a handler that panicked, with its queue and message (fault 9)", func() {
		h := open()
		heard := make(chan *loop.Panic, 10)
		h.ctx = loop.WithPanics(h.ctx, func(p *loop.Panic) { heard <- p })
		host.Publish(h.work(), amqp.Publishing{MessageId: "m-1", Body: []byte("poison")})
		h.consume(rabbit.Consumer{Queue: h.work(), Backoff: time.Millisecond,
			Handle: func(context.Context, *rabbit.Delivery) error { panic("boom") }})
		Eventually(heard).Should(Receive(SatisfyAll(HaveField("Part", "handler"),
			HaveField("Item", h.work()+" m-1"), HaveField("Stack", ContainSubstring("rabbit_test")))))
		Eventually(h.logText).Should(ContainSubstring("messages not handled"))
		Expect(h.logText()).To(ContainSubstring("panicked: boom"))
	})

	It("keeps a held message through any number of tries without using up its delivery limit", func() {
		h := open()
		host.Publish(h.work(), raw("a")...)
		var seen bodies
		h.consume(rabbit.Consumer{Queue: h.work(), Backoff: time.Millisecond,
			Handle: func(_ context.Context, d *rabbit.Delivery) error {
				seen.add(d)
				if len(seen.all()) < 8 {
					return rabbit.Hold(errors.New("database away"))
				}
				return nil
			}})
		Eventually(seen.all).Should(HaveLen(8))
		h.stop()
		Eventually(h.done).Should(BeClosed())
		Expect(host.Depth(h.work())).To(BeZero())
		Expect(host.Depth(rabbit.DeadLetterName(h.work()))).To(BeZero())
	})

	It("T19: dead-letters a body over 256 KiB without showing it to the handler", func() {
		h := open()
		host.Publish(h.work(), amqp.Publishing{Body: make([]byte, rabbit.MaxBody+1)}, amqp.Publishing{Body: []byte("small")})
		var seen bodies
		h.consume(rabbit.Consumer{Queue: h.work(), Handle: func(_ context.Context, d *rabbit.Delivery) error {
			seen.add(d)
			return nil
		}})
		Eventually(seen.all).Should(Equal([]string{"small"}))
		Eventually(func() int { return host.Depth(rabbit.DeadLetterName(h.work())) }).Should(Equal(1))
	})

	It("T1/A3: a reset while a handler works loses no other message, and the stale ack is not sent", func() {
		proxy := rabbittest.NewProxy(host.Address())
		h := open(func(c *rabbit.Config) { c.URLs = []string{host.Through(proxy.Address())} })
		host.Publish(h.work(), raw("a", "b", "c")...)
		type call struct {
			body   string
			finish chan struct{}
			ctx    context.Context
		}
		calls := make(chan call)
		h.consume(rabbit.Consumer{Queue: h.work(), Prefetch: 3, Handle: func(ctx context.Context, d *rabbit.Delivery) error {
			c := call{string(d.Body), make(chan struct{}), ctx}
			select {
			case calls <- c:
			case <-h.ctx.Done():
				return errors.New("spec over")
			}
			select {
			case <-c.finish:
			case <-h.ctx.Done():
			}
			return nil
		}})
		take := func() call {
			GinkgoHelper()
			var c call
			Eventually(calls).Should(Receive(&c))
			return c
		}
		first := take()
		Expect(first.body).To(Equal("a"))
		close(first.finish)
		second := take()
		Expect(second.body).To(Equal("b"))
		session := h.Session()
		proxy.Reset()
		Eventually(second.ctx.Done()).Should(BeClosed())
		Expect(context.Cause(second.ctx)).To(MatchError(rabbit.ErrStale))
		h.awaitState(rabbit.Open)
		close(second.finish) // its ack belongs to the dead session
		for missing := map[string]bool{"b": true, "c": true}; len(missing) > 0; {
			again := take() // "a" may come once more, too: the reset may have overtaken its ack
			delete(missing, again.body)
			close(again.finish)
		}
		Expect(h.Session()).To(BeNumerically(">", session))
		Consistently(calls, 200*time.Millisecond).ShouldNot(Receive())
	})

	It("T21/A8: re-declares and re-subscribes when the queue is deleted under it, and counts the gap", func() {
		h := open()
		var seen bodies
		h.consume(rabbit.Consumer{Queue: h.work(), Handle: func(_ context.Context, d *rabbit.Delivery) error {
			seen.add(d)
			return nil
		}})
		session := h.Session()
		host.DeleteQueue(h.work())
		Eventually(h.Session).Should(BeNumerically(">=", session+2)) // ended and begun
		Eventually(func() bool { return h.Subscribed(h.work()) }).Should(BeTrue())
		Expect(h.Publish(context.Background(), h.to("work", "after"))).To(Succeed()) // its binding is back, too
		Eventually(seen.all).Should(Equal([]string{"after"}))
		Expect(h.Ready()).To(Succeed())
	})

	It("hears again after the broker has closed all connections (management API)", func() {
		h := open()
		var seen bodies
		h.consume(rabbit.Consumer{Queue: h.work(), Handle: func(_ context.Context, d *rabbit.Delivery) error {
			seen.add(d)
			return nil
		}})
		session := h.Session()
		Eventually(host.CloseConnections).WithPolling(200 * time.Millisecond).Should(BeNumerically(">=", 2))
		Eventually(h.Session).Should(BeNumerically(">=", session+3))
		Eventually(h.Ready).Should(Succeed())
		Eventually(func() error { return h.Publish(context.Background(), h.to("work", "x")) }).Should(Succeed())
		Eventually(seen.all).Should(ContainElement("x"))
	})

	It("is not ready while a consumer's queue does not exist, and subscribes once it does", func() {
		h := open()
		queue := h.name + "-later"
		h.background(func() error {
			return h.Consume(h.ctx, rabbit.Consumer{Queue: queue, Handle: func(context.Context,
				*rabbit.Delivery) error {
				return nil
			}})
		})
		Eventually(h.Ready).Should(MatchError(ContainSubstring(queue)))
		topology := topologyFor(h.name)
		topology.Queues = append(topology.Queues, rabbit.Queue{Name: queue})
		h.SetTopology(topology)
		Eventually(h.Ready).Should(Succeed())
		Expect(h.Subscribed(queue)).To(BeTrue())
	})

	It("subscribes with the longest names of a service, its exchange and a queue", func() {
		service := "overseer@" + strings.Repeat("n", 200)
		queue := strings.Repeat("k", 200-24) + unique() + ".system_modules"
		h := open(func(c *rabbit.Config) {
			c.Name = service
			c.Topology.Queues = append(c.Topology.Queues, rabbit.Queue{Name: queue, Kind: rabbit.Beats})
		})
		h.consume(rabbit.Consumer{Queue: queue, Handle: ignore})
		Expect(h.Ready()).To(Succeed())
	})

	It("counts the gaps of each queue by itself, too", func() {
		h := open()
		h.consume(rabbit.Consumer{Queue: h.work(), Handle: ignore})
		session := h.SessionOf(h.work())
		Expect(h.SessionOf(h.beats())).To(BeZero())
		ctx, cancel := context.WithCancel(h.ctx)
		ended := make(chan error, 1)
		go func() { ended <- h.Consume(ctx, rabbit.Consumer{Queue: h.beats(), Handle: ignore}) }()
		DeferCleanup(cancel)
		Eventually(func() bool { return h.Subscribed(h.beats()) }).Should(BeTrue())
		cancel()
		Eventually(ended).Should(Receive(BeNil()))
		Expect(h.SessionOf(h.work())).To(Equal(session))
		Expect(h.SessionOf(h.beats())).To(BeZero())
		host.DeleteQueue(h.work())
		Eventually(func() uint64 { return h.SessionOf(h.work()) }).Should(BeNumerically(">", session))
	})

	It("T27: reports the redelivered flag, which is set though nobody saw the message before", func() {
		h := open()
		host.Publish(h.work(), raw("a")...)
		Expect(host.Do(func(ch *amqp.Channel) error { // fetched by somebody who never looked at it
			_, _, err := ch.Get(h.work(), false)
			return err
		})).To(Succeed())
		flag := make(chan bool, 1)
		h.consume(rabbit.Consumer{Queue: h.work(), Handle: func(_ context.Context, d *rabbit.Delivery) error {
			flag <- d.Redelivered
			return nil
		}})
		Eventually(flag).Should(Receive(BeTrue()))
	})

	Describe("a stop", func() {
		It("abandons a handler that does not even heed its context, and says so", func() {
			h := open(func(c *rabbit.Config) { c.DrainTimeout = 100 * time.Millisecond })
			host.Publish(h.work(), raw("a")...)
			began, finish, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			go func() {
				result <- h.Consume(h.ctx, rabbit.Consumer{Queue: h.work(), Handle: func(context.Context, *rabbit.Delivery) error {
					close(began)
					<-finish
					return nil
				}})
			}()
			Eventually(began).Should(BeClosed())
			h.stop()
			Eventually(result).Should(Receive(MatchError(rabbit.ErrAbandoned)))
			Eventually(h.done).Should(BeClosed())
			close(finish)
			Eventually(func() int { return host.Depth(h.work()) }).Should(Equal(1))
		})

		It("lets the running handler finish, acks it, and takes nothing more", func() {
			h := open()
			host.Publish(h.work(), raw("a", "b")...)
			began, finish := make(chan struct{}), make(chan struct{})
			h.consume(rabbit.Consumer{Queue: h.work(), Handle: func(ctx context.Context, _ *rabbit.Delivery) error {
				close(began)
				<-finish
				return ctx.Err()
			}})
			Eventually(began).Should(BeClosed())
			h.stop()
			Consistently(h.done, 100*time.Millisecond).ShouldNot(BeClosed())
			close(finish)
			Eventually(h.done).Should(BeClosed())
			Eventually(func() int { return host.Depth(h.work()) }).Should(Equal(1))
		})

		It("cancels a handler that takes longer than the drain time, and gives its message back", func() {
			h := open(func(c *rabbit.Config) { c.DrainTimeout = 100 * time.Millisecond })
			host.Publish(h.work(), raw("a")...)
			began := make(chan struct{})
			h.consume(rabbit.Consumer{Queue: h.work(), Handle: func(ctx context.Context, _ *rabbit.Delivery) error {
				close(began)
				<-ctx.Done()
				return ctx.Err()
			}})
			Eventually(began).Should(BeClosed())
			h.stop()
			Eventually(h.done).Should(BeClosed())
			Eventually(func() int { return host.Depth(h.work()) }).Should(Equal(1))
		})
	})
})

var _ = Describe("consuming in batches", func() {
	// gather runs a batch consumer whose handler reports each batch and then waits for its verdict.
	type batch struct {
		deliveries []*rabbit.Delivery
		verdict    chan error
	}
	gather := func(h *harness, c rabbit.BatchConsumer) <-chan batch {
		GinkgoHelper()
		out := make(chan batch)
		c.Handle = func(_ context.Context, deliveries []*rabbit.Delivery) error {
			b := batch{deliveries, make(chan error, 1)}
			select {
			case out <- b:
			case <-h.ctx.Done():
				return h.ctx.Err()
			}
			select {
			case err := <-b.verdict:
				return err
			case <-h.ctx.Done():
			}
			select {
			case err := <-b.verdict: // the spec spoke before it stopped
				return err
			default:
				return h.ctx.Err()
			}
		}
		h.background(func() error { return h.ConsumeBatch(h.ctx, c) })
		Eventually(func() bool { return h.Subscribed(c.Queue) }).Should(BeTrue())
		return out
	}
	next := func(batches <-chan batch) batch {
		GinkgoHelper()
		var b batch
		Eventually(batches).Should(Receive(&b))
		return b
	}
	numbers := func(n int) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = fmt.Sprint(i)
		}
		return out
	}

	It("hands the first message over at once, then all that came meanwhile, and acks them", func() {
		h := open()
		batches := gather(h, rabbit.BatchConsumer{Queue: h.beats(), Prefetch: 200, MaxBatch: 100})
		Expect(h.Publish(context.Background(), h.to("beats", "first"))).To(Succeed())
		first := next(batches)
		Expect(first.deliveries).To(HaveLen(1))
		host.Publish(h.beats(), raw(numbers(150)...)...)
		Eventually(func() int { return host.Depth(h.beats()) }).Should(BeZero()) // all with the consumer
		first.verdict <- nil
		total := 0
		for total < 150 {
			b := next(batches)
			Expect(len(b.deliveries)).To(BeNumerically("<=", 100))
			total += len(b.deliveries)
			b.verdict <- nil
		}
		Consistently(batches, 100*time.Millisecond).ShouldNot(Receive())
		h.stop()
		Eventually(h.done).Should(BeClosed())
		Expect(host.Depth(h.beats())).To(BeZero())
	})

	It("waits for a whole batch between two calls, but no longer than its pace", func() {
		h := open()
		patient := gather(h, rabbit.BatchConsumer{Queue: h.beats(), MaxBatch: 100, Pace: time.Hour})
		host.Publish(h.beats(), raw("first")...)
		first := next(patient)
		Expect(first.deliveries).To(HaveLen(1))
		first.verdict <- nil
		host.Publish(h.beats(), raw(numbers(99)...)...)
		Eventually(func() int { return host.Depth(h.beats()) }).Should(BeZero())
		Consistently(patient, 100*time.Millisecond).ShouldNot(Receive())
		host.Publish(h.beats(), raw("last")...)
		Expect(next(patient).deliveries).To(HaveLen(100))
		h.stop()
		Eventually(h.done).Should(BeClosed())

		h = open()
		brisk := gather(h, rabbit.BatchConsumer{Queue: h.beats(), MaxBatch: 100, Pace: 20 * time.Millisecond})
		for range 3 {
			host.Publish(h.beats(), raw("one")...)
			b := next(brisk)
			Expect(b.deliveries).To(HaveLen(1))
			b.verdict <- nil
		}
	})

	It("dead-letters only the marked deliveries of a batch that succeeds", func() {
		h := open()
		host.Publish(h.work(), raw(numbers(6)...)...)
		batches := gather(h, rabbit.BatchConsumer{Queue: h.work(), Prefetch: 10})
		for handled := 0; handled < 6; {
			b := next(batches)
			for _, d := range b.deliveries {
				if string(d.Body) == "1" || string(d.Body) == "4" {
					d.Reject(errors.New("no hostname"))
				}
			}
			handled += len(b.deliveries)
			b.verdict <- nil
		}
		Eventually(func() int { return host.Depth(rabbit.DeadLetterName(h.work())) }).Should(Equal(2))
		h.stop()
		Eventually(h.done).Should(BeClosed())
		Expect(host.Depth(h.work())).To(BeZero())
	})

	It("hands a failed batch out again, and acks later ones without acking the failed ones with them", func() {
		h := open()
		batches := gather(h, rabbit.BatchConsumer{Queue: h.work(), Prefetch: 10, MaxBatch: 2,
			Backoff: 300 * time.Millisecond})
		host.Publish(h.work(), raw("a")...)
		next(batches).verdict <- errors.New("store away")
		host.Publish(h.work(), raw("b", "c")...)
		var seen []string
		for len(seen) < 3 {
			b := next(batches)
			for _, d := range b.deliveries {
				seen = append(seen, string(d.Body))
			}
			b.verdict <- nil
		}
		Expect(seen).To(Equal([]string{"b", "c", "a"}))
		h.stop()
		Eventually(h.done).Should(BeClosed())
		Expect(host.Depth(h.work())).To(BeZero())
	})

	It("keeps a held batch un-acked across later acks until it succeeds", func() {
		h := open()
		batches := gather(h, rabbit.BatchConsumer{Queue: h.work(), Prefetch: 10, MaxBatch: 2, Backoff: 2 * time.Second})
		host.Publish(h.work(), raw("a")...)
		next(batches).verdict <- rabbit.Hold(errors.New("store away"))
		host.Publish(h.work(), raw("b")...)
		busy := next(batches) // while it lasts, c and d become one batch
		Expect(string(busy.deliveries[0].Body)).To(Equal("b"))
		host.Publish(h.work(), raw("c", "d")...)
		Eventually(func() int { return host.Depth(h.work()) }).Should(BeZero())
		busy.verdict <- nil
		again := next(batches)
		for string(again.deliveries[0].Body) != "a" {
			again.verdict <- nil
			again = next(batches)
		}
		Expect(string(again.deliveries[0].Body)).To(Equal("a"))
		Expect(again.deliveries[0].Redelivered).To(BeFalse()) // it never left this process
		h.stop()                                              // unsettled: goes back
		Eventually(h.done).Should(BeClosed())
		Eventually(func() int { return host.Depth(h.work()) }).Should(Equal(1))
	})

	It("keeps a held batch un-acked by a later one that was with the handler when its time came", func() {
		h := open()
		batches := gather(h, rabbit.BatchConsumer{Queue: h.work(), Prefetch: 10, MaxBatch: 2, Backoff: time.Millisecond})
		host.Publish(h.work(), raw("a")...)
		held := next(batches)
		host.Publish(h.work(), raw("b", "c")...)
		Eventually(func() int { return host.Depth(h.work()) }).Should(BeZero())
		held.verdict <- rabbit.Hold(errors.New("store away"))
		busy := next(batches)
		Expect(busy.deliveries).To(HaveLen(2))
		Consistently(batches, "100ms").ShouldNot(Receive()) // meanwhile a falls due
		busy.verdict <- nil
		Expect(string(next(batches).deliveries[0].Body)).To(Equal("a"))
		h.stop() // unsettled: goes back
		Eventually(h.done).Should(BeClosed())
		Eventually(func() int { return host.Depth(h.work()) }).Should(Equal(1))
	})
})
