package rabbit

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are shared by all Brokers that use one registerer: the label broker tells them apart.
type metrics struct {
	connection *prometheus.GaugeVec
	publishes  *prometheus.CounterVec
	deliveries *prometheus.CounterVec
	redials    *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) metrics {
	return metrics{
		connection: register(r, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "openaperture_rabbit_connection_state",
			Help: "1 for the state that a broker connection is in, 0 for the others."},
			[]string{"broker", "connection", "state"})),
		publishes: register(r, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "openaperture_rabbit_publishes_total",
			Help: "Messages published, by outcome."}, []string{"broker", "outcome"})),
		deliveries: register(r, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "openaperture_rabbit_deliveries_total",
			Help: "Deliveries settled, by result."}, []string{"broker", "queue", "result"})),
		redials: register(r, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "openaperture_rabbit_redials_total",
			Help: "Attempts to connect to a broker after the first."}, []string{"broker", "connection"})),
	}
}

// DivertedGauge is the gauge of who uses a Switch, by broker. All of a registry share one.
func DivertedGauge(r prometheus.Registerer) *prometheus.GaugeVec {
	return register(r, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "openaperture_rabbit_diverted",
		Help: "1 while messages take the failover of a broker, 0 while they take the broker itself."}, []string{"broker"}))
}

// register registers a collector, or returns the equal one that is registered already. Without a registerer the
// collector just counts for nobody.
func register[C prometheus.Collector](r prometheus.Registerer, c C) C {
	if r == nil {
		return c
	}
	err := r.Register(c)
	var taken prometheus.AlreadyRegisteredError
	if errors.As(err, &taken) {
		if existing, ok := taken.ExistingCollector.(C); ok {
			return existing
		}
	}
	return c
}

func (m metrics) state(broker, connection string, now State) {
	for s := Open; s <= Closed; s++ {
		value := 0.0
		if s == now {
			value = 1
		}
		m.connection.WithLabelValues(broker, connection, s.String()).Set(value)
	}
}
