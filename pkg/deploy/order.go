package deploy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/rabbit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// defaultHealthDeadline is for an order that states none: no instance is failed at once for that.
const defaultHealthDeadline = time.Minute

var (
	// errInHand says that an earlier delivery of the same order is still worked on.
	errInHand = errors.New("the order is in hand already")
	// errStopping says that a graceful stop has begun, so that no order is begun any more.
	errStopping = errors.New("a stop has begun")
	// errStopped says that a graceful stop ended the work before the next instance.
	errStopped = errors.New("stopped before the next instance")
)

// job is one order that is ours.
type job struct {
	order messages.Order
	token int64
	trace propagation.MapCarrier // that the work and its messages belong to
	ttl   time.Duration          // of the claim
	place *place
	work  *work     // of a deploy that has begun
	quiet time.Time // since when the guard over the work has waited; zero: it was not guarded
	acted bool      // this process has changed an instance
	steps []messages.Step
	told  time.Time // when manager-api last heard of progress

	deadline atomic.Pointer[time.Time] // on our clock, by the last renewal; nil before the first
	silentAt atomic.Pointer[time.Time] // when a renewal was not answered last, nil if all were
}

// resumed is the job of going on with work, under the claim that it had.
func (e *Engine) resumed(w *work, p *place) *job {
	return &job{order: w.Order, token: w.Token, trace: w.Trace, ttl: e.cfg.ClaimTTL, place: p, work: w, told: e.cfg.Now()}
}

// timed records where the time goes.
func (j *job) timed(name string, from, to time.Time) {
	j.steps = append(j.steps, messages.Step{Name: name, MS: to.Sub(from).Milliseconds()})
}

// traced returns ctx within the trace of the order's delivery.
func (j *job) traced(ctx context.Context) context.Context {
	return propagation.TraceContext{}.Extract(ctx, j.trace)
}

// extend takes over the deadline that the order has by the last renewal: while it waited, its deadline has moved.
func (j *job) extend() {
	if at := j.deadline.Load(); at != nil {
		j.order.Deadline = *at
	}
}

// claimed tells whether the order has a claim to be renewed. An order whose result is decided has none any more.
func (j *job) claimed() bool { return j.work == nil || j.work.Stage == rolling }

// handleDelivery is the consumer's handler. It returns as soon as the order is claimed, so that the delivery is acked
// early and the next one, which may be a probe, is not kept waiting.
func (e *Engine) handleDelivery(ctx context.Context, d *rabbit.Delivery) error {
	order, err := messages.DecodeOrder(d.Body)
	if err == nil && !orderIDPattern.MatchString(order.OrderID) {
		err = fmt.Errorf("order id %q is not usable", order.OrderID)
	}
	if err != nil {
		return rabbit.Reject(err)
	}
	return settleDelivery(e.takeOrder(ctx, order))
}

// settleDelivery says what becomes of the delivery of an order that was not claimed.
func settleDelivery(err error) error {
	switch {
	case err == nil, fault.Is(err, fault.Conflict), fault.Is(err, fault.NotFound):
		return nil // claimed, or nothing for us: the order row is the truth
	case fault.Is(err, fault.Invalid):
		return rabbit.Reject(err)
	default:
		return rabbit.Hold(err) // kept un-acked; asked again in 1 s … 30 s
	}
}

// takeOrder claims an order and has it worked on when its turn comes. During a stop only probes are taken.
func (e *Engine) takeOrder(ctx context.Context, order messages.Order) error {
	if e.stops() && order.CurrentStep != messages.MilestoneProbe {
		return errStopping
	}
	p, ok := e.line.reserve(order.OrderID)
	if !ok {
		return errInHand
	}
	if e.seen.knows(order) {
		e.line.leave(p)
		return nil
	}
	j, err := e.claimOrder(ctx, order)
	if err != nil {
		e.line.leave(p)
		return err
	}
	propagation.TraceContext{}.Inject(ctx, j.trace)
	j.place = p
	e.seen.add(j.order)
	e.line.join(p, j.order)
	e.submit(task{p, func(ctx context.Context) { e.attend(ctx, j) }})
	return nil
}

// claimRequest asks for an order in the name of this process.
func (e *Engine) claimRequest(attempt int) managerapi.ClaimRequest {
	return managerapi.ClaimRequest{Attempt: attempt, Hostname: e.cfg.Hostname, BootID: e.cfg.BootID,
		Capabilities: capabilities}
}

// claimOrder asks for the order and finds what is left of an earlier attempt at it. From here on the order's deadline
// is on our own clock: it is not compared with the database's.
func (e *Engine) claimOrder(ctx context.Context, order messages.Order) (*job, error) {
	began := e.cfg.Now()
	left, quiet := e.works.left(order.OrderID) // before the claim: to the guard its token would be somebody else's
	k, err := e.cfg.Manager.Claim(ctx, order.OrderID, e.claimRequest(order.Attempt))
	if err != nil {
		if !quiet.IsZero() {
			e.works.guard(left, quiet)
		}
		return nil, err
	}
	j := &job{order: order, token: k.Token, trace: propagation.MapCarrier{}, ttl: e.cfg.ClaimTTL, quiet: quiet,
		told: began}
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
	j.timed("claim", began, e.cfg.Now())
	if left != nil {
		j.work = left
		e.adoptWork(j)
	}
	return j, nil
}

// adoptWork goes on with work under a new claim. What was found before the first attempt stays what to return to, also
// when that attempt had come to an end: what runs now may be its doing.
func (e *Engine) adoptWork(j *job) {
	w := j.work
	w.Token, w.Order.Attempt, w.Order.Deadline = j.token, j.order.Attempt, j.order.Deadline
	j.order = w.Order
	e.works.note(w, retaken)
}

// attend has an order wait for its turn and performs it, to its end: a result that the broker has, or work that is left
// to somebody else.
func (e *Engine) attend(ctx context.Context, j *job) {
	var result messages.Result
	claimed := j.claimed()
	err := e.underClaim(ctx, j, func(held context.Context) (err error) {
		if err := e.awaitTurn(held, j); err != nil {
			return err
		}
		j.extend()
		result, err = e.execute(held, j)
		return err
	})
	log := e.jobLog(ctx, j)
	step := string(j.order.CurrentStep)
	switch {
	case err == nil:
		log.Info("order performed", zap.String("event_type", result.EventType), zap.String("reason", result.Reason))
		e.metrics.orders.WithLabelValues(step, result.EventType).Inc()
		e.reportResult(ctx, j, result)
	case isSuperseded(err):
		log.Info("order superseded", zap.Error(err))
		e.metrics.orders.WithLabelValues(step, "superseded").Inc()
		e.seen.remove(j.order)
		if j.work != nil {
			e.works.forget(j.work)
		}
	case ctx.Err() == nil:
		log.Info("order given back", zap.Error(err))
		e.putDown(ctx, j, claimed)
	}
}

// jobLog is the log of one order, with the trace of the order's delivery.
func (e *Engine) jobLog(ctx context.Context, j *job) *zap.Logger {
	return e.log.With(append(boot.TraceFields(j.traced(ctx)), zap.String("order_id", j.order.OrderID),
		zap.String("workflow_id", j.order.WorkflowID), zap.String("milestone", string(j.order.CurrentStep)),
		zap.Int64("token", j.token))...)
}

// underClaim calls do while the claim of an order is renewed. The context of do ends when the order is somebody else's
// (ErrSuperseded), and StopLimit after a stop has begun (errStopped).
func (e *Engine) underClaim(ctx context.Context, j *job, do func(context.Context) error) error {
	held, cancel := context.WithCancelCause(j.traced(ctx))
	defer cancel(nil)
	var keeping sync.WaitGroup
	if j.claimed() {
		keeping.Go(func() {
			renew := func() error { e.renewClaim(held, cancel, j); return nil }
			_ = loop.Contain(ctx, "renewal", j.order.OrderID, renew) // told there; the claim expires
		})
	}
	keeping.Go(func() {
		select {
		case <-e.overtime:
			cancel(errStopped)
		case <-held.Done():
		}
	})
	err := do(held)
	if cause := context.Cause(held); err != nil && isSuperseded(cause) {
		err = cause
	}
	cancel(nil)
	keeping.Wait()
	return err
}

// awaitTurn waits until an order may be begun. An order that waits for others is told to manager-api as making
// progress: its executor works as it should.
func (e *Engine) awaitTurn(ctx context.Context, j *job) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if j.place.hasTurn() {
			return nil
		}
		timer.Reset(max(e.untilTold(j), time.Millisecond))
		select {
		case <-j.place.turn:
		case <-e.stopping:
			if !j.place.hasTurn() { // that of a probe comes also during a stop
				return errStopping
			}
		case <-ctx.Done():
			return fmt.Errorf("interrupted: %w", context.Cause(ctx))
		case <-timer.C:
			e.tellIfDue(ctx, j)
		}
	}
}

// putDown leaves an order that has no result to whoever comes next: to another executor by its claim, or, where there
// is none any more, to ourselves.
func (e *Engine) putDown(ctx context.Context, j *job, claimed bool) {
	switch {
	case claimed:
		e.giveBack(ctx, j)
	case !e.stops():
		e.undoLater(j)
	}
}

const (
	releaseLimit = 2 * time.Second // of giving a claim back at the stop
	releaseRoom  = 8               // claims that are given back at the same time
)

// giveBack releases the claim, so that nobody waits for it to expire.
func (e *Engine) giveBack(ctx context.Context, j *job) {
	e.seen.remove(j.order)
	select {
	case e.releasing <- struct{}{}:
		defer func() { <-e.releasing }()
	case <-ctx.Done():
		return
	}
	limited, cancel := context.WithTimeout(ctx, releaseLimit)
	defer cancel()
	if err := e.cfg.Manager.ReleaseClaim(limited, j.order.OrderID, j.token); err != nil && ctx.Err() == nil {
		e.log.Warn("claim not released", zap.String("order_id", j.order.OrderID), zap.Error(err)) // it expires
	}
}

// codes of manager-api's refusals that are told apart.
const (
	codeSuperseded   = "superseded"
	codePastDeadline = "past_deadline"
	codeBootAlive    = "boot_alive" // another process of this hostname has renewed its claim a moment ago
)

// renewClaim renews the claim at a third of its time. Only the news that somebody else holds the order, or that nobody
// wants it, ends the work: an absent manager-api changes nothing, and a passed deadline is seen by the rollout itself.
func (e *Engine) renewClaim(ctx context.Context, cancel context.CancelCauseFunc, j *job) {
	timer := time.NewTimer(j.ttl / 3)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := e.cfg.Now()
		k, err := e.cfg.Manager.Renew(ctx, j.order.OrderID, j.token)
		if fault.Is(err, fault.NotFound) || err != nil && fault.CodeOf(err) == codeSuperseded {
			cancel(fmt.Errorf("%w: %w", runtime.ErrSuperseded, err))
			return
		}
		j.noteRenewal(k, err, began, e.cfg.Now())
		timer.Reset(j.ttl / 3)
	}
}

// noteRenewal keeps what a renewal, asked for at began, brought: the order's deadline, which moves with its progress,
// or silence.
func (j *job) noteRenewal(k managerapi.Claim, err error, began, now time.Time) {
	switch {
	case err == nil && !k.Order.Deadline.IsZero():
		at := k.DeadlineAt(began)
		j.deadline.Store(&at)
	case fault.Is(err, fault.Unavailable):
		j.silentAt.Store(&now)
	}
}
