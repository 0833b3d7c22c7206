package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/rabbit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

const maxResend = 5 * time.Second

// resultIDs is the name space of the message ids of results.
var resultIDs = uuid.MustParse("0d5b3c0e-6c1f-4f2b-9a43-5f6d3c7b8e21")

// resultMessage wraps a result. Its id is the same for every repeat.
func (e *Engine) resultMessage(res messages.Result) (rabbit.Message, error) {
	body, err := encode(res)
	if err != nil {
		return rabbit.Message{}, fmt.Errorf("encode result of order %s: %w", res.OrderID, err)
	}
	identity := fmt.Sprintf("%s/%d/%s/%t", res.OrderID, res.Token, res.EventType, res.Undone)
	return rabbit.Message{Exchange: e.cfg.Address.Root, Key: e.cfg.Address.Key(messages.QueueWorkflowOrchestration),
		ID: uuid.NewSHA1(resultIDs, []byte(identity)).String(), Type: messages.TypeMilestoneResult,
		CorrelationID: res.WorkflowID, AppID: e.cfg.Service + "/" + e.cfg.Hostname, Body: body}, nil
}

// encode leaves out what is least needed from a result that would not fit into a message. What was replaced goes late:
// the first deploy of a component is rolled back to it. It fits unless an earlier release began the work, which did not
// look.
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

// reportResult sends a result until the broker has it. A stop ends the attempts: what has a work file is sent at the
// next start, what has none is ordered again.
func (e *Engine) reportResult(ctx context.Context, j *job, res messages.Result) {
	m, err := e.resultMessage(res)
	if err != nil {
		e.log.Error("result cannot be sent", zap.Error(err))
		return
	}
	e.metrics.unsent.Inc()
	defer e.metrics.unsent.Dec()
	pause := 100 * time.Millisecond
	for try := 0; ; try++ {
		err := e.cfg.Broker.Publish(j.traced(ctx), m)
		if err == nil {
			e.confirmResult(j, res)
			return
		}
		if ctx.Err() != nil {
			return
		}
		if try == 0 {
			e.log.Warn("result not sent yet", zap.String("order_id", res.OrderID), zap.Error(err))
			if j.work != nil { // an undo that is repeated finds everything undone
				j.work.Result = keptResult(j.work, res)
				e.works.note(j.work, unsent)
			}
		}
		if !e.pause(ctx, pause) {
			if j.work == nil {
				e.giveBack(ctx, j)
			}
			return
		}
		pause = min(2*pause, maxResend)
	}
}

// keptResult is what the work file keeps of a result that is not sent yet. Of an undo that is the failure which led to
// it.
func keptResult(w *work, res messages.Result) *messages.Result {
	if w.Stage == undoing {
		return w.Result
	}
	return &res
}

// confirmResult ends the work on an order whose result the broker has. The file stays until manager-api has settled the
// order.
func (e *Engine) confirmResult(j *job, res messages.Result) {
	if j.work == nil {
		return
	}
	if res.Undone {
		e.metrics.undone.Inc()
		e.works.note(j.work, delivered)
		return
	}
	j.work.Result = &res
	if j.acted || j.work.ConfirmedAt.IsZero() { // an attempt that found everything done gives it no more time
		j.work.ConfirmedAt, j.quiet = e.cfg.Now().UTC(), time.Time{}
	}
	e.works.note(j.work, delivered)
	e.works.track(j.work, j.quiet)
}
