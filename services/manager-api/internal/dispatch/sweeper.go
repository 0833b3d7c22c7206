package dispatch

import (
	"context"
	"errors"
	"strconv"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/times"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
	"github.com/openaperture/openaperture/services/manager-api/internal/presence"
)

// Sweeper ticks what runs out of time: clocks, requests, claims, unclaimed orders, and what is kept only for a while.
type Sweeper struct {
	DB        *db.DB
	Engine    *engine.Engine
	Presence  *presence.Presence
	Consuming func(now time.Time) []component.ExchangeID // exchanges whose results this process has drained
	Times     times.Times
	Log       *zap.Logger

	metrics *metrics
	pruned  time.Time
	history time.Time // when history was pruned last
}

const (
	pruneEvery = 10 * time.Second // between two removals of what has served its time
	stepLimit  = 10 * time.Second // of one step of a pass
	// historyEvery is the pause between two looks for history that has served its time.
	historyEvery = 10 * time.Minute
)

// Sweeper is the sweeper over the exchanges of these brokers.
func (b *Brokers) Sweeper(t times.Times) *Sweeper {
	return &Sweeper{DB: b.cfg.DB, Engine: b.cfg.Engine, Presence: b.cfg.Presence, Consuming: b.Consuming,
		Times: t, Log: b.cfg.Log.Named("sweeper"), metrics: b.relay.metrics}
}

// Run sweeps once usable is closed, every second or ten times per tick_gap, until ctx ends. The presence of manager-api
// is recorded by a loop of its own at the same pace: a sweep may be slow, and is no absence for that.
func (s *Sweeper) Run(ctx context.Context, usable <-chan struct{}) error {
	select {
	case <-usable:
	case <-ctx.Done():
		return nil
	}
	pace := min(time.Second, s.Times.TickGap/10)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return loop.Loop{Name: "presence", Interval: pace, Do: s.present,
			OnError: func(err error) { s.Log.Warn("presence not recorded", zap.Error(err)) }}.Run(ctx)
	})
	group.Go(func() error {
		return loop.Loop{Name: "sweeper", Interval: pace,
			Do:      func(ctx context.Context) error { return s.Pass(ctx, time.Now()) },
			OnError: func(err error) { s.Log.Warn("sweep incomplete", zap.Error(err)) }}.Run(ctx)
	})
	return group.Wait()
}

// present records that manager-api is there.
func (s *Sweeper) present(ctx context.Context) error {
	gap, err := s.Engine.RecordPresence(ctx)
	if gap {
		s.metrics.gaps.Inc()
		s.Log.Info("manager-api was away; all claims get their full time")
	}
	return err
}

// Pass does everything once. A step that fails, panics or takes longer than stepLimit does not keep the others from
// their turn; the next pass repairs it.
func (s *Sweeper) Pass(ctx context.Context, now time.Time) error {
	began := time.Now()
	defer func() { s.metrics.passes.Observe(time.Since(began).Seconds()) }()
	if err := s.present(ctx); err != nil { // an absence gives time before anything may expire
		return err
	}
	consuming := s.Consuming(now)
	failed := s.steps(ctx,
		func(ctx context.Context) error { return s.Engine.TickUpgrades(ctx, consuming) },
		func(ctx context.Context) error { return s.Engine.ExpireClaims(ctx, consuming) },
		func(ctx context.Context) error { return s.Engine.ResendUnclaimed(ctx, consuming) },
		func(ctx context.Context) error { return s.Engine.AskRefs(ctx, consuming) },
		s.Engine.ExpireRequests,
		s.Engine.StartScheduled,
		s.Engine.AbandonWorkflows,
	)
	if now.Sub(s.pruned) < pruneEvery {
		return failed
	}
	s.pruned = now
	if now.Sub(s.history) >= historyEvery {
		failed = errors.Join(failed, s.steps(ctx, func(ctx context.Context) error {
			again, err := s.Engine.PruneHistory(ctx)
			if !again { // else the next round is due at once
				s.history = now
			}
			return err
		}))
	}
	return errors.Join(failed, s.steps(ctx, s.Engine.Prune, s.measure, s.Presence.TellCoverage, s.Presence.TellRivals))
}

// steps takes each step within stepLimit.
func (s *Sweeper) steps(ctx context.Context, list ...func(context.Context) error) error {
	var failed error
	for _, step := range list {
		bounded, cancel := context.WithTimeout(ctx, stepLimit)
		failed = errors.Join(failed, loop.Contain(bounded, "sweeper", "", func() error { return step(bounded) }))
		cancel()
	}
	return failed
}

func (s *Sweeper) measure(ctx context.Context) error {
	list, err := s.DB.Backlogs(ctx)
	if err != nil {
		return err
	}
	s.metrics.waiting.Reset()
	s.metrics.oldest.Reset()
	for _, b := range list {
		exchange := strconv.FormatInt(int64(b.ExchangeID), 10)
		s.metrics.waiting.WithLabelValues(exchange).Set(float64(b.Waiting))
		s.metrics.oldest.WithLabelValues(exchange).Set(float64(b.OldestMS) / 1000)
	}
	return nil
}
