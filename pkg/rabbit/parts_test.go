package rabbit_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/openaperture/openaperture/pkg/rabbit"
	"github.com/openaperture/openaperture/pkg/rabbittest"
)

// hear runs a consumer that need not be subscribed.
func (h *harness) hear(queue string) {
	h.background(func() error { return h.Consume(h.ctx, rabbit.Consumer{Queue: queue, Handle: ignore}) })
}

var _ = Describe("the parts of a topology", func() {
	It("A9/T29: stand for themselves: a refused one is named, left alone, and served once it can be declared", func() {
		proxy := rabbittest.NewProxy(host.Address())
		h := open(func(c *rabbit.Config) {
			c.URLs, c.RefusedRetry = []string{host.Through(proxy.Address())}, 200*time.Millisecond
		})
		good, bad := h.name+"-good", h.name+"-bad"
		goodQueue, badQueue := good+":child.work", bad+":child.work"
		host.DeclareQueue(badQueue, amqp.Table{"x-max-length": int64(5)})
		host.Publish(badQueue, raw("somebody else's")...)
		h.SetParts(map[string]rabbit.Topology{"good": topologyFor(good), "bad": topologyFor(bad)})
		h.hear(goodQueue)
		h.hear(badQueue)
		served := func(g Gomega) {
			g.Expect(h.Ready()).To(Succeed())
			g.Expect(h.Declared("good")).To(Succeed())
			g.Expect(h.Subscribed(goodQueue)).To(BeTrue())
			g.Expect(h.Declared("bad")).To(MatchError(And(ContainSubstring(badQueue), ContainSubstring("inequivalent arg"))))
			g.Expect(h.Subscribed(badQueue)).To(BeFalse())
		}
		Eventually(served).Should(Succeed())
		session := h.Session()
		Consistently(served, 500*time.Millisecond).Should(Succeed()) // over more than one further try
		Expect(h.Session()).To(Equal(session))
		Expect(h.Publish(context.Background(), rabbit.Message{Exchange: good + "-root", Key: good + ".child.beats"})).
			To(Succeed())

		proxy.Reset()
		Eventually(h.Session).Should(BeNumerically(">=", session+2)) // a whole session begins with the refusal, too
		Eventually(served).Should(Succeed())
		Expect(host.Depth(badQueue)).To(Equal(1))
		Expect(strings.Count(h.logText(), "part of the topology refused")).To(Equal(1))

		heard := h.SessionOf(goodQueue)
		host.DeleteQueue(badQueue)
		Eventually(func() bool { return h.Subscribed(badQueue) }).Should(BeTrue())
		Expect(h.Declared("bad")).To(Succeed())
		Expect(h.SessionOf(goodQueue)).To(Equal(heard))
	})

	It("are forgotten when they are left out, and kept when they are the same", func() {
		h := open(func(c *rabbit.Config) { c.RefusedRetry = time.Hour })
		name := h.name + "-part"
		h.SetParts(map[string]rabbit.Topology{"it": topologyFor(name)})
		Eventually(func() error { return h.Declared("it") }).Should(Succeed())
		h.SetParts(map[string]rabbit.Topology{"it": topologyFor(name), "other": {}})
		Expect(h.Declared("it")).To(Succeed())
		h.SetParts(nil)
		Expect(h.Declared("it")).To(MatchError(ContainSubstring("not declared")))
	})

	It("A8: are declared again, each for itself, when a message comes back or its exchange is missing", func() {
		h := open()
		one, two := h.name+"-one", h.name+"-two"
		h.SetParts(map[string]rabbit.Topology{"one": topologyFor(one), "two": topologyFor(two)})
		Eventually(func() error { return h.Declared("two") }).Should(Succeed())
		host.DeleteQueue(one + ":child.beats")
		host.DeleteQueue(two + ":child.beats")
		m := rabbit.Message{Exchange: one + "-root", Key: one + ".child.beats"}
		Expect(rabbit.OutcomeOf(h.Publish(context.Background(), m))).To(Equal(rabbit.Returned))
		Eventually(func() int { return host.Depth(one + ":child.beats") }).Should(BeZero())
		Expect(host.Depth(two + ":child.beats")).To(Equal(-1))

		Expect(host.Do(func(ch *amqp.Channel) error { return ch.ExchangeDelete(one+"-root", false, false) })).To(Succeed())
		Expect(rabbit.OutcomeOf(h.Publish(context.Background(), m))).To(Equal(rabbit.Unknown))
		Expect(h.Publish(context.Background(), m)).To(Succeed())
		Expect(host.Depth(two + ":child.beats")).To(Equal(-1))
	})

	Describe("that share a root which is deleted", func() {
		var h *harness
		var m rabbit.Message
		var queue string // of the other part, deleted too
		given := func() {
			h = open(func(c *rabbit.Config) { c.RefusedRetry = time.Hour })
			parts := map[string]rabbit.Topology{}
			for _, part := range []string{"one", "two"} {
				t := topologyFor(h.name + "-" + part)
				t.Exchanges[0].Name, t.Exchanges[1].Parent = h.name+"-shared", h.name+"-shared"
				parts[part] = t
			}
			h.SetParts(parts)
			Eventually(func() error { return h.Declared("two") }).Should(Succeed())
			m = rabbit.Message{Exchange: h.name + "-shared", Key: h.name + "-one.child.beats"}
			queue = h.name + "-two:child.beats"
		}
		lost := func() {
			GinkgoHelper()
			host.DeleteQueue(queue)
			Expect(host.Do(func(ch *amqp.Channel) error { return ch.ExchangeDelete(m.Exchange, false, false) })).To(Succeed())
			Expect(rabbit.OutcomeOf(h.Publish(context.Background(), m))).To(Equal(rabbit.Unknown))
			Expect(h.Publish(context.Background(), m)).To(Succeed())
		}

		It("hold up no publishing: it needs the exchange and its bindings, the rest is declared beside it", func() {
			given()
			host.DeleteQueue(queue) // it is declared again once: the next time is not due yet
			other := rabbit.Message{Exchange: m.Exchange, Key: h.name + "-two.child.beats"}
			Expect(rabbit.OutcomeOf(h.Publish(context.Background(), other))).To(Equal(rabbit.Returned))
			Eventually(func() int { return host.Depth(queue) }).Should(BeZero())
			lost()
			Expect(host.Depth(queue)).To(Equal(-1))
		})

		It("A8: are declared again as a whole", func() {
			given()
			lost()
			Eventually(func() int { return host.Depth(queue) }).Should(BeZero())
		})
	})

	It("A8: publishing restores what hung on a root that has queues of its own", func() {
		h := open()
		name := h.name + "-it"
		t := rabbit.Topology{Exchanges: []rabbit.Exchange{{Name: name}},
			Queues: []rabbit.Queue{{Name: name, BindExchange: name, BindKey: "a"}}}
		h.SetParts(map[string]rabbit.Topology{"it": t})
		Eventually(func() error { return h.Declared("it") }).Should(Succeed())
		Expect(host.Do(func(ch *amqp.Channel) error { return ch.ExchangeDelete(name, false, false) })).To(Succeed())
		m := rabbit.Message{Exchange: name, Key: "a"}
		Expect(rabbit.OutcomeOf(h.Publish(context.Background(), m))).To(Equal(rabbit.Unknown))
		Expect(h.Publish(context.Background(), m)).To(Succeed())
	})

	It("hold up no publishing while they are declared", func() {
		h := open()
		many := map[string]rabbit.Topology{}
		for i := range 30 {
			many[fmt.Sprint(i)] = topologyFor(fmt.Sprint(h.name, "-", i))
		}
		h.SetParts(many)
		for range 5 {
			Expect(h.Publish(context.Background(), h.to("work", "x"))).To(Succeed())
		}
		Expect(h.Declared("9")).NotTo(Succeed(), "the last one by name is not declared yet")
		Eventually(func() error { return h.Declared("9") }).Should(Succeed())
	})

	It("T21/A8: are declared again when a queue is deleted under its consumer", func() {
		h := open()
		name := h.name + "-part"
		h.SetParts(map[string]rabbit.Topology{"it": topologyFor(name)})
		h.consume(rabbit.Consumer{Queue: name + ":child.work", Handle: ignore})
		session := h.SessionOf(name + ":child.work")
		host.DeleteQueue(name + ":child.work")
		Eventually(func() uint64 { return h.SessionOf(name + ":child.work") }).Should(BeNumerically(">=", session+2))
		Eventually(func() bool { return h.Subscribed(name + ":child.work") }).Should(BeTrue())
	})
})
