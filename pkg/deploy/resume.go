package deploy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// resumeWorks has the works of the last start finished, and takes up the claims that it held. New orders are taken
// beside that: one that shares a component or a unit with unfinished work has its place behind it.
func (e *Engine) resumeWorks(ctx context.Context, found []unfinished) {
	for _, u := range found {
		e.submit(task{u.place, func(ctx context.Context) { e.finishWork(ctx, u) }})
	}
	e.resumeClaims(ctx)
}

// unfinished is the work of an earlier start, with its place in the line.
type unfinished struct {
	work  *work
	place *place
}

// findWorks reads what the last start has left. Confirmed work is guarded; other work gets its place in the line,
// before any order of today.
func (e *Engine) findWorks() ([]unfinished, error) {
	all, err := e.works.load()
	if err != nil {
		return nil, err
	}
	var found []unfinished
	for _, w := range all {
		e.seen.add(w.Order)
		if w.Stage == confirmed {
			e.works.track(w, time.Time{})
			continue
		}
		if p, ok := e.line.reserve(w.Order.OrderID); ok {
			e.line.join(p, w.Order)
			found = append(found, unfinished{w, p})
		}
	}
	return found, nil
}

// finishWork goes on with the work of an earlier start, under a new claim if manager-api gives one soon. A stop leaves
// it to the next start.
func (e *Engine) finishWork(ctx context.Context, u unfinished) {
	j := e.resumed(u.work, u.place)
	log := e.log.With(zap.String("order_id", j.order.OrderID), zap.String("stage", string(u.work.Stage)))
	if e.stops() {
		return
	}
	log.Info("unfinished work found")
	if u.work.Stage == rolling {
		switch err := e.reclaimWork(ctx, u.work); {
		case errors.Is(err, runtime.ErrSuperseded):
			log.Info("order is no longer ours", zap.Error(err))
			e.seen.remove(u.work.Order)
			e.guardOrForget(ctx, u.work)
			return
		case err != nil:
			log.Warn("work goes on without a claim", zap.Error(err))
		}
		j = e.resumed(u.work, u.place)
	}
	e.attend(ctx, j)
}

// reclaimWork claims the order of unfinished work. ErrSuperseded: it is no longer ours. Another error: manager-api does
// not say; the work may go on.
func (e *Engine) reclaimWork(ctx context.Context, w *work) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Patience)
	defer cancel()
	request := e.claimRequest(w.Order.Attempt)
	var k managerapi.Claim
	var alive error
	began := e.cfg.Now()
	err := managerapi.Retry(ctx, func() (err error) {
		k, err = e.cfg.Manager.Claim(ctx, w.Order.OrderID, request)
		if fault.CodeOf(err) == codeBootAlive {
			alive, err = err, nil
		}
		return err
	})
	if alive != nil { // it was the one that wrote this file, and has ended: its claim goes on
		return alive
	}
	if fault.Is(err, fault.Conflict) && fault.CodeOf(err) != codePastDeadline { // an old attempt, perhaps
		k, err = e.claimCurrentAttempt(ctx, w, request)
	}
	switch {
	case err != nil && fault.CodeOf(err) == codePastDeadline: // what is half done is brought to an end nevertheless
		return err
	case fault.Is(err, fault.Conflict), fault.Is(err, fault.NotFound):
		return fmt.Errorf("%w: %w", runtime.ErrSuperseded, err)
	case err != nil:
		return err
	}
	w.Token = k.Token
	if k.Order.OrderID == w.Order.OrderID {
		w.Order.Attempt, w.Order.Deadline = max(w.Order.Attempt, k.Order.Attempt), k.DeadlineAt(began)
	}
	e.seen.add(w.Order)
	return nil
}

// claimCurrentAttempt claims the current attempt of an order that nobody else works on.
func (e *Engine) claimCurrentAttempt(ctx context.Context, w *work, request managerapi.ClaimRequest) (managerapi.Claim,
	error) {
	view, err := e.cfg.Manager.Order(ctx, w.Order.OrderID)
	if err != nil {
		return managerapi.Claim{}, err
	}
	if hasEnded(view.State) || view.Attempt <= w.Order.Attempt || (view.Holder != "" && view.Holder != e.cfg.Hostname) {
		return managerapi.Claim{}, fault.New(fault.Conflict, "order %s is %s, held by %q", view.ID, view.State, view.Holder)
	}
	request.Attempt, w.Order.Attempt = view.Attempt, view.Attempt
	return e.cfg.Manager.Claim(ctx, w.Order.OrderID, request)
}

// guardOrForget keeps the guard over a deploy of manager-api whose confirmation was lost together with the former
// process.
func (e *Engine) guardOrForget(ctx context.Context, w *work) {
	limited, cancel := context.WithTimeout(ctx, e.cfg.Patience)
	defer cancel()
	view, err := e.cfg.Manager.Order(limited, w.Order.OrderID)
	if err != nil || w.Order.ComponentType != string(component.Manager) || view.State != "completed" || view.Settled ||
		view.Token > w.Token {
		e.works.forget(w)
		return
	}
	w.ConfirmedAt = e.cfg.Now().UTC()
	w.Result = &messages.Result{EventType: messages.EventMilestoneCompleted}
	e.works.note(w, missed)
	e.works.track(w, time.Time{})
}

// resumeClaims takes up what this hostname has claimed and not finished, such as an order that was acked but not begun.
func (e *Engine) resumeClaims(ctx context.Context) {
	ctx, cancel := until(ctx, e.stopping)
	defer cancel()
	self := managerapi.Executor{Hostname: e.cfg.Hostname, BootID: e.cfg.BootID, Service: e.cfg.Service,
		Capabilities: capabilities}
	var claims []managerapi.OrderView
	err := managerapi.Retry(ctx, func() (err error) {
		claims, err = e.cfg.Manager.ClaimsOf(ctx, self)
		return err
	})
	if err != nil {
		if ctx.Err() == nil {
			e.log.Warn("claims of this host are not known", zap.Error(err)) // they expire, and are ordered again
		}
		return
	}
	for _, view := range claims {
		if hasEnded(view.State) || view.Order == nil {
			continue
		}
		order := *view.Order
		order.Attempt = view.Attempt
		// While the process before may still renew the claim, manager-api asks to come again.
		err := managerapi.Retry(ctx, func() error { return e.takeOrder(ctx, order) })
		if err != nil && !errors.Is(err, errInHand) && ctx.Err() == nil {
			e.log.Warn("claim is not resumed", zap.String("order_id", view.ID), zap.Error(err))
		}
	}
}
