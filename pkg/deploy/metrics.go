package deploy

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	orders  *prometheus.CounterVec // by milestone and outcome
	unsent  prometheus.Gauge       // results that the broker has not confirmed
	undone  prometheus.Counter
	waiting prometheus.Gauge // confirmed work that is not settled
}

func newMetrics(r prometheus.Registerer) metrics {
	m := metrics{
		orders: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "openaperture_executor_orders_total",
			Help: "Orders worked on, by milestone and outcome."}, []string{"milestone", "outcome"}),
		unsent:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "openaperture_executor_results_unsent", Help: "Results that the broker has not confirmed yet."}),
		undone:  prometheus.NewCounter(prometheus.CounterOpts{Name: "openaperture_executor_undone_total", Help: "Confirmed deploys that were taken back."}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{Name: "openaperture_executor_unsettled", Help: "Confirmed deploys whose order is not settled yet."}),
	}
	if r != nil {
		r.MustRegister(m.orders, m.unsent, m.undone, m.waiting)
	}
	return m
}
