package main

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/member"
	"github.com/openaperture/openaperture/pkg/rabbit"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/overseer/internal/heartbeats"
	"github.com/openaperture/openaperture/services/overseer/internal/overseer"
)

const (
	termDrain = 4 * time.Second // for the end of a term's parts, so that a stop takes less than 5 s
	unbounded = math.MaxInt64
)

// run is the parts list. Every replica is a member of the exchange and beats; only the leader consumes and judges. The
// process is ready when its broker session is up: neither an absent manager-api nor another leader makes it unready.
func run(ctx context.Context, cfg config, env *boot.Env) error {
	m, err := member.Join(ctx, cfg.Config, env, component.Overseer)
	if err != nil {
		return err
	}
	s := newService(cfg, env, m)
	leader := &overseer.Leader{Leases: m.API, Exchange: m.Exchange.ID, Hostname: env.Hostname, TTL: m.Times.Lease,
		Fit: func() bool { return m.Broker.Ready() == nil }, Patience: m.Times.LiveWithin,
		Covered: func() (bool, func()) { return s.coverage.Covered(time.Now()) }, Reign: s.reign, Drain: termDrain,
		Stopping: env.Stopping, Log: env.Log.Named("leader"), Metrics: s.metrics}
	env.Health.AddInfo("leads", said(leader.Leads, "another overseer leads the exchange, or none"))
	env.Health.AddInfo("covers", said(func() bool { return s.coverage.Seconds() > 0 },
		"this overseer does not cover the exchange"))
	return env.RunParts(ctx, m.Parts(loop.Part{Name: "leader", Run: leader.Run})...)
}

// said is a line of /readyz for people; it gates nothing.
func said(ok func() bool, otherwise string) func(context.Context) error {
	return func(context.Context) error {
		if ok() {
			return nil
		}
		return errors.New(otherwise)
	}
}

// service is what outlives a term.
type service struct {
	*member.Member
	env      *boot.Env
	prefetch int
	coverage *overseer.Coverage
	metrics  *overseer.Metrics
	beats    *heartbeats.Metrics
	log      *zap.Logger
}

func newService(cfg config, env *boot.Env, m *member.Member) *service {
	a := m.Exchange.Address()
	s := &service{Member: m, env: env, prefetch: cfg.Prefetch, metrics: overseer.NewMetrics(env.Metrics),
		beats: heartbeats.NewMetrics(env.Metrics), log: env.Log.Named("overseer")}
	s.coverage = overseer.NewCoverage(m.Broker.Whole(), m.Times.LiveWithin, env.Log.Named("coverage"),
		a.QueueName(messages.QueueOverseer), a.QueueName(messages.QueueSystemModules))
	env.Metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "openaperture_overseer_covered_seconds",
		Help: "For how long this leader has heard its exchange without a break; 0 if it does not."}, s.coverage.Seconds))
	return s
}

// reign runs the leader's parts for one term: it hears the heartbeats, the doorbell, and judges. It returns when all of
// them have ended; who waits for that knows for how long.
func (s *service) reign(ctx context.Context, t *overseer.Term) error {
	s.coverage.Begin()
	defer context.AfterFunc(ctx, s.uncover)() // at once, however long the parts take to end
	defer s.uncover()
	defer s.metrics.Idle()
	address := s.Exchange.Address()
	waker := loop.NewWaker()
	var watched atomic.Pointer[map[string]bool]
	watched.Store(&map[string]bool{})
	stripped := map[string]bool{} // batches are handled one at a time

	doorbell := &overseer.Doorbell{Requests: s.API, Exchange: s.Exchange.ID, Wake: waker.Wake, Log: s.log,
		Metrics: s.metrics}
	pass := &overseer.Pass{Snapshots: s.API, Judge: s.API, Exchange: s.Exchange.ID, Term: t, Times: s.Times,
		Jitter: func() time.Duration { return rand.N(s.Times.CheckInterval) },
		Watch:  func(types map[string]bool) { watched.Store(&types) }, Wake: waker.Wake, Now: time.Now, Log: s.log,
		Metrics: s.metrics}
	receive := func(hctx context.Context, batch []*rabbit.Delivery) error {
		hctx, end := bound(hctx, ctx)
		defer end()
		return s.receiver(s.Broker.Session(), &watched, waker, stripped).Handle(hctx, batch)
	}
	ring := func(hctx context.Context, d *rabbit.Delivery) error {
		hctx, end := bound(hctx, ctx)
		defer end()
		return doorbell.Handle(hctx, d)
	}
	return loop.Group{Shutdown: unbounded, Parts: []loop.Part{
		{Name: "heartbeats", Run: func(ctx context.Context) error {
			return s.Broker.ConsumeBatch(ctx, heartbeats.Consumer(address.QueueName(messages.QueueSystemModules), s.prefetch,
				receive))
		}},
		{Name: "doorbell", Run: func(ctx context.Context) error {
			return s.Broker.Consume(ctx, rabbit.Consumer{Queue: address.QueueName(messages.QueueOverseer), Prefetch: 10,
				Handle: ring})
		}},
		{Name: "pass", Run: loop.Loop{Interval: overseer.Interval(s.Times), Wake: waker.C(), Do: pass.Do,
			OnError: func(err error) { s.log.Warn("pass not finished, the next one goes on", zap.Error(err)) }}.Run},
	}}.Run(ctx)
}

// uncover ends what this process says of the exchange: who does not lead does not cover.
func (s *service) uncover() { s.coverage.Break("the term is over") }

// bound ends a handler's context with the term: the broker's package detaches it, so that a stop can finish its
// handlers, but nothing of a term goes on after it.
func bound(handler, term context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(handler)
	release := context.AfterFunc(term, cancel)
	return ctx, func() { release(); cancel() }
}

// receiver handles one batch that was received under the session.
func (s *service) receiver(session uint64, watched *atomic.Pointer[map[string]bool], waker *loop.Waker,
	stripped map[string]bool) *heartbeats.Receiver {
	return &heartbeats.Receiver{Store: s.API, Exchange: s.Exchange.ID, Stripped: stripped, Log: s.log, Metrics: s.beats,
		Failed: func(error) { s.coverage.Break("heartbeats could not be stored") },
		Committed: func(beats []messages.ModuleStatus) {
			types := *watched.Load()
			for _, b := range beats {
				if b.Hostname == s.env.Hostname && b.BootID == s.env.BootID {
					s.coverage.OwnBeat(session, time.Now())
				}
				if types[b.Type] {
					waker.Wake()
				}
			}
		}}
}
