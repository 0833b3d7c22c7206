package heartbeats_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/member"
	"github.com/openaperture/openaperture/pkg/rabbit"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/overseer/internal/heartbeats"
)

// manager is manager-api as far as batches go: it keeps them, refuses hostnames that begin with "bad", and breaks on
// those that begin with "poison", and on any workload.
type manager struct {
	*httptest.Server
	mu      sync.Mutex
	gate    sync.Mutex // held by a spec: requests wait
	away    bool
	broke   int
	batches [][]messages.ModuleStatus
}

func newManager() *manager {
	m := &manager{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.gate.Lock()
		defer m.gate.Unlock()
		m.mu.Lock()
		defer m.mu.Unlock()
		var b managerapi.ModuleBatch
		if m.away || r.URL.Path != "/messaging/exchanges/7/modules/batch" || json.NewDecoder(r.Body).Decode(&b) != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if slices.ContainsFunc(b.Modules, func(s messages.ModuleStatus) bool {
			return strings.HasPrefix(s.Hostname, "bad")
		}) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if slices.ContainsFunc(b.Modules, func(s messages.ModuleStatus) bool {
			return strings.HasPrefix(s.Hostname, "poison") || s.Workload != nil
		}) {
			m.broke++
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		m.batches = append(m.batches, b.Modules)
	}))
	DeferCleanup(m.Close)
	return m
}

func (m *manager) set(away bool) { m.mu.Lock(); defer m.mu.Unlock(); m.away = away }

// heard is every hostname that was stored, with its number.
func (m *manager) heard() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := []string{}
	for _, b := range m.batches {
		for _, s := range b {
			list = append(list, fmt.Sprintf("%s %d", s.Hostname, s.Seq))
		}
	}
	return list
}

func (m *manager) requests() int { m.mu.Lock(); defer m.mu.Unlock(); return len(m.batches) }

// receiving owns one running consumer of a queue of its own.
type receiving struct {
	*manager
	queue     string
	metrics   *prometheus.Registry
	mu        sync.Mutex
	committed int
	failures  int
}

func (r *receiving) counts() (committed, failures int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.committed, r.failures
}

func receive(name string) *receiving {
	GinkgoHelper()
	r := &receiving{manager: newManager(), queue: name + ".system_modules", metrics: prometheus.NewRegistry()}
	broker, err := rabbit.New(rabbit.Config{Name: "spec", URLs: []string{host.URL},
		Topology: member.Topology(managerapi.Exchange{Name: name, RootExchangeName: name, RoutingKey: name})})
	Expect(err).NotTo(HaveOccurred())
	receiver := heartbeats.Receiver{Store: managerapi.New(r.URL, "t"), Exchange: 7, Log: zap.NewNop(),
		Metrics:   heartbeats.NewMetrics(r.metrics),
		Committed: func(b []messages.ModuleStatus) { r.mu.Lock(); defer r.mu.Unlock(); r.committed += len(b) },
		Failed:    func(error) { r.mu.Lock(); defer r.mu.Unlock(); r.failures++ }}
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() { _ = broker.Run(ctx) })
	parts.Go(func() {
		_ = broker.ConsumeBatch(ctx, heartbeats.Consumer(r.queue, 4000, receiver.Handle))
	})
	joined := make(chan struct{})
	go func() { defer close(joined); parts.Wait() }()
	DeferCleanup(func() { r.set(false); cancel(); Eventually(joined).Should(BeClosed()) })
	Eventually(func() bool { return broker.Subscribed(r.queue) }).Should(BeTrue())
	return r
}

func published(beats ...any) []amqp.Publishing {
	list := make([]amqp.Publishing, len(beats))
	for i, b := range beats {
		body, ok := b.(string)
		if !ok {
			raw, err := json.Marshal(b)
			Expect(err).NotTo(HaveOccurred())
			body = string(raw)
		}
		list[i] = amqp.Publishing{Body: []byte(body)}
	}
	return list
}

// outcomes are how many beats were received, by what they turned out to be.
func outcomes(metrics prometheus.Gatherer) map[string]float64 {
	GinkgoHelper()
	families, err := metrics.Gather()
	Expect(err).NotTo(HaveOccurred())
	kinds := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "openaperture_heartbeats_received_total" {
			for _, m := range f.GetMetric() {
				kinds[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	return kinds
}

func (r *receiving) outcomes() map[string]float64 { GinkgoHelper(); return outcomes(r.metrics) }

// handling is a receiver without a broker, of a manager-api that answers at once.
type handling struct {
	*manager
	heartbeats.Receiver
	metrics  *prometheus.Registry
	failures int
	logs     *observer.ObservedLogs
}

func handler() *handling {
	core, logs := observer.New(zap.InfoLevel)
	h := &handling{manager: newManager(), metrics: prometheus.NewRegistry(), logs: logs}
	h.Receiver = heartbeats.Receiver{Store: managerapi.New(h.URL, "t"), Exchange: 7, Log: zap.New(core),
		Metrics:  heartbeats.NewMetrics(h.metrics),
		Stripped: map[string]bool{}, Committed: func([]messages.ModuleStatus) {}, Failed: func(error) { h.failures++ }}
	return h
}

func (h *handling) handle(beats ...any) error {
	var batch []*rabbit.Delivery
	for _, p := range published(beats...) {
		batch = append(batch, &rabbit.Delivery{Received: time.Now(), Body: p.Body})
	}
	return h.Handle(context.Background(), batch)
}

// working is a beat with a workload.
func working(host string) messages.ModuleStatus {
	at := time.Now()
	b := withRef(beat(host, "x", 1, "active"), "v1")
	b.Workload, b.StartedAt, b.SentAt = json.RawMessage(`["much"]`), &at, &at
	return b
}

var _ = Describe("Receiving heartbeats", func() {
	It("flushes a single beat at once", func() {
		r := receive("single")
		host.Publish(r.queue, published(beat("a", "x", 1, "active"))...)
		Eventually(r.heard, "900ms").Should(Equal([]string{"a 1"}))
		Eventually(func() []int {
			committed, failures := r.counts()
			return []int{committed, failures}
		}).Should(Equal([]int{1, 0}))
	})

	It("coalesces what arrives while a request is under way (E1)", func() {
		r := receive("coalesce")
		r.gate.Lock()
		host.Publish(r.queue, published(beat("a", "x", 1, "active"))...)
		var many []any
		for seq := range int64(500) {
			many = append(many, beat("b", "x", seq+1, "active"), beat("c", "x", seq+1, "active"))
		}
		host.Publish(r.queue, published(many...)...)
		r.gate.Unlock()
		Eventually(r.heard).Should(ContainElements("a 1", "b 500", "c 500"))
		Expect(r.requests()).To(BeNumerically("<=", 20), "1001 beats")
		Expect(testutil.GatherAndCount(r.metrics, "openaperture_heartbeats_flush_size")).To(Equal(1))
	})

	It("sends at most a thousand hostnames in one request (E1)", func() {
		r := receive("chunks")
		r.gate.Lock()
		var many []any
		for i := range 2500 {
			many = append(many, beat(fmt.Sprintf("h%d", i), "x", 1, "active"))
		}
		host.Publish(r.queue, published(many...)...)
		r.gate.Unlock()
		Eventually(func() int { return len(r.heard()) }).Should(Equal(2500))
		for _, b := range r.batches {
			Expect(len(b)).To(BeNumerically("<=", 1000))
		}
	})

	It("rejects what cannot be decoded, alone, and counts what is not ours (E10, R12)", func() {
		r := receive("invalid")
		host.Publish(r.queue, published(`{`, `null`, `[]`, `{"hostname":"a"}`,
			`{"event_type":"status","hostname":null,"type":"builder","status":"active"}`,
			`{"event_type":"status","hostname":"`+strings.Repeat("x", 10_000)+`","type":"builder","status":"active"}`,
			`{"event_type":"status","hostname":7,"type":"builder","status":"active"}`,
			`{"event_type":"party","hostname":"p"}`, beat("good", "x", 1, "active"))...)
		Eventually(r.heard).Should(Equal([]string{"good 1"}))
		Eventually(r.outcomes).Should(Equal(map[string]float64{"decoded": 1, "invalid": 7, "unknown": 1}))
	})

	It("understands modules of the predecessor, which publish in Erlang's format", func() {
		r := receive("elixir")
		host.Publish(r.queue, published("\x83t\x00\x00\x00\x04d\x00\x0aevent_typed\x00\x06statusd"+
			"\x00\x08hostnamem\x00\x00\x00\x02e1"+
			"d\x00\x06statusd\x00\x06actived\x00\x04typed\x00\x07builder")...)
		Eventually(r.heard).Should(Equal([]string{"e1 0"}))
	})

	It("hands on beats whatever their sender's clock says, and measures how wrong that is (E7)", func() {
		h := handler()
		for i, year := range []int{1, 1970, time.Now().Year(), 9999} {
			at := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
			b := beat(fmt.Sprint("h", i), "x", 1, "active")
			b.StartedAt, b.SentAt = &at, &at
			Expect(h.handle(b)).To(Succeed())
		}
		Expect(h.heard()).To(Equal([]string{"h0 1", "h1 1", "h2 1", "h3 1"}))
		Expect(testutil.GatherAndCount(h.metrics, "openaperture_heartbeats_skew_seconds")).To(Equal(1))
		families, err := h.metrics.Gather()
		Expect(err).NotTo(HaveOccurred())
		for _, f := range families {
			if f.GetName() == "openaperture_heartbeats_skew_seconds" {
				Expect(f.GetMetric()[0].GetHistogram().GetSampleCount()).To(Equal(uint64(4)))
			}
		}
	})

	It("finds the one beat that manager-api refuses, and stores the others", func() {
		r := receive("refused")
		r.gate.Lock()
		host.Publish(r.queue, published(beat("a", "x", 1, "active"), beat("b", "x", 1, "active"),
			beat("bad", "x", 1, "active"), beat("c", "x", 1, "active"))...)
		r.gate.Unlock()
		Eventually(r.heard).Should(ConsistOf("a 1", "b 1", "c 1"))
		Eventually(r.outcomes).Should(Equal(map[string]float64{"decoded": 4, "refused": 1}))
	})

	DescribeTable("stores a beat that manager-api breaks on as far as it can, and hears no gap: the module lives",
		func(others ...any) {
			h := handler()
			var heard []messages.ModuleStatus
			h.Committed = func(b []messages.ModuleStatus) { heard = append(heard, b...) }
			Expect(h.handle(append(others, working("sick"))...)).To(Succeed())
			Expect(h.handle(append(others, working("sick"))...)).To(Succeed())
			Expect(outcomes(h.metrics)).To(Equal(map[string]float64{"decoded": 2 * float64(1+len(others)), "stripped": 2}))
			Expect(h.failures).To(BeZero())
			Expect(heard).To(HaveLen(2*(1+len(others))), "it counts as heard")
			Expect(heard).To(ContainElement(withRef(beat("sick", "x", 1, "active"), "v1")), "version and boot stay with it")
			Expect(h.heard()).To(HaveLen(len(heard)))
			Expect(h.logs.All()).To(HaveLen(1), "logged once")
		},
		Entry("alone, as in a small exchange"),
		Entry("among others", beat("a", "x", 1, "active"), beat("b", "x", 1, "active"), beat("c", "x", 1, "active")),
	)

	It("takes it as an outage when manager-api breaks on what is left of a beat, and stores the others", func() {
		h := handler()
		Expect(h.handle(beat("a", "x", 1, "active"), working("poison"),
			beat("b", "x", 1, "active"))).To(MatchError(ContainSubstring("500")))
		Expect(h.heard()).To(ConsistOf("a 1", "b 1"))
		Expect(h.failures).To(Equal(1))
		Expect(outcomes(h.metrics)).To(Equal(map[string]float64{"decoded": 3}), "it may live: nothing is dropped")
	})

	It("gives a batch back, and soon, when manager-api breaks on all of it", func() {
		h := handler()
		h.Committed = func([]messages.ModuleStatus) { Fail("committed") }
		var many []any
		for i := range 1000 {
			many = append(many, beat(fmt.Sprintf("poison%d", i), "x", 1, "active"))
		}
		Expect(h.handle(many...)).To(MatchError(ContainSubstring("500")))
		Expect(h.handle(many[0])).To(MatchError(ContainSubstring("500")))
		Expect(h.failures).To(Equal(2))
		Expect(h.broke).To(BeNumerically("<", 50))
	})

	It("drops beats that have waited here through an outage, and says so: they would be stored as heard now", func() {
		h := handler()
		waited := func(name string, d time.Duration) *rabbit.Delivery {
			return &rabbit.Delivery{Received: time.Now().Add(-d), Body: published(beat(name, "x", 1, "active"))[0].Body}
		}
		Expect(h.Handle(context.Background(), []*rabbit.Delivery{waited("dead", time.Minute), waited("dead2", 31*time.Second),
			waited("a", 20*time.Second)})).To(Succeed())
		Expect(h.heard()).To(Equal([]string{"a 1"}))
		Expect(h.failures).To(Equal(1))
	})

	It("keeps a batch while manager-api is away, says so, and stores the whole of it then (B1, R11)", func() {
		r := receive("away")
		r.set(true)
		host.Publish(r.queue, published(beat("a", "x", 1, "active"), beat("b", "x", 1, "active"))...)
		Eventually(func() int { _, failures := r.counts(); return failures }).Should(BeNumerically(">=", 2))
		Expect(r.heard()).To(BeEmpty())
		r.set(false)
		Eventually(r.heard).Should(ConsistOf("a 1", "b 1"))
	})

	It("gives the beats back when its context ends before they could be stored", func() {
		h := handler()
		h.set(true)
		h.Committed = func([]messages.ModuleStatus) { Fail("committed") }
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			ended <- h.Handle(ctx, []*rabbit.Delivery{{Received: time.Now(),
				Body: published(beat("a", "x", 1, "active"))[0].Body}})
		}()
		cancel()
		Eventually(ended).Should(Receive(HaveOccurred()))
	})
})
