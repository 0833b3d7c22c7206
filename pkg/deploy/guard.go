package deploy

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/managerapi"
	messages "github.com/openaperture/openaperture/proto-messages"
)

const (
	firstSettle = 250 * time.Millisecond // between two questions whether an order is settled,
	lastSettle  = 30 * time.Second       // doubled up to this
)

// settleWorks asks for every confirmed order until it is settled, and has the deploy of a manager-api that is deaf or
// dead undone. It ends when a stop begins.
func (e *Engine) settleWorks(ctx context.Context) {
	ctx, cancel := until(ctx, e.stopping)
	defer cancel()
	pause := firstSettle
	for {
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-e.works.wake:
			pause = firstSettle
		case <-timer.C:
			pause = min(2*pause, lastSettle)
		}
		timer.Stop()
		list := e.works.list()
		e.metrics.waiting.Set(float64(len(list)))
		for _, g := range list {
			settle := func() error { e.settleWork(ctx, g); return nil }
			_ = loop.Contain(ctx, "settle", g.work.Order.OrderID, settle) // a panic is told there
			if left := e.works.undoAt(g).Sub(e.cfg.Now()); left > 0 {
				pause = min(pause, left)
			}
		}
	}
}

// settleWork asks for one order and does what its fate is.
func (e *Engine) settleWork(ctx context.Context, g *guarded) {
	fate, _ := e.askFate(ctx, g)
	switch {
	case ctx.Err() != nil:
	case fate == drop:
		e.works.forgetGuarded(g)
	case fate == undo:
		if p, ok := e.line.reserve(g.work.Order.OrderID); ok { // else an attempt at it is in hand, or the undo is in line
			e.line.join(p, g.work.Order)
			e.submit(task{p, func(ctx context.Context) { e.undoWork(ctx, g, p) }})
		}
	}
}

// askFate finds the fate of a confirmed order; answered tells whether manager-api said anything about it. The time that
// leads to an undo begins anew while manager-api watches over the order, and after every gap in which it could not have
// learned of the result.
func (e *Engine) askFate(ctx context.Context, g *guarded) (f fate, answered bool) {
	var view *managerapi.OrderView
	got, err := e.cfg.Manager.Order(ctx, g.work.Order.OrderID)
	switch {
	case fault.Is(err, fault.NotFound):
		return drop, true
	case err == nil:
		view = &got
	}
	e.works.heard(g, e.cfg.Broker.Ready() != nil || view != nil && view.Watched)
	return settle(g.work, view, !e.cfg.Now().Before(e.works.undoAt(g))), view != nil
}

// undoWork takes a confirmed deploy back when its turn comes, if that is still due then.
func (e *Engine) undoWork(ctx context.Context, g *guarded, p *place) {
	select {
	case <-p.turn:
	case <-e.stopping:
		return
	case <-ctx.Done():
		return
	}
	asking, cancel := until(ctx, e.stopping)
	fate, answered := e.askFate(asking, g)
	cancel()
	if fate != undo || e.stops() || !e.works.unguard(g) { // while it waited, a newer order may have ended the guard
		return // asked again soon
	}
	w := *g.work
	e.log.Warn("order was not settled in time, its deploy is undone", zap.String("order_id", w.Order.OrderID),
		zap.Bool("manager_answers", answered))
	w.Silent = !answered
	e.works.note(&w, overdue)
	j := e.resumed(&w, p)
	j.quiet = g.quiet
	e.attend(ctx, j)
}

// undoLater keeps the guard over a deploy whose undo could not be finished now. The undo stays due, and is tried again
// at the pace of the questions.
func (e *Engine) undoLater(j *job) {
	since := j.quiet
	if since.IsZero() { // an earlier process had decided on it
		since = j.work.ConfirmedAt
	}
	e.works.note(j.work, postponed)
	e.works.guard(j.work, since)
}

// fate is what becomes of a confirmed work file.
type fate uint8

const (
	keep fate = iota // ask again later
	drop             // the order is settled, or somebody else's
	undo             // take the deploy back
)

// settle decides the fate of confirmed work. view is nil while manager-api does not answer; due says that the work has
// waited in vain for long enough. Only an order that replaced manager-api is undone: one that is ready but deaf, or
// dead because its deploy failed half way, could not do it itself (docs/deployment.md#the-work-file). A failure that
// manager-api has learned of is its own to undo.
func settle(w *work, view *managerapi.OrderView, due bool) fate {
	completed := w.Result != nil && w.Result.EventType == messages.EventMilestoneCompleted
	halfDone := w.Result != nil && !completed && w.Result.Touched && !w.Result.Restored
	manager := w.Order.ComponentType == string(component.Manager)
	proving := manager && completed
	switch {
	case view != nil && view.Token > w.Token:
		return drop
	case view != nil && proving && view.Settled, view != nil && !proving && hasEnded(view.State):
		return drop
	case manager && (completed || halfDone) && w.Order.ProgressDeadlineMS > 0 && due:
		return undo
	default:
		return keep
	}
}

// undoAt is when a confirmed deploy of manager-api has waited in vain for long enough, since it was confirmed or later.
func undoAt(w *work, quiet time.Time) time.Time {
	since := w.ConfirmedAt
	if quiet.After(since) {
		since = quiet
	}
	return since.Add(w.Order.ProgressDeadline())
}

// hasEnded tells whether manager-api wants nothing more of an order.
func hasEnded(state string) bool {
	return state == "completed" || state == "failed" || state == "closed"
}
