package deploy

import (
	"context"
	"time"

	"go.uber.org/zap"

	messages "github.com/openaperture/openaperture/proto-messages"
)

const (
	tellLimit = 3 * time.Second
	// tellSeldom is for an order that states no progress deadline.
	tellSeldom = 5 * time.Minute
)

// tellEvery is how often manager-api hears of an order at least, as long as its executor works as it should. A deadline
// of manager-api thus never passes because an instance takes its health_deadline, however close to progress_deadline
// that is.
func tellEvery(o messages.Order) time.Duration {
	if every := o.ProgressDeadline() / 4; every > 0 {
		return every
	}
	return tellSeldom
}

// untilTold is the time until manager-api is to hear of an order again.
func (e *Engine) untilTold(j *job) time.Duration {
	return j.told.Add(tellEvery(j.order)).Sub(e.cfg.Now())
}

// tellIfDue tells manager-api of progress if the last news is long ago.
func (e *Engine) tellIfDue(ctx context.Context, j *job) {
	if e.untilTold(j) <= 0 {
		e.tellProgress(ctx, j)
	}
}

// tellProgress tells manager-api that the executor works on an order: it takes a step, waits for an instance within the
// instance's deadline, or has the order wait in line. The news is not repeated: the next one follows. Of an order whose
// result is decided there is none.
func (e *Engine) tellProgress(ctx context.Context, j *job) {
	j.told = e.cfg.Now()
	if !j.claimed() || e.cfg.Broker.Ready() != nil {
		return
	}
	m, err := e.resultMessage(messages.Result{EventType: messages.EventMilestoneProgress, OrderID: j.order.OrderID,
		WorkflowID: j.order.WorkflowID, Attempt: j.order.Attempt, Token: j.token, At: j.told.UTC()})
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, tellLimit)
		defer cancel()
		m.ID = "" // each one is new
		err = e.cfg.Broker.Publish(ctx, m)
	}
	if err != nil {
		e.log.Debug("progress not told", zap.String("order_id", j.order.OrderID), zap.Error(err))
	}
}
