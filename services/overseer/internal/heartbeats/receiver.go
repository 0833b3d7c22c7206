package heartbeats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/rabbit"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/overseer/internal/erlang"
)

const (
	maxBatch = 1000 // beats in one call, and so in one request
	// pace bounds the requests per second while beats come in steadily, not the beats.
	pace     = 20 * time.Millisecond
	maxRetry = 2 * time.Second
	// giveUp bounds how long a batch is tried here. After that the broker takes its beats back and drops them when they
	// are older than the queue allows: a backlog must not revive the dead.
	giveUp = 20 * time.Second
	// stale bounds how long a beat may wait here before it is tried. Beats that were fetched during an outage would be
	// stored as heard now.
	stale = 30 * time.Second
	// doubt bounds how many requests in a row may be answered 500 before that is put down to manager-api and not to single
	// beats: while one bad beat of a full batch is looked for, no more than twelve fail before one succeeds.
	doubt = 30
)

var errStale = errors.New("the heartbeat has waited here for too long: manager-api was away, or is too slow")

// Store is where batches are committed; *managerapi.Client is one. Invalid: at least one beat of the batch is refused
// and none was stored.
type Store interface {
	Beat(ctx context.Context, id component.ExchangeID, b managerapi.ModuleBatch) (managerapi.BatchResult, error)
}

// Consumer is the subscription to system_modules for a handler that ends in Receiver.Handle. When the handler is at
// rest a beat is handed over at once, otherwise what has arrived within 20 ms, and never more than one request may
// hold. At most prefetch beats are held here.
func Consumer(queue string, prefetch int, handle func(context.Context, []*rabbit.Delivery) error) rabbit.BatchConsumer {
	return rabbit.BatchConsumer{Queue: queue, Prefetch: prefetch, MaxBatch: maxBatch, Pace: pace, Handle: handle}
}

// Receiver is the handler of the system_modules queue.
type Receiver struct {
	Store    Store
	Exchange component.ExchangeID
	// Committed hears of every batch that was stored.
	Committed func(beats []messages.ModuleStatus)
	// Failed hears when beats may be missed: after a request without an answer, when a batch is given back, and when beats
	// are dropped because they waited too long. A beat that was stored after all, or refused for what it is, is not
	// missed.
	Failed func(err error)
	// Stripped holds the hostnames that were logged because manager-api stored their beats stripped only.
	Stripped map[string]bool
	Log      *zap.Logger
	Metrics  *Metrics
}

// Handle is a rabbit.BatchConsumer's handler. While manager-api does not answer, Handle tries again for 20 s or until
// ctx ends. Then it returns an error, and the broker takes the beats back, with their age.
func (r *Receiver) Handle(ctx context.Context, batch []*rabbit.Delivery) error {
	ctx, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	latest := NewCoalescer(len(batch))
	from := make(map[string][]*rabbit.Delivery, len(batch))
	decoded, late, since := 0, 0, time.Now().Add(-stale)
	for _, d := range batch {
		if d.Received.Before(since) {
			late++
			d.Reject(errStale)
			continue
		}
		m, known, err := decode(d.Body)
		switch {
		case err != nil:
			d.Reject(err)
			r.Metrics.received.WithLabelValues("invalid").Inc()
		case !known:
			r.Metrics.received.WithLabelValues("unknown").Inc()
		default:
			decoded++
			r.Metrics.observeSkew(m.SentAt, d.Received)
			latest.Add(m)
			from[m.Hostname] = append(from[m.Hostname], d)
		}
	}
	if late > 0 {
		r.Metrics.received.WithLabelValues("stale").Add(float64(late))
		r.Failed(errStale)
	}
	beats := latest.Beats()
	r.Metrics.received.WithLabelValues("decoded").Add(float64(decoded))
	r.Metrics.coalesced.Add(float64(decoded - len(beats)))
	if len(beats) == 0 {
		return nil
	}
	f := flush{Receiver: r, from: from}
	err := f.store(ctx, beats)
	if err == nil {
		err = f.failed
	}
	if err != nil {
		if managerapi.Answered(err) {
			r.Failed(err)
		}
		return fmt.Errorf("store heartbeats: %w", err)
	}
	return nil
}

// decode reads a beat of ours or, in Erlang's format, of a module of the predecessor.
func decode(body []byte) (messages.ModuleStatus, bool, error) {
	text, err := erlang.JSON(body)
	if err != nil {
		return messages.ModuleStatus{}, false, err
	}
	return messages.DecodeModuleStatus(text)
}

// flush is the storing of one batch.
type flush struct {
	*Receiver
	from   map[string][]*rabbit.Delivery // by hostname
	row    int                           // answers of 500, without success in between
	failed error                         // why a beat that lives could not be stored at all
}

// store stores some beats. If manager-api refuses them, or breaks on them, they are halved until the beat that is at
// fault is found. So the others are stored.
func (f *flush) store(ctx context.Context, beats []messages.ModuleStatus) error {
	err := f.try(ctx, beats)
	switch {
	case err == nil:
		return nil
	case f.over(err):
		return err
	case len(beats) > 1:
		half := len(beats) / 2
		if err := f.store(ctx, beats[:half]); err != nil {
			return err
		}
		return f.store(ctx, beats[half:])
	case refused(err):
		f.reject(beats[0], err)
		return nil
	}
	return f.storeStripped(ctx, beats[0], err)
}

// storeStripped stores of a beat that manager-api breaks on what says that the module lives, and as which version: that
// manager-api fails expires nobody, and one such module must not end the covered time of all. If it breaks on that too,
// this is an outage.
func (f *flush) storeStripped(ctx context.Context, beat messages.ModuleStatus, why error) error {
	beat.Workload, beat.StartedAt, beat.SentAt = nil, nil, nil
	err := f.try(ctx, []messages.ModuleStatus{beat})
	switch {
	case err == nil:
		f.Metrics.received.WithLabelValues("stripped").Inc()
		if !f.Stripped[beat.Hostname] {
			f.Stripped[beat.Hostname] = true
			f.Log.Warn("manager-api fails at a heartbeat, stored without its workload and times",
				zap.String("hostname", beat.Hostname), zap.Error(why))
		}
	case f.over(err):
		return err
	case refused(err):
		f.reject(beat, err)
	default:
		f.failed = err
	}
	return nil
}

// try makes one request, and counts.
func (f *flush) try(ctx context.Context, beats []messages.ModuleStatus) error {
	err := f.request(ctx, beats)
	switch {
	case err == nil:
		f.row = 0
		f.Committed(beats)
	case !refused(err):
		f.row++
	}
	return err
}

// over: nothing more of this batch is tried, for there is no answer, or it is manager-api that breaks.
func (f *flush) over(err error) bool { return !managerapi.Answered(err) || f.row > doubt }

func (f *flush) reject(beat messages.ModuleStatus, err error) {
	for _, d := range f.from[beat.Hostname] {
		d.Reject(err)
	}
	f.Metrics.received.WithLabelValues("refused").Inc()
}

// refused: the batch itself is at fault.
func refused(err error) bool { return fault.Is(err, fault.Invalid) || fault.Is(err, fault.TooLarge) }

// request repeats one request until it is answered or ctx ends.
func (r *Receiver) request(ctx context.Context, beats []messages.ModuleStatus) error {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, maxRetry) {
		began := time.Now()
		_, err := r.Store.Beat(ctx, r.Exchange, managerapi.ModuleBatch{Modules: beats})
		if err == nil {
			r.Metrics.flushSize.Observe(float64(len(beats)))
			r.Metrics.flushTime.Observe(time.Since(began).Seconds())
			return nil
		}
		if managerapi.Answered(err) {
			return err
		}
		r.Failed(err)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
}

// Metrics of the heartbeat path.
type Metrics struct {
	received  *prometheus.CounterVec
	coalesced prometheus.Counter
	flushSize prometheus.Histogram
	flushTime prometheus.Histogram
	skew      prometheus.Histogram
}

// NewMetrics registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		received: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "openaperture_heartbeats_received_total",
			Help: "Heartbeats received, by what they turned out to be."}, []string{"kind"}),
		coalesced: prometheus.NewCounter(prometheus.CounterOpts{Name: "openaperture_heartbeats_coalesced_total",
			Help: "Heartbeats that a later one of the same hostname made superfluous."}),
		flushSize: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "openaperture_heartbeats_flush_size",
			Help: "Hostnames in one request.", Buckets: []float64{1, 3, 10, 30, 100, 300, 1000}}),
		flushTime: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "openaperture_heartbeats_flush_seconds",
			Help: "How long one request took.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}),
	}
	m.skew = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "openaperture_heartbeats_skew_seconds",
		Help: "Between a heartbeat's sent_at and its receipt, either way: time on the road, and how wrong its host's " +
			"clock is.",
		Buckets: []float64{0.1, 1, 5, 30, 60, 300, 3600, 86400}})
	reg.MustRegister(m.received, m.coalesced, m.flushSize, m.flushTime, m.skew)
	return m
}

// observeSkew compares a sender's clock with ours. Nothing else rests on the sender's clock: a receipt counts.
func (m *Metrics) observeSkew(sent *time.Time, received time.Time) {
	if sent != nil {
		m.skew.Observe(received.Sub(*sent).Abs().Seconds())
	}
}
