package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/rabbit"
	"github.com/openaperture/openaperture/pkg/roll"
	messages "github.com/openaperture/openaperture/proto-messages"
)

const (
	firstSettle = 250 * time.Millisecond // between two questions whether an order is settled,
	lastSettle  = 30 * time.Second       // doubled up to this
	maxResend   = 5 * time.Second
)

// resultIDs is the name space of the message ids of results.
var resultIDs = uuid.MustParse("0d5b3c0e-6c1f-4f2b-9a43-5f6d3c7b8e21")

// message wraps a result. Its id is the same for every repeat.
func (e *Engine) message(res messages.Result) (rabbit.Message, error) {
	body, err := encode(res)
	if err != nil {
		return rabbit.Message{}, fmt.Errorf("encode result of order %s: %w", res.OrderID, err)
	}
	identity := fmt.Sprintf("%s/%d/%s/%t", res.OrderID, res.Token, res.EventType, res.Undone)
	return rabbit.Message{Exchange: e.Address.Root, Key: e.Address.Key(messages.QueueWorkflowOrchestration), ID: uuid.NewSHA1(resultIDs, []byte(identity)).String(),
		Type: messages.TypeMilestoneResult, CorrelationID: res.WorkflowID, AppID: e.Service + "/" + e.Hostname, Body: body}, nil
}

// encode leaves out what is least needed from a result that would not fit into a message. What was replaced goes last: it
// is what the first deploy of a component is rolled back to, and fits unless an earlier release began the work, which did
// not look.
func encode(res messages.Result) ([]byte, error) {
	body, err := json.Marshal(res)
	if err != nil || len(body) <= messages.MaxBody {
		return body, err
	}
	res.Steps, res.Log = nil, ""
	if len(res.Message) > maxTail {
		res.Message = res.Message[:maxTail]
	}
	if body, err = json.Marshal(res); err != nil || len(body) <= messages.MaxBody {
		return body, err
	}
	res.Replaced = nil
	if body, err = json.Marshal(res); err != nil || len(body) <= messages.MaxBody {
		return body, err
	}
	res.Deployed = nil // thousands of instances: the proof then goes by their number
	return json.Marshal(res)
}

// report sends a result until the broker has it. A stop ends the attempts: what has a work file is sent at the next start,
// what has none is ordered again.
func (r *run) report(j *job, res messages.Result) {
	m, err := r.message(res)
	if err != nil {
		r.Log.Error("result cannot be sent", zap.Error(err))
		return
	}
	r.metrics.unsent.Inc()
	defer r.metrics.unsent.Dec()
	pause := 100 * time.Millisecond
	for try := 0; ; try++ {
		err := r.Broker.Publish(j.traced(r.hard), m)
		if err == nil {
			r.confirm(j, res)
			return
		}
		if r.hard.Err() != nil {
			return
		}
		if try == 0 {
			r.Log.Warn("result not sent yet", zap.String("order_id", res.OrderID), zap.Error(err))
			r.keepResult(j, res)
		}
		if !sleep(r.soft, pause) {
			r.leave(j)
			return
		}
		pause = min(2*pause, maxResend)
	}
}

// keepResult stores a result that the broker does not take at the moment.
func (r *run) keepResult(j *job, res messages.Result) {
	if j.work == nil || j.work.Stage == undoing { // an undo that is repeated finds everything undone
		return
	}
	j.work.Stage, j.work.Result = reported, &res
	if err := r.files.save(j.work, true); err != nil {
		r.Log.Error("result not saved", zap.Error(err))
	}
}

func (r *run) leave(j *job) {
	if j.work == nil {
		r.giveBack(j)
	}
}

// confirm ends the work on an order whose result the broker has. The file stays until manager-api has settled the order.
func (r *run) confirm(j *job, res messages.Result) {
	if j.work == nil {
		return
	}
	if res.Undone {
		r.metrics.undone.Inc()
		r.forget(j.work)
		return
	}
	j.work.Stage, j.work.Result = confirmed, &res
	if j.acted || j.work.ConfirmedAt.IsZero() { // an attempt that found everything done gives it no more time
		j.work.ConfirmedAt, j.work.quiet = r.Now().UTC(), time.Time{}
	}
	if err := r.files.save(j.work, false); err != nil { // not durable: the result would be sent again
		r.Log.Error("confirmation not saved", zap.Error(err))
	}
	r.track(j.work)
}

// settleAll asks for every confirmed order until it is settled, and undoes the deploy of a manager-api that is deaf or dead.
func (r *run) settleAll() error {
	pause := firstSettle
	for {
		timer := time.NewTimer(pause)
		select {
		case <-r.soft.Done():
			timer.Stop()
			return nil
		case <-r.wake:
			pause = firstSettle
		case <-timer.C:
			pause = min(2*pause, lastSettle)
		}
		timer.Stop()
		for _, w := range r.confirmed() {
			r.settleOne(w)
			if left := w.undoAt().Sub(r.Now()); left > 0 {
				pause = min(pause, left)
			}
		}
	}
}

// confirmed lists the work that is not settled.
func (e *Engine) confirmed() []*work {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]*work, 0, len(e.works))
	for _, w := range e.works {
		list = append(list, w)
	}
	e.metrics.waiting.Set(float64(len(list)))
	return list
}

// settleOne asks for one order and does what its fate is.
func (r *run) settleOne(w *work) {
	fate, _ := r.ask(w)
	switch {
	case r.soft.Err() != nil:
	case fate == drop:
		r.forgetGuarded(w)
	case fate == undo:
		r.undo(w)
	}
}

// ask finds the fate of a confirmed order; answered tells whether manager-api said anything about it. The time that leads
// to an undo begins anew while manager-api watches over the order, and after every gap in which it could not have learned
// of the result.
func (r *run) ask(w *work) (f fate, answered bool) {
	var view *managerapi.OrderView
	got, err := r.Manager.Order(r.soft, w.Order.OrderID)
	switch {
	case fault.Is(err, fault.NotFound):
		return drop, true
	case err == nil:
		view = &got
	}
	now, session := r.Now(), r.Broker.Session()
	if session != w.session || r.Broker.Ready() != nil || view != nil && view.Watched {
		r.mu.Lock()
		w.quiet, w.session = now, session
		r.mu.Unlock()
	}
	return settle(w, view, now), view != nil
}

// undo takes a confirmed deploy back, as soon as no other order is in hand and if it is still due then.
func (r *run) undo(w *work) {
	if r.acquire(r.soft) != nil {
		return
	}
	defer r.release()
	fate, answered := r.ask(w)
	if fate != undo || r.soft.Err() != nil || !r.unguard(w) { // while we waited, another attempt or a newer order may have ended the guard
		return // asked again soon
	}
	r.Log.Warn("order was not settled in time, its deploy is undone", zap.String("order_id", w.Order.OrderID), zap.Bool("manager_answers", answered))
	w.Stage, w.Progress, w.Silent = undoing, roll.Progress{}, !answered
	if err := r.files.save(w, true); err != nil {
		r.Log.Error("undo not saved", zap.Error(err))
	}
	r.perform(w.again(r.ClaimTTL))
}

// undoLater keeps the guard over a deploy whose undo could not be finished now. It stays due, and is tried again at the
// pace of the questions.
func (r *run) undoLater(w *work) {
	w.Stage = confirmed
	if w.quiet.IsZero() { // an earlier process had decided on it
		w.quiet, w.session = w.ConfirmedAt, r.Broker.Session()
	}
	if err := r.files.save(w, false); err != nil {
		r.Log.Error("undo not postponed", zap.Error(err))
	}
	r.guard(w)
}

// guardOrForget keeps the guard over a deploy of manager-api whose confirmation was lost together with this process.
func (r *run) guardOrForget(w *work) {
	ctx, cancel := context.WithTimeout(r.hard, r.Patience)
	defer cancel()
	view, err := r.Manager.Order(ctx, w.Order.OrderID)
	if err != nil || w.Order.ComponentType != string(component.Manager) || view.State != "completed" || view.Settled || view.Token > w.Token {
		r.forget(w)
		return
	}
	w.Stage, w.ConfirmedAt = confirmed, r.Now().UTC()
	w.Result = &messages.Result{EventType: messages.EventMilestoneCompleted}
	if err := r.files.save(w, false); err != nil {
		r.Log.Error("confirmation not saved", zap.Error(err))
	}
	r.track(w)
}
