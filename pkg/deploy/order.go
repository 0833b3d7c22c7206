package deploy

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/rabbit"
	"github.com/openaperture/openaperture/pkg/roll"
	messages "github.com/openaperture/openaperture/proto-messages"
)

const (
	busyLimit    = 15 * time.Minute // below the broker's consumer time-out
	releaseLimit = 2 * time.Second  // of giving a claim back at the stop
	// defaultHealthDeadline is for an order that states none: no instance is failed at once for that.
	defaultHealthDeadline = time.Minute
)

// errStopped says that a graceful stop ended the work before the next instance.
var errStopped = errors.New("stopped before the next instance")

// job is one claimed order.
type job struct {
	order messages.Order
	token int64
	trace propagation.MapCarrier // that the work and its messages belong to
	ttl   time.Duration
	work  *work // of a deploy that has begun
	acted bool  // this process has changed an instance
	steps []messages.Step

	deadline atomic.Pointer[time.Time] // on our clock, by the last renewal; nil before the first
	silentAt atomic.Pointer[time.Time] // when a renewal was not answered last, nil if all were
}

// handle is the consumer's handler. It returns as soon as the order is claimed, so that the delivery is acked early.
func (r *run) handle(ctx context.Context, d *rabbit.Delivery) error {
	order, err := messages.DecodeOrder(d.Body)
	if err == nil && !orderIDPattern.MatchString(order.OrderID) {
		err = fmt.Errorf("order id %q is not usable", order.OrderID)
	}
	if err != nil {
		return rabbit.Reject(err)
	}
	waiting, cancel := context.WithTimeout(ctx, busyLimit)
	defer cancel()
	defer context.AfterFunc(r.soft, cancel)() //nolint:contextcheck // a stop does not wait for the slot
	return verdict(r.take(waiting, order))
}

// verdict says what becomes of the delivery of an order that was not claimed.
func verdict(err error) error {
	switch {
	case err == nil, fault.Is(err, fault.Conflict), fault.Is(err, fault.NotFound):
		return nil // claimed, or nothing for us: the order row is the truth
	case fault.Is(err, fault.Invalid):
		return rabbit.Reject(err)
	default:
		return rabbit.Hold(err) // kept un-acked; asked again in 1 s … 30 s
	}
}

// take waits for the slot, claims the order and begins to work on it.
func (r *run) take(ctx context.Context, order messages.Order) error {
	if err := r.acquire(ctx); err != nil {
		return err
	}
	if r.known(order) {
		r.release()
		return nil
	}
	j, err := r.claim(ctx, order)
	if err != nil {
		r.release()
		return err
	}
	propagation.TraceContext{}.Inject(ctx, j.trace)
	r.remember(order)
	r.jobs.Go(func() { //nolint:contextcheck // the work outlives the delivery: it has the run's contexts
		defer r.release()
		r.perform(j)
	})
	return nil
}

// claim asks for the order and finds what is left of an earlier attempt at it. From here on the order's deadline is on our
// own clock: it is not compared with the database's.
func (r *run) claim(ctx context.Context, order messages.Order) (*job, error) {
	began := r.Now()
	left, guarded := r.left(order.OrderID) // before the claim: to the guard its token would be somebody else's
	k, err := r.Manager.Claim(ctx, order.OrderID, r.claimRequest(order.Attempt))
	if err != nil {
		if guarded {
			r.guard(left)
		}
		return nil, err
	}
	j := &job{order: order, token: k.Token, trace: propagation.MapCarrier{}, ttl: r.ClaimTTL}
	if k.Order.OrderID == order.OrderID { // the row's truth, not the message's copy
		j.order = k.Order
		j.order.Attempt = order.Attempt
	}
	if k.DeadlineInMS > 0 {
		j.order.Deadline = k.DeadlineAt(began)
	}
	if k.ExpiresInMS > 0 {
		j.ttl = time.Duration(k.ExpiresInMS) * time.Millisecond
	}
	if j.order.HealthDeadlineMS <= 0 {
		j.order.HealthDeadlineMS = defaultHealthDeadline.Milliseconds()
	}
	j.timed("claim", began, r.Now())
	if left != nil {
		j.work = left
		r.adopt(j)
	}
	return j, nil
}

// adopt goes on with work under a new claim. What was found before the first attempt stays what to return to, also when
// that attempt had come to an end: what runs now may be its doing.
func (r *run) adopt(j *job) {
	w := j.work
	w.Token, w.Order.Attempt, w.Order.Deadline = j.token, j.order.Attempt, j.order.Deadline
	j.order = w.Order
	if w.Stage == rolling {
		return
	}
	w.Stage, w.Progress, w.Disturbed, w.Result = rolling, roll.Progress{}, "", nil
	if err := r.files.save(w, true); err != nil {
		r.Log.Error("next attempt not saved", zap.Error(err)) // the file of the one before will do
	}
}

// reclaim claims the order of unfinished work. ErrSuperseded: it is no longer ours. Another error: manager-api does not
// say; the work may go on.
func (r *run) reclaim(w *work) error {
	ctx, cancel := context.WithTimeout(r.hard, r.Patience)
	defer cancel()
	request := r.claimRequest(w.Order.Attempt)
	var k managerapi.Claim
	began := r.Now()
	err := managerapi.Retry(ctx, func() (err error) {
		k, err = r.Manager.Claim(ctx, w.Order.OrderID, request)
		return err
	})
	if fault.Is(err, fault.Conflict) && fault.CodeOf(err) != codePastDeadline { // an old attempt, perhaps
		k, err = r.claimCurrent(ctx, w, request)
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
	r.remember(w.Order)
	return nil
}

// claimCurrent claims the current attempt of an order that nobody else works on.
func (r *run) claimCurrent(ctx context.Context, w *work, request managerapi.ClaimRequest) (managerapi.Claim, error) {
	view, err := r.Manager.Order(ctx, w.Order.OrderID)
	if err != nil {
		return managerapi.Claim{}, err
	}
	if ended(view.State) || view.Attempt <= w.Order.Attempt || (view.Holder != "" && view.Holder != r.Hostname) {
		return managerapi.Claim{}, fault.New(fault.Conflict, "order %s is %s, held by %q", view.ID, view.State, view.Holder)
	}
	request.Attempt, w.Order.Attempt = view.Attempt, view.Attempt
	return r.Manager.Claim(ctx, w.Order.OrderID, request)
}

// perform works on an order to its end: a result that the broker has, or work that is left to somebody else.
func (r *run) perform(j *job) {
	ctx, cancel := context.WithCancelCause(j.traced(r.cut))
	log := r.Log.With(append(boot.TraceFields(ctx), zap.String("order_id", j.order.OrderID), zap.String("workflow_id", j.order.WorkflowID),
		zap.String("milestone", string(j.order.CurrentStep)), zap.Int64("token", j.token))...)
	claimed := j.work == nil || j.work.Stage == rolling // later there is no claim any more
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		if claimed {
			r.renew(ctx, cancel, j)
		}
	}()
	result, err := r.execute(ctx, j)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, runtime.ErrSuperseded) {
		err = cause
	}
	cancel(nil)
	<-renewed
	switch {
	case err == nil:
		log.Info("order performed", zap.String("event_type", result.EventType), zap.String("reason", result.Reason))
		r.metrics.orders.WithLabelValues(string(j.order.CurrentStep), result.EventType).Inc()
		r.report(j, result)
	case errors.Is(err, runtime.ErrSuperseded):
		log.Info("order superseded", zap.Error(err))
		r.unremember(j.order)
		r.metrics.orders.WithLabelValues(string(j.order.CurrentStep), "superseded").Inc()
		if j.work != nil {
			r.forget(j.work)
		}
	case r.hard.Err() == nil:
		log.Info("order given back", zap.Error(err))
		r.putDown(j, claimed)
	}
}

// putDown leaves an order that has no result to whoever comes next: to another executor by its claim, or, where there is
// none any more, to ourselves.
func (r *run) putDown(j *job, claimed bool) {
	switch {
	case claimed:
		r.giveBack(j)
	case r.soft.Err() == nil:
		r.undoLater(j.work)
	}
}

// giveBack releases the claim, so that nobody waits for it to expire.
func (r *run) giveBack(j *job) {
	r.unremember(j.order)
	ctx, cancel := context.WithTimeout(r.hard, releaseLimit)
	defer cancel()
	if err := r.Manager.ReleaseClaim(ctx, j.order.OrderID, j.token); err != nil && r.hard.Err() == nil {
		r.Log.Warn("claim not released", zap.String("order_id", j.order.OrderID), zap.Error(err)) // it expires
	}
}

// codes of manager-api's refusals that are told apart.
const (
	codeSuperseded   = "superseded"
	codePastDeadline = "past_deadline"
)

// renew renews the claim at a third of its time. Only the news that somebody else holds the order, or that nobody wants it,
// ends the work: an absent manager-api changes nothing, and a passed deadline is seen by the rollout itself.
func (r *run) renew(ctx context.Context, cancel context.CancelCauseFunc, j *job) {
	timer := time.NewTimer(j.ttl / 3)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := r.Now()
		k, err := r.Manager.Renew(ctx, j.order.OrderID, j.token)
		if fault.Is(err, fault.NotFound) || err != nil && fault.CodeOf(err) == codeSuperseded {
			cancel(fmt.Errorf("%w: %w", runtime.ErrSuperseded, err))
			return
		}
		j.heard(k, err, began, r.Now())
		timer.Reset(j.ttl / 3)
	}
}

// heard notes what a renewal, asked for at began, brought: the order's deadline, which moves with its progress, or silence.
func (j *job) heard(k managerapi.Claim, err error, began, now time.Time) {
	switch {
	case err == nil && !k.Order.Deadline.IsZero():
		at := k.DeadlineAt(began)
		j.deadline.Store(&at)
	case fault.Is(err, fault.Unavailable):
		j.silentAt.Store(&now)
	}
}

// traced returns ctx within the trace of the order's delivery.
func (j *job) traced(ctx context.Context) context.Context {
	return propagation.TraceContext{}.Extract(ctx, j.trace)
}

// timed records where the time goes.
func (j *job) timed(name string, from, to time.Time) {
	j.steps = append(j.steps, messages.Step{Name: name, MS: to.Sub(from).Milliseconds()})
}
