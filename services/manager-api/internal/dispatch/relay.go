package dispatch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/rabbit"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

const (
	relayBatch   = 100
	relayLease   = 30 * time.Second // how long a relay that died keeps what it had taken
	firstBackoff = time.Second
	maxBackoff   = 30 * time.Second
	behind       = 200 * time.Millisecond // a message behind one that did not go waits so long at least
)

// outbox is what a relay needs of the store.
type outbox interface {
	DueMessages(ctx context.Context, exchanges []component.ExchangeID, limit int, lease time.Duration) ([]db.DueMessage,
		error)
	MessagesConfirmed(ctx context.Context, ids []string) error
	MessageNotSent(ctx context.Context, id, outcome string, again time.Duration) error
}

// relay sends what the outbox holds for the exchanges of one route. Nothing is sent twice under another id; what is not
// confirmed stays and goes again under the same one.
type relay struct {
	outbox  outbox
	refuse  func(ctx context.Context, message, why string) error // what no broker takes goes, and its order with it
	appID   string
	log     *zap.Logger
	metrics *metrics
}

// pass sends until nothing is due.
func (r *relay) pass(ctx context.Context, l *link, exchanges []component.ExchangeID) error {
	for ctx.Err() == nil {
		due, err := r.outbox.DueMessages(ctx, exchanges, relayBatch, relayLease)
		if err != nil {
			return err
		}
		if err := r.send(ctx, l, due); err != nil {
			return err
		}
		if len(due) < relayBatch {
			return nil
		}
	}
	return nil
}

type lane struct {
	exchange component.ExchangeID
	queue    string
}

// send publishes in rounds: the first message of every exchange and queue, then the second. A lane stops at the first
// message that did not go, so that order holds.
func (r *relay) send(ctx context.Context, l *link, due []db.DueMessage) error {
	for len(due) > 0 {
		var round, later []db.DueMessage
		taken := map[lane]bool{}
		for _, m := range due {
			at := lane{m.ExchangeID, m.Queue}
			if taken[at] {
				later = append(later, m)
				continue
			}
			taken[at] = true
			round = append(round, m)
		}
		stopped, err := r.round(ctx, l, round)
		if err != nil {
			return err
		}
		due = due[:0]
		for _, m := range later {
			if !stopped[lane{m.ExchangeID, m.Queue}] {
				due = append(due, m)
				continue
			}
			if err := r.outbox.MessageNotSent(ctx, m.ID, "waits", behind); err != nil {
				return err
			}
		}
	}
	return nil
}

// round publishes at most one message per lane and records every outcome.
func (r *relay) round(ctx context.Context, l *link, round []db.DueMessage) (map[lane]bool, error) {
	batch := make([]rabbit.Message, len(round))
	for i, m := range round {
		batch[i] = r.message(m)
	}
	var confirmed []string
	stopped := map[lane]bool{}
	for i, err := range l.broker.PublishBatch(ctx, batch) {
		m, outcome := round[i], rabbit.OutcomeOf(err)
		r.metrics.relayed.WithLabelValues(outcome.String()).Inc()
		if outcome == rabbit.Confirmed {
			confirmed = append(confirmed, m.ID)
			continue
		}
		if errors.Is(err, rabbit.ErrUnpublishable) { // those behind it need not wait
			if err := r.unsendable(ctx, m, err); err != nil {
				return stopped, err
			}
			continue
		}
		stopped[lane{m.ExchangeID, m.Queue}] = true
		if outcome == rabbit.Returned || outcome == rabbit.Refused {
			r.log.Warn("message not taken", zap.String("message_id", m.ID),
				zap.String("queue", m.Address().QueueName("")+m.Queue), zap.Error(err))
		}
		// Detached: a stop must not leave the outcome unrecorded; the pool bounds the write.
		if err := r.outbox.MessageNotSent(context.WithoutCancel(ctx), m.ID, outcome.String(),
			backoff(m.Attempts)); err != nil {
			return stopped, err
		}
	}
	if len(confirmed) == 0 {
		return stopped, nil
	}
	if err := r.outbox.MessagesConfirmed(context.WithoutCancel(ctx), confirmed); err != nil {
		return stopped, fmt.Errorf("after the broker's confirm: %w", err)
	}
	return stopped, nil
}

// unsendable gives a message up, with its order, and says why.
func (r *relay) unsendable(ctx context.Context, m db.DueMessage, err error) error {
	why := err.Error()
	var publish *rabbit.PublishError
	if errors.As(err, &publish) {
		why = publish.Err.Error()
	}
	r.log.Error("message can never be sent", zap.String("message_id", m.ID), zap.String("type", m.Type),
		zap.String("correlation_id", m.CorrelationID), zap.String("reason", why))
	return r.refuse(context.WithoutCancel(ctx), m.ID, why)
}

func (r *relay) message(m db.DueMessage) rabbit.Message {
	a := m.Address()
	out := rabbit.Message{Exchange: a.Root, Key: a.Key(queueName(m.Queue)), ID: m.ID, Type: m.Type,
		CorrelationID: m.CorrelationID, AppID: r.appID, Body: m.Body}
	if m.Traceparent != "" {
		out.Headers = map[string]any{"traceparent": m.Traceparent}
	}
	return out
}

// backoff doubles from 1 s to 30 s, with jitter.
func backoff(attempts int) time.Duration {
	wait := firstBackoff << min(max(attempts-1, 0), 5)
	wait = min(wait, maxBackoff)
	return wait/2 + rand.N(wait/2)
}
