package dispatch

import (
	"context"
	"errors"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/times"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

// Sweeper ticks what runs out of time: clocks, requests, claims, unclaimed orders, and what is kept only for a while.
type Sweeper struct {
	DB        *db.DB
	Engine    *engine.Engine
	Consuming func(now time.Time) []component.ExchangeID // exchanges whose results this process has drained
	Times     times.Times
	Log       *zap.Logger

	metrics *metrics
	pruned  time.Time
}

// pruneEvery is the pause between two removals of what has served its time.
const pruneEvery = 10 * time.Second

// Sweeper is the sweeper over the exchanges of these brokers.
func (b *Brokers) Sweeper(t times.Times) *Sweeper {
	return &Sweeper{DB: b.cfg.DB, Engine: b.cfg.Engine, Consuming: b.Consuming, Times: t, Log: b.cfg.Log.Named("sweeper"),
		metrics: b.relay.metrics}
}

// Run sweeps once usable is closed, every second or ten times per tick_gap, until ctx ends.
func (s *Sweeper) Run(ctx context.Context, usable <-chan struct{}) error {
	select {
	case <-usable:
	case <-ctx.Done():
		return nil
	}
	return loop.Loop{Interval: min(time.Second, s.Times.TickGap/10),
		Do:      func(ctx context.Context) error { return s.Pass(ctx, time.Now()) },
		OnError: func(err error) { s.Log.Warn("sweep incomplete", zap.Error(err)) }}.Run(ctx)
}

// Pass does everything once. A step that fails does not keep the others from their turn; the next pass repairs it.
func (s *Sweeper) Pass(ctx context.Context, now time.Time) error {
	gap, err := s.Engine.Tick(ctx)
	if err != nil {
		return err // without the tick nothing may expire
	}
	if gap {
		s.metrics.gaps.Inc()
		s.Log.Info("manager-api was away; all claims get their full time")
	}
	consuming := s.Consuming(now)
	failed := errors.Join(
		s.Engine.ExpireRequests(ctx),
		s.Engine.TickUpgrades(ctx, consuming),
		s.Engine.ExpireClaims(ctx, consuming),
		s.Engine.ResendUnclaimed(ctx, consuming),
	)
	if now.Sub(s.pruned) < pruneEvery {
		return failed
	}
	s.pruned = now
	return errors.Join(failed, s.Engine.Prune(ctx), s.measure(ctx))
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
