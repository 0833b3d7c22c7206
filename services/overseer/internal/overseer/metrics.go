package overseer

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openaperture/openaperture/pkg/health"
)

// Metrics are the overseer's own; heartbeats have theirs.
type Metrics struct {
	passes     *prometheus.CounterVec
	passTime   prometheus.Histogram
	actions    *prometheus.CounterVec
	leader     prometheus.Gauge
	terms      prometheus.Counter
	components *prometheus.GaugeVec
	doorbells  *prometheus.CounterVec
	leftAlone  prometheus.Gauge
}

// NewMetrics registers the metrics of one overseer.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		passes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "openaperture_overseer_passes_total",
			Help: "Passes over the exchange, by result."}, []string{"result"}),
		passTime: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "openaperture_overseer_pass_seconds",
			Help: "How long a pass took.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}),
		actions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "openaperture_overseer_actions_total",
			Help: "Actions of plans, by kind and result."}, []string{"kind", "result"}),
		leader: prometheus.NewGauge(prometheus.GaugeOpts{Name: "openaperture_overseer_leader",
			Help: "1 while this process leads its exchange."}),
		terms: prometheus.NewCounter(prometheus.CounterOpts{Name: "openaperture_overseer_terms_total",
			Help: "Terms that this process has begun."}),
		components: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "openaperture_overseer_components",
			Help: "Types of the exchange by health verdict, as the leader sees them; 0 in one that does not lead."},
			[]string{"verdict"}),
		doorbells: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "openaperture_overseer_doorbells_total",
			Help: "Messages of the overseer queue, by action and result."}, []string{"action", "result"}),
		leftAlone: prometheus.NewGauge(prometheus.GaugeOpts{Name: "openaperture_overseer_left_alone",
			Help: "Upgrades and components that the last pass could not judge: of a newer manager-api, or broken."}),
	}
	r.MustRegister(m.passes, m.passTime, m.actions, m.leader, m.terms, m.components, m.doorbells, m.leftAlone)
	return m
}

// Idle forgets what the last term saw: the numbers are the next leader's.
func (m *Metrics) Idle() {
	m.show(nil)
	m.leftAlone.Set(0)
}

// show replaces the numbers of the last look.
func (m *Metrics) show(lines []health.Line) {
	n := map[health.Verdict]int{}
	for _, l := range lines {
		n[l.Verdict]++
	}
	for _, v := range health.Verdicts {
		m.components.WithLabelValues(string(v)).Set(float64(n[v]))
	}
}
