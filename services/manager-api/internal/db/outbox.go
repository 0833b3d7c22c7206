package db

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/postgres"
	"github.com/openaperture/openaperture/pkg/rabbit"
	"go.opentelemetry.io/otel/propagation"

	messages "github.com/openaperture/openaperture/proto-messages"
)

const (
	// maxMessage is what a broker takes, in bytes; a larger message could never be sent.
	maxMessage = rabbit.MaxBody
	// maxGrowth is how much larger an order may be when it is sent again, with another attempt and another deadline.
	maxGrowth = 1 << 10
)

// ExpendableAfter is how long a doorbell waits for a broker before it is dropped: its receiver polls anyway.
const ExpendableAfter = time.Minute

// NewMessage is one message to be: its id is the message_id of every repeat.
type NewMessage struct {
	ExchangeID    component.ExchangeID
	Queue         messages.Queue
	Type          string
	CorrelationID string
	OrderID       string // of a milestone order
	Body          any
	Expendable    bool
	Again         bool // the order was sent before
}

// Enqueue puts a message into the outbox in the transaction of the change that it tells of. TooLarge: no broker would
// take it, and nothing is stored.
//
// What counts is the size as the database returns it. That is the size that is sent, and it may be larger than what is
// given here: a jsonb has spaces between its values, and 1e300 with all its digits.
func Enqueue(ctx context.Context, tx *sqlx.Tx, m NewMessage) error {
	raw, err := json.Marshal(m.Body)
	if err != nil {
		return fmt.Errorf("encode %s: %w", m.Type, err)
	}
	limit := maxMessage - maxGrowth
	if m.Again {
		limit = maxMessage
	}
	trace := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, trace)
	var order any
	if m.OrderID != "" {
		order = m.OrderID
	}
	var size int
	err = tx.GetContext(ctx, &size, `
		WITH message AS (SELECT $7::jsonb AS body), measured AS (SELECT octet_length(body::text) AS size FROM message),
		stored AS (
			INSERT INTO outbox (id, messaging_exchange_id, queue, type, correlation_id, traceparent, order_id, body,
				expendable)
			SELECT new_id(), $1::bigint, $2::text, $3::text, $4::text, $5::text, $6::uuid, body, $8::boolean
			FROM message, measured WHERE size <= $9)
		SELECT size FROM measured`,
		m.ExchangeID, string(m.Queue), m.Type, m.CorrelationID, trace.Get("traceparent"), order, string(raw),
		m.Expendable, limit)
	if err != nil {
		return fmt.Errorf("enqueue %s: %w", m.Type, err)
	}
	if size > limit {
		return fault.New(fault.TooLarge, "a %s of %d bytes exceeds the limit of %d", m.Type, size, limit).
			WithCode("message_too_large")
	}
	leaving.note(tx, m.ExchangeID)
	return nil
}

// RingOverseer tells the overseer of an exchange that something of a component changed. It only wakes: lost, it costs
// latency.
func RingOverseer(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, id component.ID, upgradeID string) error {
	return Enqueue(ctx, tx, NewMessage{ExchangeID: ex, Queue: messages.QueueOverseer, Type: messages.TypeChanged,
		CorrelationID: upgradeID, Expendable: true,
		Body: messages.OverseerMessage{Action: messages.ActionChanged,
			Options: messages.OverseerOptions{ComponentID: int64(id), UpgradeID: upgradeID}}})
}

// DueMessage is a message that is due, with the address of its exchange.
type DueMessage struct {
	ID            string               `db:"id"`
	ExchangeID    component.ExchangeID `db:"messaging_exchange_id"`
	Queue         string               `db:"queue"`
	Type          string               `db:"type"`
	CorrelationID string               `db:"correlation_id"`
	Traceparent   string               `db:"traceparent"`
	Body          json.RawMessage      `db:"body"`
	Attempts      int                  `db:"attempts"` // this one included
	Name          string               `db:"name"`
	Root          string               `db:"root_exchange_name"`
	RoutingKey    string               `db:"routing_key"`
}

// Address is how the target exchange is reached on its broker.
func (o DueMessage) Address() messages.Address {
	return messages.Address{Name: o.Name, Root: o.Root, RoutingKey: o.RoutingKey}
}

// DueMessages takes up to limit due messages of the given exchanges for the time of lease: until then, nobody else gets
// them; a relay that dies loses nothing. Per exchange and queue they come in order, and behind one that waits for its
// next attempt none is due. (Between replicas the order may break: receivers do not depend on it.)
func (s *DB) DueMessages(ctx context.Context, exchanges []component.ExchangeID, limit int,
	lease time.Duration) ([]DueMessage, error) {
	var due []DueMessage
	err := s.Pool.SelectContext(ctx, &due, `
		WITH due AS (
			SELECT o.id FROM outbox o
			WHERE o.published_at IS NULL AND o.next_attempt_at <= now() AND o.messaging_exchange_id = ANY($1)
			  AND NOT EXISTS (SELECT 1 FROM outbox e WHERE e.published_at IS NULL
			AND e.messaging_exchange_id = o.messaging_exchange_id
				AND e.queue = o.queue AND e.id < o.id AND e.next_attempt_at > now() AND e.outcome <> 'refused')
			ORDER BY o.id LIMIT $2 FOR UPDATE SKIP LOCKED),
		taken AS (
			UPDATE outbox o SET attempts = o.attempts + 1, next_attempt_at = now() + $3 * interval '1 millisecond'
			FROM due WHERE o.id = due.id RETURNING o.*)
		SELECT t.id, t.messaging_exchange_id, t.queue, t.type, t.correlation_id, t.traceparent, t.body, t.attempts,
			x.name, x.root_exchange_name, x.routing_key
		FROM taken t JOIN messaging_exchanges x ON x.id = t.messaging_exchange_id ORDER BY t.id`,
		pq.Array(ExchangeIDs(exchanges)), limit, lease.Milliseconds())
	if err != nil {
		return nil, fmt.Errorf("take due messages: %w", postgres.Translate(err))
	}
	return due, nil
}

// MessagesConfirmed records that the broker has confirmed these messages; the unclaimed time of their orders begins.
func (s *DB) MessagesConfirmed(ctx context.Context, ids []string) error {
	_, err := s.Pool.ExecContext(ctx, `
		WITH sent AS (UPDATE outbox SET published_at = now(), outcome = 'confirmed' WHERE id = ANY($1)
		AND published_at IS NULL RETURNING order_id)
		UPDATE orders SET confirmed_at = now() FROM sent WHERE orders.id = sent.order_id`, pq.Array(ids))
	if err != nil {
		return fmt.Errorf("record confirmed messages: %w", postgres.Translate(err))
	}
	return nil
}

// OrderOf returns the order that a message carries, "" if it carries none or is gone.
func OrderOf(ctx context.Context, tx *sqlx.Tx, message string) (string, error) {
	order, err := One[string](ctx, tx, `SELECT coalesce((SELECT order_id::text FROM outbox WHERE id = $1), '')`, message)
	if err != nil {
		return "", fmt.Errorf("read message %s: %w", message, err)
	}
	return order, nil
}

// DropMessage takes a message out of the outbox that was not published; false means that it was, or is gone.
func DropMessage(ctx context.Context, tx *sqlx.Tx, message string) (bool, error) {
	res, err := tx.ExecContext(ctx, `DELETE FROM outbox WHERE id = $1 AND published_at IS NULL`, message)
	if err != nil {
		return false, fmt.Errorf("drop message %s: %w", message, err)
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// MessageNotSent records why a message is not known to be in a queue and when it is tried again, under the same id.
func (s *DB) MessageNotSent(ctx context.Context, id, outcome string, again time.Duration) error {
	_, err := s.Pool.ExecContext(ctx, `UPDATE outbox
		SET outcome = $2, next_attempt_at = now() + $3 * interval '1 millisecond' WHERE id = $1 AND published_at IS NULL`,
		id, outcome, again.Milliseconds())
	if err != nil {
		return fmt.Errorf("postpone message %s: %w", id, postgres.Translate(err))
	}
	return nil
}

// Backlog is how many messages wait, and how old the oldest is, by exchange.
type Backlog struct {
	ExchangeID component.ExchangeID `db:"messaging_exchange_id"`
	Waiting    int                  `db:"waiting"`
	OldestMS   int64                `db:"oldest_ms"`
}

// Backlogs lists the exchanges for which messages wait.
func (s *DB) Backlogs(ctx context.Context) ([]Backlog, error) {
	var out []Backlog
	err := s.Pool.SelectContext(ctx, &out, `SELECT messaging_exchange_id, count(*) AS waiting,
			(extract(epoch FROM now() - min(created_at)) * 1000)::bigint AS oldest_ms
		FROM outbox WHERE published_at IS NULL GROUP BY messaging_exchange_id ORDER BY messaging_exchange_id`)
	if err != nil {
		return nil, fmt.Errorf("count waiting messages: %w", postgres.Translate(err))
	}
	return out, nil
}

// RecordMessage records a message id in the transaction of its effect; false means that the effect has happened
// already.
func RecordMessage(ctx context.Context, tx *sqlx.Tx, messageID string) (bool, error) {
	res, err := tx.ExecContext(ctx, `INSERT INTO inbox (message_id) VALUES ($1) ON CONFLICT DO NOTHING`, messageID)
	if err != nil {
		return false, fmt.Errorf("record message %s: %w", messageID, err)
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// ExchangeIDs converts ids for an array parameter.
func ExchangeIDs(ids []component.ExchangeID) []int64 {
	out := make([]int64, len(ids))
	for i, id := range ids {
		out[i] = int64(id)
	}
	return out
}
