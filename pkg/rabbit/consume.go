package rabbit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/loop"
)

// ErrStale is the cause with which a handler's context ends when the session of its delivery dies: nothing can be
// acknowledged any more, the broker hands the message out again (T1).
var ErrStale = errors.New("delivery belongs to a lost session")

// ErrAbandoned is returned when a handler did not return within the drain time although its context was cancelled.
var ErrAbandoned = errors.New("handler abandoned")

// Delivery is one message as a handler sees it. Properties that the sender left out are zero.
type Delivery struct {
	Queue, Exchange, Key string
	ID                   string // message id; deduplicate by it
	Type                 string
	CorrelationID        string
	AppID                string
	ContentType          string
	Timestamp            time.Time // the sender's clock
	Headers              map[string]any
	Body                 []byte
	Redelivered          bool      // false proves that it is new to all; true proves nothing (T27)
	Received             time.Time // when it came here

	tag      uint64
	rejected error // set by Reject
}

// Reject marks one delivery of a batch as hopeless: it is dead-lettered though the batch succeeds.
func (d *Delivery) Reject(reason error) {
	if reason == nil {
		reason = errors.New("rejected")
	}
	d.rejected = reason
}

type rejection struct{ error }

func (r rejection) Unwrap() error { return r.error }

// Reject wraps a handler's error to say: this message will never succeed, dead-letter it at once. A Beats queue has no
// dead letters: what is rejected there is gone.
func Reject(err error) error { return rejection{err} }

type holding struct{ error }

func (h holding) Unwrap() error { return h.error }

// Hold wraps a handler's error to say: not the message is at fault but something that it needs is away (database,
// manager-api). The delivery is kept and the handler is called with it again after a back-off. This does not count
// towards the queue's delivery limit. After 20 minutes, well before the broker's consumer time-out (T22), the message
// is requeued instead, which does count: an outage of more than 20 minutes times the limit (about 7 hours) dead-letters
// it.
func Hold(err error) error { return holding{err} }

// Consumer is a subscription that handles one message at a time.
type Consumer struct {
	Queue    string
	Prefetch int // messages held here un-acked; 0 means 1, right for work queues (T25)
	// Handle's result decides: nil acks; Reject dead-letters; Hold calls again later; any other error, and a panic,
	// requeues after a back-off, until the queue's delivery limit dead-letters the message. It may block as long as it
	// wants (up to the broker's consumer time-out of 30 minutes) and must return soon when ctx ends.
	Handle  func(ctx context.Context, d *Delivery) error
	Backoff time.Duration // before the first retry, doubled for each further one up to 30 s; 0 means 1 s
}

// BatchConsumer is a subscription that hands over whatever has arrived while the handler was busy. A handler that has
// rested gets the first message at once, so batching costs an idle queue no latency.
type BatchConsumer struct {
	Queue    string
	Prefetch int           // 0 means 1000
	MaxBatch int           // 0 means Prefetch, and no more than that
	Pace     time.Duration // at least so long between two calls, unless a whole batch is there
	// Handle gets 1 to MaxBatch deliveries in the order of arrival. Its result counts for all of them as for a Consumer,
	// except those that were marked with Delivery.Reject.
	Handle  func(ctx context.Context, batch []*Delivery) error
	Backoff time.Duration // as in Consumer
}

// Consume handles messages of one queue until ctx ends, over as many sessions as it takes: it subscribes anew after a
// lost connection, a closed channel, a cancel notice or a deleted queue (T21, A8). When ctx ends it takes no more
// messages and gives the running handler DrainTimeout to finish. It returns nil then, or ErrAbandoned.
func (b *Broker) Consume(ctx context.Context, c Consumer) error {
	handle := func(ctx context.Context, batch []*Delivery) error {
		return c.Handle(extract(ctx, batch[0].Headers), batch[0])
	}
	return b.consume(ctx, &consumer{queue: c.Queue, prefetch: max(c.Prefetch, 1), most: 1, handle: handle,
		backoff: c.Backoff})
}

// ConsumeBatch is Consume for batches.
func (b *Broker) ConsumeBatch(ctx context.Context, c BatchConsumer) error {
	if c.Prefetch <= 0 {
		c.Prefetch = 1000
	}
	if c.MaxBatch <= 0 || c.MaxBatch > c.Prefetch {
		c.MaxBatch = c.Prefetch
	}
	return b.consume(ctx, &consumer{queue: c.Queue, prefetch: c.Prefetch, most: c.MaxBatch, pace: c.Pace,
		handle: c.Handle, backoff: c.Backoff})
}

// consumer is one call of Consume or ConsumeBatch.
type consumer struct {
	queue    string
	prefetch int
	most     int // deliveries per call of handle
	pace     time.Duration
	handle   func(context.Context, []*Delivery) error
	backoff  time.Duration
	epoch    uint64 // of the Broker when it last began or ceased to hear; guarded by Broker.mu
}

// tagOf names a subscription to those who look at the broker: "overseer system_modules". Exchange and whole queue stand
// beside it there; with them it could be longer than the 255 bytes that a tag may have.
func tagOf(name, queue string) string {
	service, _, _ := strings.Cut(name, "@")
	return service + " " + queue[strings.LastIndexByte(queue, '.')+1:]
}

func (b *Broker) consume(ctx context.Context, c *consumer) error {
	if c.backoff <= 0 {
		c.backoff = time.Second
	}
	b.addConsumer(c)
	defer b.removeConsumer(c)
	var fault string // logged once per text, and with every subscription that ended
	for failures := 0; ; failures++ {
		s := b.consumeSession(ctx, c.queue)
		if s == nil {
			return nil
		}
		began := time.Now()
		err := loop.Contain(ctx, "subscription", c.queue, func() error { return b.subscribe(ctx, s, c) })
		b.setSubscribed(c, false)
		if errors.Is(err, ErrAbandoned) {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > steady {
			failures, fault = 0, ""
		}
		if text := scrub(err.Error(), b.addresses); text != fault {
			fault = text
			b.log.Warn("subscription ended", zap.String("queue", c.queue), zap.String("reason", text))
		}
		if !s.over() {
			b.mend(ctx, s, c.queue, failures)
		}
	}
}

// mend declares the topology again, and the part that has the queue, on a session that has lost a subscription only:
// the queue may have been deleted. After the first time it waits longer and longer.
func (b *Broker) mend(ctx context.Context, s *session, queue string, failures int) {
	if failures > 0 {
		limit := min(500*time.Millisecond<<min(failures, 6), b.cfg.MaxRedial)
		timer := time.NewTimer(time.Duration((0.5 + rand.Float64()/2) * float64(limit)))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.done:
			return
		case <-ctx.Done():
			return
		}
	}
	err := s.declare(b.currentTopology())
	if err == nil {
		err = b.declareParts(s, func(p *part) bool { return p == b.partOf[queue] })
	}
	if err != nil {
		s.fail(err)
	}
}

// consumeSession waits for an open consume connection and for the part that has the queue; nil when ctx ends first.
func (b *Broker) consumeSession(ctx context.Context, queue string) *session {
	for {
		changed := b.Watch()
		b.mu.Lock()
		s, usable := b.consuming.current, b.usable(queue)
		b.mu.Unlock()
		if ctx.Err() != nil {
			return nil
		}
		if s != nil && usable && !s.over() {
			return s
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// serveConsumers lets the consumers use the session until it ends, and declares on it a new topology, the parts that
// lack, and now and then those that were refused.
func (b *Broker) serveConsumers(ctx context.Context, s *session, open func()) error {
	open()
	again := time.NewTicker(b.cfg.RefusedRetry)
	defer again.Stop()
	for {
		select {
		case <-s.done:
			return s.lost()
		case err := <-s.failed:
			return err
		case <-b.consuming.renew:
			if err := b.declare(s, lacking); err != nil {
				return err
			}
		case <-again.C:
			if err := b.declareParts(s, lacking); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// subscribe consumes on one channel of one session until any of the four signs of an end (T21), and never returns nil.
func (b *Broker) subscribe(ctx context.Context, s *session, c *consumer) error {
	ch, err := s.channel()
	if err != nil {
		return err
	}
	defer s.closeChannel(ch) // gives back what was not settled
	if err := s.guard(func() error { return ch.Qos(c.prefetch, 0, false) }); err != nil {
		return fmt.Errorf("limit prefetch: %w", err)
	}
	sub := &subscription{broker: b, session: s, consumer: c, ch: ch, result: make(chan error, 1),
		closes: ch.NotifyClose(make(chan *amqp.Error, 1)), cancels: ch.NotifyCancel(make(chan string, 1))}
	tag := tagOf(b.cfg.Name, c.queue)
	err = s.guard(func() error {
		var err error
		sub.deliveries, err = ch.Consume(c.queue, tag, false, false, false, false, nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("consume %s: %w", c.queue, err)
	}
	defer sub.forsake()
	b.setSubscribed(c, true)
	b.log.Debug("subscribed", zap.String("queue", c.queue))
	err = sub.loop(ctx)
	b.setSubscribed(c, false)
	return sub.finish(ctx, tag, err)
}
