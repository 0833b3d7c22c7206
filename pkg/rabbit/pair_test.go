package rabbit_test

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/openaperture/openaperture/pkg/rabbit"
	"github.com/openaperture/openaperture/pkg/rabbittest"
)

// pairHarness owns one running Pair whose broker is behind a proxy. Its failover is another virtual host.
type pairHarness struct {
	*rabbit.Pair
	name     string
	link     *rabbittest.Proxy // to the broker
	other    *rabbittest.Proxy // to the failover
	failover *rabbittest.Host
	metrics  *prometheus.Registry
	logs     *observer.ObservedLogs
	ctx      context.Context // of consumers
	stop     func()
	done     chan struct{}
}

const dwell = 300 * time.Millisecond

func openPair() *pairHarness {
	GinkgoHelper()
	before := goleak.IgnoreCurrent()
	core, logs := observer.New(zap.DebugLevel)
	h := &pairHarness{name: unique(), link: rabbittest.NewProxy(host.Address()), failover: rabbittest.NewHost(),
		other: rabbittest.NewProxy(host.Address()), metrics: prometheus.NewRegistry(), logs: logs, done: make(chan struct{})}
	c := config(host.Through(h.link.Address()))
	c.Topology, c.Log, c.Metrics, c.MaxRedial = topologyFor(h.name), zap.New(core), h.metrics, 200*time.Millisecond
	pair, err := rabbit.NewPair(c, dwell, dwell)
	Expect(err).NotTo(HaveOccurred())
	h.Pair = pair
	ctx, cancel := context.WithCancel(context.Background())
	consumers, cancelConsumers := context.WithCancel(ctx)
	h.ctx = consumers
	h.stop = func() { cancelConsumers(); cancel() }
	go func() {
		defer close(h.done)
		defer GinkgoRecover()
		Expect(pair.Run(ctx)).To(Succeed())
	}()
	DeferCleanup(func() {
		h.stop()
		Eventually(h.done).Should(BeClosed())
		Eventually(func() error { return goleak.Find(before, proxies, listeners) }).Should(Succeed())
	})
	Eventually(h.Ready).Should(Succeed())
	return h
}

func (h *pairHarness) work() string { return h.name + ":child.work" }

// withFailover sets the failover and waits until it is there.
func (h *pairHarness) withFailover() *pairHarness {
	GinkgoHelper()
	Expect(h.SetFailover([]string{h.failover.Through(h.other.Address())})).To(Succeed())
	Eventually(h.Failover).Should(Succeed())
	return h
}

// lose takes the broker away; the function returned brings it back.
func (h *pairHarness) lose() (back func()) {
	GinkgoHelper()
	h.link.Close()
	Eventually(h.Diverted).Should(BeTrue())
	return func() { h.link = rabbittest.NewProxyAt(h.link.Address(), host.Address()) }
}

// publish repeats under the same ID until one of the brokers has the message.
func (h *pairHarness) publish(body string) {
	GinkgoHelper()
	Eventually(func() error {
		return h.Publish(context.Background(), rabbit.Message{Exchange: h.name + "-root", Key: h.name + ".child.work",
			ID: body, Body: []byte(body)})
	}).Should(Succeed())
}

// consume collects what comes to the work queue.
func (h *pairHarness) consume() *bodies {
	GinkgoHelper()
	seen := &bodies{}
	h.background(func() error {
		return h.Consume(h.ctx, rabbit.Consumer{Queue: h.work(), Handle: func(_ context.Context, d *rabbit.Delivery) error {
			seen.add(d)
			return nil
		}})
	})
	Eventually(func() bool { return h.Subscribed(h.work()) }).Should(BeTrue())
	return seen
}

func (h *pairHarness) background(f func() error) {
	joined := make(chan struct{})
	go func() {
		defer close(joined)
		defer GinkgoRecover()
		Expect(f()).To(Succeed())
	}()
	DeferCleanup(func() { h.stop(); Eventually(joined).Should(BeClosed()) })
}

func (h *pairHarness) gauge() float64 {
	GinkgoHelper()
	families, err := h.metrics.Gather()
	Expect(err).NotTo(HaveOccurred())
	for _, f := range families {
		if f.GetName() == "openaperture_rabbit_diverted" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return -1
}

var _ = Describe("A broker with a failover (A15)", func() {
	It("takes the failover when the broker is away, and goes back after the dwell; nothing is lost", func() {
		h := openPair().withFailover()
		seen := h.consume()
		h.publish("before")
		Eventually(seen.all).Should(ConsistOf("before"))
		h.publish("in hand") // given out after the acknowledgement of the first: only this one may come again
		Eventually(seen.all).Should(ConsistOf("before", "in hand"))
		Expect(h.gauge()).To(BeZero())

		back := h.lose()
		h.publish("meanwhile")
		Eventually(seen.all).Should(ConsistOf("before", "in hand", "meanwhile"))
		Expect(h.Ready()).To(Succeed())
		Expect(h.gauge()).To(Equal(1.0))
		h.failover.Publish(h.work(), raw("late")...) // such as by somebody who goes back later than we do

		back()
		Eventually(h.Diverted).Should(BeFalse())
		h.publish("after")
		h.failover.Publish(h.work(), raw("later")...)
		Eventually(seen.all).Should(ContainElements("late", "after", "later"))
		Expect(h.gauge()).To(BeZero())
		h.stop()
		Eventually(h.done).Should(BeClosed())
		Expect(slices.DeleteFunc(seen.all(), func(s string) bool { return s == "in hand" })).To(
			ConsistOf("before", "meanwhile", "late", "after", "later"))
		Expect(host.Depth(h.work())).To(BeZero())
		Expect(h.failover.Depth(h.work())).To(BeZero())
		Expect(h.logs.FilterMessageSnippet("messages take").Len()).To(Equal(2))
	})

	It("does not leave a broker that is away for less than the time, nor without a failover", func() {
		h := openPair()
		h.link.Close()
		Eventually(h.Ready).ShouldNot(Succeed())
		Consistently(h.Diverted, 2*dwell).Should(BeFalse())
		h.link = rabbittest.NewProxyAt(h.link.Address(), host.Address())
		Eventually(h.Ready).Should(Succeed())
		h.withFailover()
		h.link.Reset()
		Consistently(h.Diverted, 2*dwell).Should(BeFalse())
	})

	It("counts a change of the broker as a gap, but not what the other broker does", func() {
		h := openPair().withFailover()
		h.consume()
		calm := h.Session()
		h.other.Reset()
		Eventually(h.Failover).ShouldNot(Succeed())
		Eventually(h.Failover).Should(Succeed())
		Expect(h.Session()).To(Equal(calm))

		back := h.lose()
		Eventually(h.Ready).Should(Succeed())
		away := h.Session()
		Expect(away).To(BeNumerically(">", calm))
		Expect(h.Session()).To(Equal(away))
		Eventually(func() bool { return h.Subscribed(h.work()) }).Should(BeTrue())
		Expect(h.Whole().Subscribed(h.work())).To(BeFalse(), "others may still reach the broker")
		h.other.Reset()
		Eventually(h.Session).Should(BeNumerically(">", away))

		back()
		Eventually(h.Diverted).Should(BeFalse())
		Eventually(func() bool { return h.Whole().Subscribed(h.work()) }).Should(BeTrue())
	})

	It("handles one delivery at a time, whichever broker it comes from", func() {
		h := openPair().withFailover()
		var running, most, handled atomic.Int64
		h.background(func() error {
			return h.Consume(h.ctx, rabbit.Consumer{Queue: h.work(), Handle: func(context.Context, *rabbit.Delivery) error {
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				handled.Add(1)
				return nil
			}})
		})
		Eventually(func() bool { return h.Subscribed(h.work()) }).Should(BeTrue())
		const each = 200
		many := raw(slices.Repeat([]string{"x"}, each)...)
		host.Publish(h.work(), many...)
		h.failover.Publish(h.work(), many...)
		Eventually(handled.Load).Should(BeNumerically("==", 2*each))
		Expect(most.Load()).To(BeNumerically("==", 1))
	})

	It("follows when another broker becomes the failover, and when none does", func() {
		h := openPair().withFailover()
		seen := h.consume()
		h.lose()
		Expect(h.SetFailover([]string{"http://not-a-broker"})).NotTo(Succeed())
		Expect(h.Diverted()).To(BeTrue(), "what is wrong changes nothing")

		next := rabbittest.NewHost()
		Expect(h.SetFailover([]string{next.URL})).To(Succeed())
		Eventually(h.Diverted).Should(BeTrue())
		h.publish("next")
		Eventually(seen.all).Should(ConsistOf("next"))
		Expect(h.failover.Depth(h.work())).To(BeZero())

		Expect(h.SetFailover(nil)).To(Succeed())
		Expect(h.Diverted()).To(BeFalse())
		Expect(h.Failover()).To(Succeed())
		Expect(h.Ready()).NotTo(Succeed())
	})

	It("tells who watches of each change", func() {
		h := openPair().withFailover()
		changed := h.Watch()
		h.lose()
		Eventually(changed).Should(BeClosed())
		changed = h.Watch()
		Expect(h.SetFailover(nil)).To(Succeed())
		Eventually(changed).Should(BeClosed())
	})
})

var _ = Describe("A gauge of a Pair", func() {
	It("is one for all that share a registry", func() {
		registry := prometheus.NewRegistry()
		for _, name := range []string{"a", "b"} {
			c := config("amqp://127.0.0.1/")
			c.Name, c.Metrics = name, registry
			_, err := rabbit.NewPair(c, 0, 0)
			Expect(err).NotTo(HaveOccurred())
		}
		Expect(testutil.GatherAndCount(registry, "openaperture_rabbit_diverted")).To(Equal(2))
	})
})
