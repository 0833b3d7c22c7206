package rabbit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Message is what a caller publishes. It is sent persistent and mandatory.
type Message struct {
	Exchange      string
	Key           string
	ID            string // message id; a repeat carries the same. "" gets a fresh UUIDv7
	Type          string
	CorrelationID string
	AppID         string
	ContentType   string    // "" means application/json
	Timestamp     time.Time // zero means now; the wire keeps whole seconds
	Headers       map[string]any
	Body          []byte // at most MaxBody
}

// Outcome is what is known about a publish.
type Outcome int

// The outcomes. Only Confirmed is success; Unknown alone may be in a queue nevertheless.
const (
	Confirmed Outcome = iota // in a queue, safely
	Returned                 // the broker has no queue for it (T13); nothing was stored
	Refused                  // nacked, or not publishable at all (too large, bad header)
	NotSent                  // never written: no connection, blocked, or the context ended first
	Unknown                  // written, but no confirm came: send it again under the same ID (T15)
)

var outcomeNames = []string{"confirmed", "returned", "refused", "not_sent", "unknown"}

// String returns the outcome's name as metrics show it.
func (o Outcome) String() string {
	if o < 0 || int(o) >= len(outcomeNames) {
		return "invalid"
	}
	return outcomeNames[o]
}

// ErrUnpublishable is wrapped by the Refused errors of messages that no broker would ever take: too large, or with a
// property that AMQP cannot carry. Trying again is of no use.
var ErrUnpublishable = errors.New("not publishable")

// ErrUnavailable is wrapped by every NotSent error that trying again later may cure.
var ErrUnavailable = errors.New("broker unavailable")

// PublishError says that a message is not known to be in a queue.
type PublishError struct {
	Outcome  Outcome // never Confirmed
	Exchange string
	Key      string
	Err      error
}

// Error names outcome, address and reason.
func (e *PublishError) Error() string {
	return fmt.Sprintf("publish to %s with key %s: %s: %v", e.Exchange, e.Key, e.Outcome, e.Err)
}

// Unwrap returns the reason.
func (e *PublishError) Unwrap() error { return e.Err }

// OutcomeOf returns the outcome that an error of Publish stands for: Confirmed for nil, Unknown for a foreign error.
func OutcomeOf(err error) Outcome {
	if err == nil {
		return Confirmed
	}
	var p *PublishError
	if errors.As(err, &p) {
		return p.Outcome
	}
	return Unknown
}

// Publish sends one message and waits for its outcome: nil means Confirmed, anything else is a *PublishError. Without a
// connection it fails at once. It returns when ctx ends, and after Config.PublishTimeout at the latest.
func (b *Broker) Publish(ctx context.Context, m Message) error {
	return b.PublishBatch(ctx, []Message{m})[0]
}

// PublishBatch sends many messages with up to Config.Window of them in flight, and returns one result per message in
// their order, each as Publish would. Config.PublishTimeout bounds the whole batch.
func (b *Broker) PublishBatch(ctx context.Context, messages []Message) []error {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.PublishTimeout)
	defer cancel()
	requests := make([]*request, len(messages))
	for i, m := range messages {
		requests[i] = newRequest(ctx, m)
		b.submit(ctx, requests[i])
	}
	results := make([]error, len(messages))
	for i, r := range requests {
		outcome, err := r.wait(ctx)
		b.metrics.publishes.WithLabelValues(b.cfg.Name, outcome.String()).Inc()
		if outcome != Confirmed {
			results[i] = &PublishError{Outcome: outcome, Exchange: messages[i].Exchange, Key: messages[i].Key, Err: err}
		}
	}
	return results
}

// submit hands a request to the goroutine that owns the channel, or settles it when there is none.
func (b *Broker) submit(ctx context.Context, r *request) {
	if err := r.publishable(); err != nil {
		r.settle(Refused, fmt.Errorf("%w: %w", ErrUnpublishable, err))
		return
	}
	s := b.publishSession()
	if s == nil {
		r.settle(NotSent, fmt.Errorf("%w: %s", ErrUnavailable, b.whyNotPublishing()))
		return
	}
	if ctx.Err() != nil { // else the select below might still hand it over
		r.settle(NotSent, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err()))
		return
	}
	select {
	case b.requests <- r:
	case <-s.done:
		r.settle(NotSent, fmt.Errorf("%w: %w", ErrUnavailable, s.lost()))
	case <-ctx.Done():
		r.settle(NotSent, fmt.Errorf("%w: %s: %w", ErrUnavailable, b.whyNotPublishing(), ctx.Err()))
	}
}

func (b *Broker) publishSession() *session {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.publishing.current
}

func (b *Broker) whyNotPublishing() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.publishing.state == Open {
		return "too many messages in flight"
	}
	return fmt.Sprintf("%s: %s", b.publishing.state, b.publishing.reason)
}

// request is one message on its way, shared by the caller and the goroutine that owns the channel.
type request struct {
	exchange, key string
	message       amqp.Publishing
	result        chan verdict // buffered: settled at most once
}

type verdict struct {
	outcome Outcome
	err     error
}

func newRequest(ctx context.Context, m Message) *request {
	if m.ID == "" {
		m.ID = uuid.Must(uuid.NewV7()).String()
	}
	if m.ContentType == "" {
		m.ContentType = "application/json"
	}
	if m.Timestamp.IsZero() {
		m.Timestamp = time.Now()
	}
	return &request{exchange: m.Exchange, key: m.Key, result: make(chan verdict, 1), message: amqp.Publishing{
		MessageId: m.ID, Type: m.Type, CorrelationId: m.CorrelationID, AppId: m.AppID, ContentType: m.ContentType,
		Timestamp: m.Timestamp.UTC(), Headers: inject(ctx, m.Headers), Body: m.Body, DeliveryMode: amqp.Persistent}}
}

// maxShort is what a name, a key or a property may have in AMQP, in bytes. A longer one would end the session in
// mid-write.
const maxShort = 255

// publishable says what AMQP or our own limit has against the message.
func (r *request) publishable() error {
	if len(r.message.Body) > MaxBody {
		return fmt.Errorf("body of %d bytes exceeds %d", len(r.message.Body), MaxBody)
	}
	if err := r.message.Headers.Validate(); err != nil {
		return fmt.Errorf("headers: %w", err)
	}
	for _, short := range []struct{ name, value string }{
		{"exchange", r.exchange}, {"routing key", r.key}, {"message id", r.message.MessageId}, {"type", r.message.Type},
		{"correlation id", r.message.CorrelationId}, {"app id", r.message.AppId}, {"content type", r.message.ContentType},
	} {
		if len(short.value) > maxShort {
			return fmt.Errorf("%s of %d bytes exceeds %d", short.name, len(short.value), maxShort)
		}
	}
	return nil
}

func (r *request) settle(o Outcome, err error) { r.result <- verdict{o, err} }

// wait returns the verdict. When ctx ends before it, the message was handed over for writing and its fate is unknown.
func (r *request) wait(ctx context.Context) (Outcome, error) {
	select {
	case v := <-r.result:
		return v.outcome, v.err
	default:
	}
	select {
	case v := <-r.result:
		return v.outcome, v.err
	case <-ctx.Done():
	}
	return Unknown, fmt.Errorf("no confirm: %w", ctx.Err())
}
