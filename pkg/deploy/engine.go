package deploy

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/openaperture/openaperture/pkg/deploy/render"
	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/loop"
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

// Renderer makes releases, and asks git hosts what refs stand for; *render.Git is one.
type Renderer interface {
	Render(ctx context.Context, r render.Request) (render.Release, error)
	Resolve(ctx context.Context, refs []messages.GitRef) []messages.Resolved
}

// Config is what an Engine needs. All fields are required but those with a default.
type Config struct {
	Service   string             // deployer or deployer-oa
	Milestone messages.Milestone // the deploy milestone that it performs, besides config, resolve and probe
	Queue     string             // name of its queue on the broker
	Address   messages.Address   // of its exchange, for results
	Hostname  string
	BootID    string
	StateDir  string
	ClaimTTL  time.Duration // until manager-api says another; 30 s
	Parallel  int           // orders that are worked on side by side; DefaultParallel

	Manager  Manager
	Broker   Broker
	Renderer Renderer
	Open     func(messages.Cluster) (runtime.Runtime, error)
	Log      *zap.Logger
	Metrics  prometheus.Registerer // nil: none
	Now      func() time.Time      // time.Now

	// StopLimit bounds how long a graceful stop works on the instances in hand; 15 s.
	StopLimit time.Duration
	// Patience is how long a start waits for manager-api before it finishes its work without a claim; 3 s.
	Patience time.Duration
}

// DefaultParallel is how many orders are worked on side by side where nothing else is configured.
const DefaultParallel = 4

// prefetch is how many deliveries are held un-acked. They are acked as soon as they are claimed, so this is room beside
// those that wait for manager-api: a delivery whose claim fails keeps no probe from being taken.
const prefetch = 16

// capabilities are what this release of the executors can do beside what the former one could.
var capabilities = []string{managerapi.CapInstances, managerapi.CapResolve}

func (c Config) withDefaults() Config {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.ClaimTTL <= 0 {
		c.ClaimTTL = 30 * time.Second
	}
	if c.Parallel <= 0 {
		c.Parallel = DefaultParallel
	}
	if c.Patience <= 0 {
		c.Patience = 3 * time.Second
	}
	if c.StopLimit <= 0 {
		c.StopLimit = 15 * time.Second
	}
	return c
}

// Engine executes orders. Use New, then Run once.
type Engine struct {
	cfg     Config
	log     *zap.Logger
	metrics metrics
	works   works
	line    *line
	seen    seen
	hears   hearing

	tasks     chan task     // what is to be run as a job
	untaken   chan struct{} // closed when no task is taken any more
	releasing chan struct{} // holds an element for every claim that is being given back
	stopping  chan struct{} // closed when a graceful stop begins: nothing new is begun
	overtime  chan struct{} // closed StopLimit later: the work on orders ends where it is
	stopOnce  sync.Once
}

// task is what a job does with the order that has a place in the line. ctx is the process's life.
type task struct {
	place *place
	run   func(ctx context.Context)
}

// New returns an Engine. It creates its directory below StateDir.
func New(c Config) (*Engine, error) {
	c = c.withDefaults()
	f, err := newFiles(c.StateDir)
	if err != nil {
		return nil, err
	}
	log := c.Log.Named("engine")
	e := &Engine{cfg: c, log: log, line: newLine(c.Parallel),
		works: works{files: f, log: log, now: c.Now, session: c.Broker.Session, wake: make(chan struct{}, 1),
			guarded: map[string]*guarded{}},
		tasks: make(chan task), untaken: make(chan struct{}), releasing: make(chan struct{}, releaseRoom),
		stopping: make(chan struct{}), overtime: make(chan struct{})}
	e.metrics = newMetrics(c.Metrics, e.line)
	return e, nil
}

// Run works until stop is closed and the instances in hand are finished, or until ctx ends, whichever is first; then it
// returns nil. It subscribes to its queue at once: orders are taken beside the unfinished work of the last start. A
// probe is answered also while a stop finishes the instances in hand.
func (e *Engine) Run(ctx context.Context, stop <-chan struct{}) error {
	e.look() // before anything is begun
	found, err := e.findWorks()
	if err != nil {
		return err
	}
	finished := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { e.listen(finished) })
	watching.Go(func() { e.limitStop(finished) })
	jobs := make(chan struct{})
	go func() { defer close(jobs); e.runJobs(ctx) }()

	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error {
		select {
		case <-stop:
		case <-inner.Done():
		}
		e.beginStop()
		return nil
	})
	group.Go(func() error {
		_ = loop.Contain(inner, "resume", "", func() error { e.resumeWorks(inner, found); return nil }) // told there
		return nil
	})
	group.Go(func() error { return e.consume(inner) })
	group.Go(func() error { e.settleWorks(inner); return nil })
	err = group.Wait()

	close(e.untaken)
	<-jobs
	close(finished)
	watching.Wait()
	return err
}

// beginStop begins a graceful stop: no order is begun any more but probes.
func (e *Engine) beginStop() {
	e.stopOnce.Do(func() {
		close(e.stopping)
		hand, wait := e.line.lengths()
		e.line.close()
		e.log.Info("no order is begun any more", zap.Int("in_hand", hand), zap.Int("given_back", wait))
	})
}

// stops tells whether a stop has begun.
func (e *Engine) stops() bool {
	select {
	case <-e.stopping:
		return true
	default:
		return false
	}
}

// limitStop ends the work on orders StopLimit after the stop began.
func (e *Engine) limitStop(finished <-chan struct{}) {
	select {
	case <-e.stopping:
	case <-finished:
		return
	}
	timer := time.NewTimer(e.cfg.StopLimit)
	defer timer.Stop()
	select {
	case <-finished:
	case <-timer.C:
		close(e.overtime)
	}
}

// consume takes orders until a stop has nothing in hand any more.
func (e *Engine) consume(ctx context.Context) error {
	defer e.beginStop()
	consuming, cancel := until(ctx, e.line.drained, e.overtime)
	defer cancel()
	c := rabbit.Consumer{Queue: e.cfg.Queue, Prefetch: prefetch, Handle: e.handleDelivery}
	return e.cfg.Broker.Consume(consuming, c)
}

// submit has a task run. Its place is given up at the end.
func (e *Engine) submit(t task) {
	select {
	case e.tasks <- t:
	case <-e.untaken: // by a handler that the consumer has abandoned: the claim expires
		e.line.leave(t.place)
	}
}

// runJobs runs tasks side by side until none is taken any more and all have ended.
func (e *Engine) runJobs(ctx context.Context) {
	var jobs sync.WaitGroup
	defer jobs.Wait()
	for {
		select {
		case t := <-e.tasks:
			jobs.Go(func() { e.runTask(ctx, t) })
		case <-e.untaken:
			return
		}
	}
}

// runTask runs one task. A panic ends this task alone: its claim expires, and the next attempt finds the work file.
func (e *Engine) runTask(ctx context.Context, t task) {
	defer e.line.leave(t.place)
	if err := loop.Contain(ctx, "order", t.place.order, func() error { t.run(ctx); return nil }); err != nil {
		e.log.Error("order is left as it is", zap.String("order_id", t.place.order), zap.Error(err))
	}
}

// until returns a context that also ends when one of the channels is closed.
func until(ctx context.Context, ends ...<-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	for _, end := range ends {
		go func() {
			select {
			case <-end:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	return ctx, cancel
}

// pause waits; false means that the stop has begun or ctx has ended.
func (e *Engine) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-e.stopping:
		return false
	case <-ctx.Done():
		return false
	}
}
