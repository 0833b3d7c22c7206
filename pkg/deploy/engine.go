package deploy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/openaperture/openaperture/pkg/deploy/release"
	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/rabbit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// Manager is manager-api as the engine needs it; *managerapi.Client is one. Its errors are fault kinds.
type Manager interface {
	Claim(ctx context.Context, orderID string, r managerapi.ClaimRequest) (managerapi.Claim, error)
	Renew(ctx context.Context, orderID string, token int64) (managerapi.Claim, error)
	ReleaseClaim(ctx context.Context, orderID string, token int64) error
	Order(ctx context.Context, orderID string) (managerapi.OrderView, error)
	ClaimsOf(ctx context.Context, e managerapi.Executor) ([]managerapi.OrderView, error)
}

// Broker is the own exchange's broker; *rabbit.Broker is one. Publish returns nil only for a confirmed message.
type Broker interface {
	Publish(ctx context.Context, m rabbit.Message) error
	Consume(ctx context.Context, c rabbit.Consumer) error
	// Session rises whenever the connection may have had a gap; Ready returns nil while it is usable.
	Session() uint64
	Ready() error
	// Watch returns a channel that is closed at the next change of either.
	Watch() <-chan struct{}
}

// Renderer makes releases; *release.Git is one.
type Renderer interface {
	Render(ctx context.Context, r release.Request) (release.Release, error)
}

// Config is what an Engine needs. All fields are required but those with a default.
type Config struct {
	Service   string             // deployer or deployer-oa
	Milestone messages.Milestone // the deploy milestone that it performs, besides config and probe
	Queue     string             // name of its queue on the broker
	Address   messages.Address   // of its exchange, for results
	Hostname  string
	BootID    string
	StateDir  string
	ClaimTTL  time.Duration // until manager-api says another; 30 s

	Manager  Manager
	Broker   Broker
	Renderer Renderer
	Open     func(messages.Cluster) (runtime.Runtime, error)
	Log      *zap.Logger
	Metrics  prometheus.Registerer // nil: none
	Now      func() time.Time      // time.Now

	// StopLimit bounds how long a graceful stop works on the instance in hand; 15 s.
	StopLimit time.Duration
	// Patience is how long a start waits for manager-api before it finishes its work without a claim; 3 s.
	Patience time.Duration
}

// capabilities are what this release of the executors can do beside what the former one could.
var capabilities = []string{managerapi.CapInstances}

// maxSeen bounds what a process remembers of its orders.
const maxSeen = 1000

// Engine executes orders. Use New, then Run once.
type Engine struct {
	Config
	files   files
	metrics metrics
	slot    chan struct{} // holds one element while nobody works: one order at a time
	wake    chan struct{} // rings the settling of confirmed work
	hears   hearing

	mu    sync.Mutex
	works map[string]*work // confirmed work that is not settled, by order id
	seen  map[string]int   // orders that this process has claimed, and the attempt
}

// New returns an Engine. It creates its directory below StateDir.
func New(c Config) (*Engine, error) {
	f, err := newFiles(c.StateDir)
	if err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.ClaimTTL <= 0 {
		c.ClaimTTL = 30 * time.Second
	}
	if c.Patience <= 0 {
		c.Patience = 3 * time.Second
	}
	if c.StopLimit <= 0 {
		c.StopLimit = 15 * time.Second
	}
	c.Log = c.Log.Named("engine")
	return &Engine{Config: c, files: f, metrics: newMetrics(c.Metrics), slot: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		works: map[string]*work{}, seen: map[string]int{}}, nil
}

// run is the scope of one call of Run: every goroutine of it ends with it.
type run struct {
	*Engine
	hard context.Context // the process's life: when it ends, everything stops where it is
	soft context.Context // ends first at a graceful stop: nothing new is begun
	cut  context.Context // of the work on orders: ends StopLimit after soft
	jobs sync.WaitGroup
}

// Run works until stop is closed and the instance in hand is finished, or until ctx ends, whichever is first; then it
// returns nil. It subscribes to its queue at once and takes the first order when the work of the last start is finished.
func (e *Engine) Run(ctx context.Context, stop <-chan struct{}) error {
	soft, halt := context.WithCancel(ctx)
	defer halt()
	cut, end := context.WithCancelCause(ctx)
	defer end(nil)
	r := &run{Engine: e, hard: ctx, soft: soft, cut: cut}
	finished, watching := make(chan struct{}), sync.WaitGroup{}
	r.look() // before anything is begun
	watching.Go(func() { r.bound(finished, end) })
	watching.Go(func() { r.listen(finished) })
	group, inner := errgroup.WithContext(soft)
	group.Go(func() error {
		select {
		case <-stop:
			halt()
		case <-soft.Done():
		}
		return nil
	})
	group.Go(func() error { defer halt(); return r.start() }) //nolint:contextcheck // a run holds its own contexts
	group.Go(func() error {
		defer halt()
		return e.Broker.Consume(inner, rabbit.Consumer{Queue: e.Queue, Prefetch: 1, Handle: r.handle})
	})
	group.Go(func() error { return r.settleAll() }) //nolint:contextcheck // a run holds its own contexts
	err := group.Wait()
	r.jobs.Wait()
	close(finished)
	watching.Wait()
	return err
}

// bound ends the work on orders StopLimit after the stop began.
func (r *run) bound(finished <-chan struct{}, end context.CancelCauseFunc) {
	<-r.soft.Done() // halted by Run at the latest
	timer := time.NewTimer(r.StopLimit)
	defer timer.Stop()
	select {
	case <-finished:
	case <-timer.C:
		end(errStopped)
	}
}

// start finishes the work of the last start, then resumes the claims that it held, and returns when the stop begins.
func (r *run) start() error {
	all, damaged, err := r.files.load()
	if err != nil {
		return err
	}
	if damaged != nil {
		r.Log.Error("work file is damaged and was set aside", zap.Error(damaged))
	}
	for _, w := range all {
		r.remember(w.Order)
		if w.Stage == confirmed {
			r.track(w)
			continue
		}
		if r.soft.Err() == nil {
			r.finish(w)
		}
	}
	if r.soft.Err() != nil {
		return nil
	}
	r.release()
	r.resume()
	<-r.soft.Done()
	return nil
}

// finish goes on with the work of an earlier start, under a new claim if manager-api gives one soon.
func (r *run) finish(w *work) {
	log := r.Log.With(zap.String("order_id", w.Order.OrderID), zap.String("stage", string(w.Stage)))
	log.Info("unfinished work found")
	if w.Stage == rolling {
		switch err := r.reclaim(w); {
		case errors.Is(err, runtime.ErrSuperseded):
			log.Info("order is no longer ours", zap.Error(err))
			r.unremember(w.Order)
			r.guardOrForget(w)
			return
		case err != nil:
			log.Warn("work goes on without a claim", zap.Error(err))
		}
	}
	r.perform(w.again(r.ClaimTTL))
}

// resume takes up what this hostname has claimed and not finished, such as an order that was acked but not begun.
func (r *run) resume() {
	var claims []managerapi.OrderView
	err := managerapi.Retry(r.soft, func() (err error) {
		claims, err = r.Manager.ClaimsOf(r.soft, managerapi.Executor{Hostname: r.Hostname, BootID: r.BootID, Service: r.Service,
			Capabilities: capabilities})
		return err
	})
	if err != nil {
		if r.soft.Err() == nil {
			r.Log.Warn("claims of this host are not known", zap.Error(err)) // they expire, and are ordered again
		}
		return
	}
	for _, view := range claims {
		if ended(view.State) || view.Order == nil {
			continue
		}
		order := *view.Order
		order.Attempt = view.Attempt
		if err := r.take(r.soft, order); err != nil && r.soft.Err() == nil {
			r.Log.Warn("claim is not resumed", zap.String("order_id", view.ID), zap.Error(err))
		}
	}
}

// claimRequest asks for an order in the name of this process.
func (e *Engine) claimRequest(attempt int) managerapi.ClaimRequest {
	return managerapi.ClaimRequest{Attempt: attempt, Hostname: e.Hostname, BootID: e.BootID, Capabilities: capabilities}
}

// errBusy says that another order is worked on for longer than a delivery may be kept.
var errBusy = errors.New("another order is in hand")

// acquire waits for the slot; it fails when ctx ends.
func (e *Engine) acquire(ctx context.Context) error {
	select {
	case <-e.slot:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errBusy, ctx.Err())
	}
}

func (e *Engine) release() { e.slot <- struct{}{} }

// remember keeps an order from being taken twice by this process.
func (e *Engine) remember(o messages.Order) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.seen) > maxSeen {
		clear(e.seen) // what is delivered again is refused at its claim: it has ended
	}
	e.seen[o.OrderID] = max(e.seen[o.OrderID], o.Attempt)
}

// unremember lets an order be taken that is sent to this process again, also at the same attempt: one that was given back.
func (e *Engine) unremember(o messages.Order) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.seen, o.OrderID)
}

func (e *Engine) known(o messages.Order) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen[o.OrderID] >= o.Attempt
}

// track has confirmed work settled in the background, soon.
func (e *Engine) track(w *work) {
	e.guard(w)
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// guard has confirmed work settled in the background. Its clock goes on where it had one.
func (e *Engine) guard(w *work) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if w.quiet.IsZero() {
		w.quiet, w.session = e.Now(), e.Broker.Session()
	}
	e.works[w.Order.OrderID] = w
}

// unguard takes work out of the guard; false means that it is not there any more: forgotten, or another attempt's.
func (e *Engine) unguard(w *work) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	there := e.works[w.Order.OrderID] == w
	if there {
		delete(e.works, w.Order.OrderID)
	}
	return there
}

// left is what an earlier attempt at an order has left, nil if nothing, and whether it was guarded. It is not any more.
func (e *Engine) left(orderID string) (w *work, guarded bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if known, ok := e.works[orderID]; ok {
		delete(e.works, orderID)
		again := *known // the guard may still be looking at it
		return &again, true
	}
	w, _ = e.files.read(orderID)
	return w, false
}

// forget drops the work on an order.
func (e *Engine) forget(w *work) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.erase(w)
}

// forgetGuarded drops work that nobody has taken out of the guard meanwhile.
func (e *Engine) forgetGuarded(w *work) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.works[w.Order.OrderID] == w {
		e.erase(w)
	}
}

// erase needs the lock.
func (e *Engine) erase(w *work) {
	delete(e.works, w.Order.OrderID)
	if err := e.files.remove(w.Order.OrderID); err != nil {
		e.Log.Error("work file stays", zap.Error(err))
	}
}
