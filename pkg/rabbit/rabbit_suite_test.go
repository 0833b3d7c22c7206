package rabbit_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/openaperture/openaperture/pkg/rabbit"
	"github.com/openaperture/openaperture/pkg/rabbittest"
)

func TestRabbit(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(10 * time.Millisecond)
	RunSpecs(t, "rabbit", Label("integration"))
}

var host *rabbittest.Host // one virtual host for the suite; every spec uses names of its own

var _ = BeforeSuite(func() { host = rabbittest.NewHost() })

// proxies ends with its spec, after the Broker: its goroutines are none of the Broker's.
var (
	proxies   = goleak.IgnoreAnyFunction("github.com/openaperture/openaperture/pkg/link.(*Link).forward")
	listeners = goleak.IgnoreAnyFunction("github.com/openaperture/openaperture/pkg/link.(*Link).accept")
)

// harness owns one running Broker; nothing in it is shared between specs.
type harness struct {
	*rabbit.Broker
	name string // prefix of everything that the spec declares
	logs *observer.ObservedLogs
	stop context.CancelFunc
	done chan struct{}
	ctx  context.Context // of consumers, ends before the Broker's
}

// config returns a Config with the short times that suit specs.
func config(urls ...string) rabbit.Config {
	if len(urls) == 0 {
		urls = []string{host.URL}
	}
	return rabbit.Config{Name: "spec", URLs: urls, Heartbeat: 10 * time.Second, RefusedRetry: time.Second,
		DrainTimeout: 5 * time.Second}
}

// unique returns a name that no other spec uses.
func unique() string {
	return "q" + strings.ReplaceAll(time.Now().UTC().Format("150405.000000000"), ".", "")
}

// topologyFor is a small table like a service's: a root exchange, a child below it, one work queue and one for beats.
func topologyFor(name string) rabbit.Topology {
	return rabbit.Topology{
		Exchanges: []rabbit.Exchange{{Name: name + "-root"}, {Name: name + "-child", Parent: name + "-root",
			BindKey: name + ".child.#"}},
		Queues: []rabbit.Queue{
			{Name: name + ":child.work", Kind: rabbit.Work, DeliveryLimit: 2, BindExchange: name + "-child",
				BindKey: name + ".child.work"},
			{Name: name + ":child.beats", Kind: rabbit.Beats, BindExchange: name + "-child", BindKey: name + ".child.beats"},
		},
	}
}

func (h *harness) work() string  { return h.name + ":child.work" }
func (h *harness) beats() string { return h.name + ":child.beats" }

// to returns a message for one of the two queues, by way of the root exchange.
func (h *harness) to(queue, body string) rabbit.Message {
	return rabbit.Message{Exchange: h.name + "-root", Key: h.name + ".child." + queue, Body: []byte(body)}
}

// start runs a Broker; it is stopped and joined, and its goroutines must be gone, when the spec is over.
func start(change ...func(*rabbit.Config)) *harness {
	GinkgoHelper()
	before := goleak.IgnoreCurrent()
	core, logs := observer.New(zap.DebugLevel)
	h := &harness{name: unique(), logs: logs, done: make(chan struct{})}
	c := config()
	c.Topology, c.Log = topologyFor(h.name), zap.New(core)
	for _, f := range change {
		f(&c)
	}
	broker, err := rabbit.New(c)
	Expect(err).NotTo(HaveOccurred())
	h.Broker = broker
	ctx, cancel := context.WithCancel(context.Background())
	consumers, cancelConsumers := context.WithCancel(ctx)
	h.ctx = consumers
	h.stop = func() { cancelConsumers(); cancel() }
	go func() {
		defer close(h.done)
		defer GinkgoRecover()
		Expect(broker.Run(ctx)).To(Succeed())
	}()
	DeferCleanup(func() {
		h.stop()
		Eventually(h.done).Should(BeClosed())
		Eventually(func() error { return goleak.Find(before, proxies) }).Should(Succeed())
	})
	return h
}

// open is start, up to the state open.
func open(change ...func(*rabbit.Config)) *harness {
	GinkgoHelper()
	h := start(change...)
	h.awaitState(rabbit.Open)
	return h
}

func (h *harness) awaitState(want rabbit.State) {
	GinkgoHelper()
	Eventually(func() rabbit.State { s, _ := h.State(); return s }).Should(Equal(want))
}

// consume runs a consumer until the spec is over.
func (h *harness) consume(c rabbit.Consumer) {
	GinkgoHelper()
	h.background(func() error { return h.Consume(h.ctx, c) })
	Eventually(func() bool { return h.Subscribed(c.Queue) }).Should(BeTrue())
}

func (h *harness) background(f func() error) {
	joined := make(chan struct{})
	go func() {
		defer close(joined)
		defer GinkgoRecover()
		Expect(f()).To(Succeed())
	}()
	DeferCleanup(func() { h.stop(); Eventually(joined).Should(BeClosed()) })
}

// logText is everything that was logged, messages and fields.
func (h *harness) logText() string {
	var text strings.Builder
	for _, entry := range h.logs.All() {
		fmt.Fprintln(&text, entry.Message, entry.ContextMap())
	}
	return text.String()
}
