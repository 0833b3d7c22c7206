package overseer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/health"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/times"
)

// gap is the least time between two passes: news that comes in a flood is read in portions.
const gap = 100 * time.Millisecond

// Snapshots is where a pass reads; *managerapi.Client is one.
type Snapshots interface {
	Snapshot(ctx context.Context, id component.ExchangeID) (managerapi.Snapshot, error)
}

// Pass is the repeated judgement of one term: snapshot, plan, apply.
type Pass struct {
	Snapshots Snapshots
	Judge     Judge
	Exchange  component.ExchangeID
	Term      *Term
	Times     times.Times
	Jitter    func() time.Duration // see Situation
	// Watch is told the types whose heartbeats may complete a proof.
	Watch func(types map[string]bool)
	// Wake asks for another pass soon.
	Wake    func()
	Now     func() time.Time
	Log     *zap.Logger
	Metrics *Metrics

	began time.Time // of the last pass
	swept time.Time // of the last sweep, on our clock
	held  bool
	told  map[LeftAlone]bool // what the last plan left alone
}

// Interval is how long a pass waits for news before it looks by itself.
func Interval(t times.Times) time.Duration {
	return min(max(t.Lease/3, time.Second), 5*time.Second)
}

// Do makes one pass. It returns an error when manager-api did not answer or refused an action; the next pass tries
// again. A term that is over is no error. A conflict is no error either, except that of a start: it may last.
func (p *Pass) Do(ctx context.Context) error {
	pause(ctx, gap-p.Now().Sub(p.began))
	if ctx.Err() != nil || !p.Term.Trusted() {
		return nil
	}
	p.began = p.Now()
	moved, err := p.once(ctx)
	p.Metrics.passTime.Observe(p.Now().Sub(p.began).Seconds())
	if errors.Is(err, ErrTermOver) {
		p.Metrics.passes.WithLabelValues("term_over").Inc()
		return nil
	}
	p.Metrics.passes.WithLabelValues(result(err)).Inc()
	if moved {
		p.Wake()
	}
	return err
}

func (p *Pass) once(ctx context.Context) (moved bool, err error) {
	s, err := p.Snapshots.Snapshot(ctx, p.Exchange)
	if err != nil {
		return false, fmt.Errorf("read snapshot: %w", err)
	}
	p.Watch(Verifying(s))
	_ = loop.Contain(ctx, "pass", "health", func() error { // for people alone: told where all panics are
		p.Metrics.show(health.Judge(s.Health()))
		return nil
	})
	plan, leftAlone := Plan(Situation{Snapshot: s, Term: p.Term.ID, SweepDue: p.Now().Sub(p.swept) >= p.Times.Sweep,
		CheckInterval: p.Times.CheckInterval, StarveAfter: p.Times.StarveAfter, Jitter: p.Jitter,
		Contain: func(item string, judgement func()) error {
			return loop.Contain(ctx, "pass", item, func() error { judgement(); return nil })
		}})
	p.tell(leftAlone)
	return p.apply(ctx, plan)
}

// tell logs each item that is left alone once for each reason, until the item is judged again.
func (p *Pass) tell(leftAlone []LeftAlone) {
	told := make(map[LeftAlone]bool, len(leftAlone))
	for _, l := range leftAlone {
		if !p.told[l] && !told[l] {
			p.Log.Warn("left alone", zap.String("item", l.Item), zap.String("reason", l.Why))
		}
		told[l] = true
	}
	p.told = told
	p.Metrics.leftAlone.Set(float64(len(told)))
}
