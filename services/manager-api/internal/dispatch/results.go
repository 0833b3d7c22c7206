package dispatch

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/rabbit"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

// results takes milestone results from the queues.
type results struct {
	apply   func(ctx context.Context, d engine.Delivered, r messages.Result) (engine.Applied, error)
	log     *zap.Logger
	metrics *metrics
}

// Handle turns one delivery into an effect. A delivery that cannot be read, or that holds a value which the database
// cannot store, is dead-lettered at once. One that is not ours is acked and counted. While the database is away the
// delivery is kept.
func (h *results) Handle(ctx context.Context, d *rabbit.Delivery) error {
	r, known, err := messages.DecodeResult(d.Body)
	if err != nil {
		h.metrics.results.WithLabelValues("invalid").Inc()
		return rabbit.Reject(fmt.Errorf("read result: %w", err))
	}
	if !known {
		h.metrics.results.WithLabelValues("unknown_event").Inc()
		return nil
	}
	actor := "executor:" + d.AppID // as it calls itself: whoever reaches the broker may use the name of a token
	applied, err := h.apply(db.WithActor(ctx, db.Actor{Name: actor}), engine.Delivered{MessageID: d.ID, Queue: d.Queue}, r)
	if fault.Is(err, fault.Unavailable) {
		return rabbit.Hold(err)
	}
	if fault.Is(err, fault.Invalid) || fault.Is(err, fault.TooLarge) { // no repeat makes the value storable
		h.metrics.results.WithLabelValues("invalid").Inc()
		return rabbit.Reject(err)
	}
	if err != nil {
		return err
	}
	h.metrics.results.WithLabelValues(string(applied)).Inc()
	if applied != engine.AppliedDone || r.EventType != messages.EventMilestoneProgress {
		h.log.Info("result received", append(boot.TraceFields(ctx), zap.String("order_id", r.OrderID),
			zap.String("workflow_id", r.WorkflowID),
			zap.String("event", r.EventType), zap.String("applied", string(applied)), zap.String("from", actor))...)
	}
	return nil
}
