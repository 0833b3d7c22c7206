package boot

import (
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/loop"
)

const (
	stackEvery   = time.Hour // the stack of one panic is logged no more often
	knownPanics  = 1000      // so many different panics are remembered
	panicsMetric = "openaperture_panics_total"
)

// panics logs and counts the contained panics of a process. It is safe for concurrent use.
type panics struct {
	log   *zap.Logger
	total *prometheus.CounterVec

	mu   sync.Mutex
	told map[string]time.Time // when the stack of a panic was logged, by part and text
}

func newPanics(log *zap.Logger, registry prometheus.Registerer) *panics {
	p := &panics{log: log, told: map[string]time.Time{}, total: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: panicsMetric,
		Help: "Panics that were contained, by the part of the process that panicked.",
	}, []string{"part"})}
	registry.MustRegister(p.total)
	return p
}

// hear counts every panic. It logs every panic too, but its stack only once an hour: a loop over the same bad item
// panics at each pass.
func (p *panics) hear(c *loop.Panic) {
	p.total.WithLabelValues(c.Part).Inc()
	fields := []zap.Field{zap.String("part", c.Part), zap.String("item", c.Item), zap.Error(c)}
	if p.first(fmt.Sprintf("%s: %s", c.Part, c), time.Now()) {
		fields = append(fields, zap.String("stack", c.Stack))
	}
	p.log.Error("panic contained", fields...)
}

// first reports whether the stack of this panic is due.
func (p *panics) first(text string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at, known := p.told[text]; known && now.Sub(at) < stackEvery {
		return false
	}
	if len(p.told) >= knownPanics { // texts that differ each time must not fill the memory
		clear(p.told)
	}
	p.told[text] = now
	return true
}
