package rabbit

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Topology is everything that a service declares, in one table (docs/messaging.md#topology). It is declared on every
// session and before the first subscription, idempotently, always in the same order: exchanges, their bindings, queues,
// their bindings. What the broker refuses of it ends the session; a service that serves several exchanges has SetParts
// for them.
type Topology struct {
	Exchanges []Exchange
	Queues    []Queue
}

// Exchange is a durable topic exchange. With a Parent, messages that the parent receives under BindKey
// (`<child routing key>.#`) reach it too.
type Exchange struct {
	Name    string
	Parent  string
	BindKey string
}

// Kind is the sort of queue. A queue's arguments never change under its name.
type Kind int

const (
	// Work is a durable quorum queue with a delivery limit. What is rejected, or delivered too often, goes at least once
	// to the dead-letter queue `<name>_error`, which is declared with it (T20, T23).
	Work Kind = iota
	// Beats is a durable classic queue whose messages expire after TTL and whose oldest message makes room: a backlog
	// never revives the dead (HB7).
	Beats
)

// Limits of queues, part of their arguments.
const (
	DefaultDeliveryLimit = 20               // deliveries of one message in a Work queue before it is dead-lettered
	DefaultTTL           = 60 * time.Second // of a message in a Beats queue
	beatsMaxLength       = 500_000
	deadLetterMaxLength  = 100_000
)

// Queue is one queue and its binding.
type Queue struct {
	Name          string
	Kind          Kind
	DeliveryLimit int           // Work; 0 means DefaultDeliveryLimit
	TTL           time.Duration // Beats; 0 means DefaultTTL
	BindExchange  string        // "" leaves the queue unbound
	BindKey       string
}

// DeadLetterName returns the name of the dead-letter queue that belongs to a Work queue.
func DeadLetterName(queue string) string { return queue + "_error" }

// arguments returns the x-arguments of the queue and those of its dead-letter queue (nil when it has none).
func (q Queue) arguments() (amqp.Table, amqp.Table) {
	if q.Kind == Beats {
		ttl := q.TTL
		if ttl == 0 {
			ttl = DefaultTTL
		}
		return amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeClassic, amqp.QueueMessageTTLArg: ttl.Milliseconds(),
			amqp.QueueMaxLenArg: int64(beatsMaxLength)}, nil
	}
	limit := q.DeliveryLimit
	if limit == 0 {
		limit = DefaultDeliveryLimit
	}
	own := amqp.Table{
		amqp.QueueTypeArg:           amqp.QueueTypeQuorum,
		"x-delivery-limit":          int64(limit),
		"x-dead-letter-exchange":    "",
		"x-dead-letter-routing-key": DeadLetterName(q.Name),
		"x-dead-letter-strategy":    "at-least-once",
		amqp.QueueOverflowArg:       amqp.QueueOverflowRejectPublish, // at-least-once demands it
	}
	return own, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum, amqp.QueueMaxLenArg: int64(deadLetterMaxLength)}
}

// declare declares the whole topology on a throw-away channel, so that a refusal kills nothing else (T29).
func (s *session) declare(t Topology) error {
	ch, err := s.channel()
	if err != nil {
		return fmt.Errorf("declare topology: %w", err)
	}
	defer s.closeChannel(ch)
	for _, e := range t.Exchanges {
		err := s.guard(func() error { return ch.ExchangeDeclare(e.Name, amqp.ExchangeTopic, true, false, false, false, nil) })
		if err != nil {
			return declarationError("exchange", e.Name, "durable topic", err)
		}
	}
	for _, e := range t.Exchanges {
		if e.Parent == "" {
			continue
		}
		err := s.guard(func() error { return ch.ExchangeBind(e.Name, e.BindKey, e.Parent, false, nil) })
		if err != nil {
			return fmt.Errorf("bind exchange %s to %s: %w", e.Name, e.Parent, err)
		}
	}
	for _, q := range t.Queues {
		if err := s.declareQueue(ch, q); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) declareQueue(ch *amqp.Channel, q Queue) error {
	own, deadLetter := q.arguments()
	if deadLetter != nil {
		if err := s.queueDeclare(ch, DeadLetterName(q.Name), deadLetter); err != nil {
			return err
		}
	}
	if err := s.queueDeclare(ch, q.Name, own); err != nil {
		return err
	}
	if q.BindExchange == "" {
		return nil
	}
	err := s.guard(func() error { return ch.QueueBind(q.Name, q.BindKey, q.BindExchange, false, nil) })
	if err != nil {
		return fmt.Errorf("bind queue %s to %s: %w", q.Name, q.BindExchange, err)
	}
	return nil
}

func (s *session) queueDeclare(ch *amqp.Channel, name string, arguments amqp.Table) error {
	err := s.guard(func() error {
		_, err := ch.QueueDeclare(name, true, false, false, false, arguments)
		return err
	})
	if err != nil {
		return declarationError("queue", name, "durable, "+describe(arguments), err)
	}
	return nil
}

// declarationError keeps a refused declaration apart from a broken connection.
func declarationError(kind, name, arguments string, err error) error {
	var refusal *amqp.Error
	if errors.As(err, &refusal) && refusal.Server && refusal.Code == amqp.PreconditionFailed {
		return &MisconfiguredError{Kind: kind, Name: name, Arguments: arguments, Server: refusal.Reason}
	}
	return fmt.Errorf("declare %s %s: %w", kind, name, err)
}

func describe(arguments amqp.Table) string {
	parts := make([]string, 0, len(arguments))
	for k, v := range arguments {
		parts = append(parts, fmt.Sprintf("%s=%v", k, v))
	}
	sort.Strings(parts)
	return strings.Join(parts, ", ")
}
