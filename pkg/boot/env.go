package boot

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
)

// Env is what a running process has and its parts are given.
type Env struct {
	Log     *zap.Logger
	Health  *Health
	Metrics *prometheus.Registry
	Service string
	Version string
	// Hostname names this instance in its exchange, and must be its own there: leases
	// and claims go by it. It is env HOSTNAME, else <host>.<service>, which is enough
	// for one of each kind on a host. It contains no '/'.
	Hostname  string
	BootID    string // UUID, new for every process
	StartedAt time.Time
	// Addr is the address that the listener really has, also for port 0.
	Addr string
	// Stopping is closed when the stop begins, before the context of Run ends:
	// requests that wait for news end then.
	Stopping <-chan struct{}

	shutdown time.Duration
	routes   atomic.Pointer[http.Handler]
	panics   *panics
}

// Handle mounts the service's own routes beside /healthz, /readyz and /metrics.
// Until it is called, they answer 503 while the service is not ready and 404
// when it is.
func (e *Env) Handle(h http.Handler) { e.routes.Store(&h) }

// RunParts runs the parts of the service until ctx ends or one of them returns,
// and lets the service become ready: every check must have been added before. Panics
// that are contained there are logged and counted (see loop.Contain).
func (e *Env) RunParts(ctx context.Context, parts ...loop.Part) error {
	e.Health.Started()
	return loop.Group{Parts: parts, Shutdown: e.shutdown * 3 / 4}.Run(e.WithPanics(ctx))
}

// WithPanics returns a context under which contained panics are logged and counted.
// The contexts of Run, of RunParts and of HTTP requests are such ones already.
func (e *Env) WithPanics(ctx context.Context) context.Context {
	return loop.WithPanics(ctx, e.panics.hear)
}

// NewEnv is the Env of a new process, not listening and not started. Main makes it;
// specs of a service's run function make their own, with Handler for the routes
// and Health.Run for the readiness.
func NewEnv(service, version string, base Base, log *zap.Logger) (*Env, error) {
	host := os.Getenv("HOSTNAME")
	if host == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("find host name: %w", err)
		}
		host = name + "." + service
	}
	if strings.Contains(host, "/") {
		return nil, fmt.Errorf("HOSTNAME %q: a host name must not contain '/'", host)
	}
	env := &Env{Health: NewHealth(), Metrics: prometheus.NewRegistry(), Service: service, Version: version,
		Hostname: host, BootID: uuid.NewString(), StartedAt: time.Now(), shutdown: base.ShutdownTimeout}
	env.Log = log.With(zap.String("service", service), zap.String("hostname", host))
	env.panics = newPanics(env.Log, env.Metrics)
	env.registerMetrics()
	return env, nil
}

func (e *Env) registerMetrics() {
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "openaperture_build_info",
		Help:        "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"service": e.Service, "version": e.Version}})
	info.Set(1)
	ready := prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Name: "openaperture_ready", Help: "1 while /readyz answers 200."},
		func() float64 {
			if e.Health.Ready() {
				return 1
			}
			return 0
		})
	e.Metrics.MustRegister(info, ready, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}
