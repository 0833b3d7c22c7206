package dispatch

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	relayed *prometheus.CounterVec
	results *prometheus.CounterVec
	waiting *prometheus.GaugeVec
	oldest  *prometheus.GaugeVec
	looks   *prometheus.CounterVec
	gaps    prometheus.Counter
	passes  prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		relayed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "openaperture_outbox_publishes_total",
			Help: "Messages of the outbox published, by outcome."}, []string{"outcome"}),
		results: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "openaperture_results_total",
			Help: "Milestone results received, by what became of them."}, []string{"applied"}),
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "openaperture_outbox_waiting",
			Help: "Messages of the outbox that wait, by exchange."}, []string{"exchange"}),
		oldest: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "openaperture_outbox_oldest_seconds",
			Help: "Age of the oldest waiting message, by exchange."}, []string{"exchange"}),
		looks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "openaperture_outbox_looks_total",
			Help: "Looks of a broker's relay into the outbox."}, []string{"broker"}),
		gaps: prometheus.NewCounter(prometheus.CounterOpts{Name: "openaperture_sweeper_gaps_total",
			Help: "Absences of manager-api after which all claims were prolonged."}),
		passes: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "openaperture_sweeper_pass_seconds",
			Help:    "How long a sweep over deadlines, claims and requests takes.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}),
	}
	if r != nil {
		r.MustRegister(m.relayed, m.results, m.waiting, m.oldest, m.looks, m.gaps, m.passes)
	}
	return m
}
