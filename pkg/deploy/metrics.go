package deploy

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	orders  *prometheus.CounterVec // by milestone and outcome
	unsent  prometheus.Gauge       // results that the broker has not confirmed
	undone  prometheus.Counter
	waiting prometheus.Gauge // confirmed work that is not settled
}

func newMetrics(r prometheus.Registerer, l *line) metrics {
	m := metrics{
		orders: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "openaperture_executor_orders_total",
			Help: "Orders worked on, by milestone and outcome."}, []string{"milestone", "outcome"}),
		unsent: prometheus.NewGauge(prometheus.GaugeOpts{Name: "openaperture_executor_results_unsent",
			Help: "Results that the broker has not confirmed yet."}),
		undone: prometheus.NewCounter(prometheus.CounterOpts{Name: "openaperture_executor_undone_total",
			Help: "Confirmed deploys that were taken back."}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{Name: "openaperture_executor_unsettled",
			Help: "Confirmed deploys whose order is not settled yet."}),
	}
	if r == nil {
		return m
	}
	r.MustRegister(m.orders, m.unsent, m.undone, m.waiting,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "openaperture_executor_orders_in_hand",
			Help: "Orders that are worked on now."}, func() float64 { hand, _ := l.lengths(); return float64(hand) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "openaperture_executor_orders_in_line",
			Help: "Claimed orders that wait for room, or for an order of the same component or unit."},
			func() float64 { _, wait := l.lengths(); return float64(wait) }))
	return m
}
