package rabbit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/loop"
)

const (
	maxBackoff = 30 * time.Second
	holdLimit  = 20 * time.Minute // from receipt; the broker's consumer time-out is 30 minutes
)

// subscription is one consumer on one channel of one session. One goroutine runs loop and finish and owns the channel;
// the handler runs on another and sees deliveries only.
type subscription struct {
	broker     *Broker
	session    *session
	consumer   *consumer
	ch         *amqp.Channel
	deliveries <-chan amqp.Delivery
	closes     chan *amqp.Error
	cancels    chan string

	pending  []*Delivery // received, waiting for the handler, by rising tag
	busy     []*Delivery // with the handler
	later    []retry     // failed, waiting for their time
	next     time.Time   // of the handler, unless a whole batch is there
	failures int         // of the handler in a row
	result   chan error  // the handler's
	cancel   context.CancelCauseFunc
}

// retry is a delivery that is given to the handler again (hold) or back to the broker when its time has come.
type retry struct {
	delivery *Delivery
	due      time.Time
	hold     bool
}

// loop receives, hands over and settles until the subscription ends, and says why it ended.
func (s *subscription) loop(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s.dispatch(ctx)
		timer.Reset(s.untilDue())
		select {
		case d, ok := <-s.deliveries:
			if !ok {
				return s.whyClosed()
			}
			s.receive(d)
		case err := <-s.result:
			s.settle(err)
		case <-timer.C:
			s.retryDue(time.Now())
		case <-s.cancels:
			return errors.New("cancelled by the broker: the queue was deleted or its node was lost")
		case err := <-s.closes:
			return closedBy(err)
		case <-s.session.done:
			return s.session.lost()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// whyClosed prefers what the other signs say over the bare end of the deliveries.
func (s *subscription) whyClosed() error {
	if s.session.conn.IsClosed() {
		<-s.session.done
		return s.session.lost()
	}
	if s.ch.IsClosed() {
		return closedBy(<-s.closes) // closed by the library, with or without a value
	}
	return errors.New("deliveries ended: the queue was deleted or its node was lost")
}

func closedBy(err *amqp.Error) error {
	if err == nil {
		return errors.New("channel closed")
	}
	return fmt.Errorf("channel closed: %w", err)
}

// receive queues a delivery, or dead-letters one that is too large to be looked at (T19).
func (s *subscription) receive(d amqp.Delivery) {
	delivery := &Delivery{Queue: s.consumer.queue, Exchange: d.Exchange, Key: d.RoutingKey, ID: d.MessageId, Type: d.Type,
		CorrelationID: d.CorrelationId, AppID: d.AppId, ContentType: d.ContentType, Timestamp: d.Timestamp,
		Headers: d.Headers, Body: d.Body, Redelivered: d.Redelivered, Received: time.Now(), tag: d.DeliveryTag}
	if len(d.Body) > MaxBody {
		delivery.Reject(fmt.Errorf("body of %d bytes exceeds %d", len(d.Body), MaxBody))
		s.reject([]*Delivery{delivery})
		return
	}
	s.pending = append(s.pending, delivery)
}

// dispatch gives an idle handler the oldest deliveries, when it is time.
func (s *subscription) dispatch(ctx context.Context) {
	if s.busy != nil || len(s.pending) == 0 {
		return
	}
	n := min(s.consumer.most, len(s.pending))
	if s.consumer.pace > 0 {
		now := time.Now()
		if n < s.consumer.most && now.Before(s.next) {
			return
		}
		s.next = now.Add(s.consumer.pace)
	}
	s.busy, s.pending = s.pending[:n:n], s.pending[n:]
	// Detached from ctx: a stop lets the handler finish. It ends with the session, or when draining takes too long.
	handlerContext, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	s.cancel = cancel
	go func(batch []*Delivery) { s.result <- s.handle(handlerContext, batch) }(s.busy)
}

// handle calls the handler. A panic becomes an error: a poison message must not end the process (A13).
func (s *subscription) handle(ctx context.Context, batch []*Delivery) error {
	item := s.consumer.queue + " " + batch[0].ID
	return loop.Contain(ctx, "handler", item, func() error { return s.consumer.handle(ctx, batch) })
}

// settle is the one place that turns a handler's result into ack, requeue or dead-letter.
func (s *subscription) settle(err error) {
	batch := s.busy
	s.busy = nil
	s.cancel(nil)
	if s.ch.IsClosed() {
		s.count("", len(batch), ErrStale)
		return
	}
	var rejected rejection
	hopeless := errors.As(err, &rejected)
	var kept, dead []*Delivery
	for _, d := range batch {
		if hopeless {
			d.rejected = err
		}
		if d.rejected != nil {
			dead = append(dead, d)
		} else {
			kept = append(kept, d)
		}
	}
	s.reject(dead)
	if hopeless {
		return
	}
	if err == nil {
		s.failures = 0
		s.ack(kept)
		return
	}
	s.failures++
	s.postpone(kept, err)
}

// ack acknowledges with a single frame where that covers no delivery outside the batch, else one by one.
func (s *subscription) ack(batch []*Delivery) {
	if len(batch) > 1 && !s.openBelow(batch[len(batch)-1].tag) {
		last := batch[len(batch)-1].tag
		s.count("acked", len(batch), s.send(func() error { return s.ch.Ack(last, true) }))
		return
	}
	for _, d := range batch {
		s.count("acked", 1, s.send(func() error { return s.ch.Ack(d.tag, false) }))
	}
}

// openBelow reports whether a delivery with a lower tag than a batch's last is still to be handled: one that waits for
// its time, or whose time came while the batch was with the handler.
func (s *subscription) openBelow(tag uint64) bool {
	return len(s.pending) > 0 && s.pending[0].tag < tag ||
		slices.ContainsFunc(s.later, func(r retry) bool { return r.delivery.tag < tag })
}

// reject dead-letters deliveries one by one, or drops them where the queue has no dead letters, and logs the first: a
// flood of bad messages must not flood the log.
func (s *subscription) reject(dead []*Delivery) {
	for i, d := range dead {
		if i == 0 {
			s.broker.log.Warn(s.broker.rejectedTo(d.Queue), zap.String("queue", d.Queue), zap.Int("count", len(dead)),
				zap.String("message_id", d.ID), zap.Error(d.rejected))
		}
		s.count("rejected", 1, s.send(func() error { return s.ch.Reject(d.tag, false) }))
	}
}

// rejectedTo says what becomes of messages of a queue that are rejected.
func (b *Broker) rejectedTo(queue string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	queues := b.topology.Queues
	if p := b.partOf[queue]; p != nil {
		queues = p.topology.Queues
	}
	if slices.ContainsFunc(queues, func(q Queue) bool { return q.Name == queue && q.Kind == Beats }) {
		return "messages dropped"
	}
	return "messages dead-lettered"
}

// postpone plans the next try of each delivery, later with each failure.
func (s *subscription) postpone(batch []*Delivery, err error) {
	var held holding
	hold := errors.As(err, &held)
	now := time.Now()
	for i, d := range batch {
		wait := backoff(s.consumer.backoff, max(s.failures-1, deliveryCount(d)))
		s.later = append(s.later, retry{delivery: d, due: now.Add(wait), hold: hold && now.Sub(d.Received) < holdLimit})
		if i == 0 {
			s.broker.log.Warn("messages not handled", zap.String("queue", d.Queue), zap.Int("count", len(batch)),
				zap.String("message_id", d.ID), zap.Bool("held", hold), zap.Duration("again_in", wait), zap.Error(err))
		}
	}
}

// backoff doubles from first to 30 s.
func backoff(first time.Duration, times int) time.Duration {
	wait := first
	for ; times > 0 && wait < maxBackoff; times-- {
		wait *= 2
	}
	return min(wait, maxBackoff)
}

// deliveryCount is how often a quorum queue has handed the message out before.
func deliveryCount(d *Delivery) int {
	count, _ := d.Headers["x-delivery-count"].(int64)
	return int(count)
}

// untilDue is the time until something that waits is due: what was postponed, or a batch that is not full.
func (s *subscription) untilDue() time.Duration {
	wait := time.Hour
	if s.busy == nil && len(s.pending) > 0 {
		wait = max(time.Until(s.next), 0)
	}
	for _, r := range s.later {
		wait = min(wait, max(time.Until(r.due), 0))
	}
	return wait
}

// retryDue gives due deliveries back: to the handler, ahead of newer ones, or to the broker.
func (s *subscription) retryDue(now time.Time) {
	var again []*Delivery
	left := s.later[:0]
	for _, r := range s.later {
		switch {
		case r.due.After(now):
			left = append(left, r)
		case r.hold:
			again = append(again, r.delivery)
		default:
			s.count("requeued", 1, s.send(func() error { return s.ch.Nack(r.delivery.tag, false, true) }))
		}
	}
	s.later = left
	s.pending = append(s.pending, again...)
	slices.SortFunc(s.pending, func(a, b *Delivery) int { return cmp.Compare(a.tag, b.tag) })
}

// send sends an acknowledgement, unless the session that it belongs to is gone: then nothing is sent (T1).
func (s *subscription) send(acknowledge func() error) error {
	if s.ch.IsClosed() {
		return ErrStale
	}
	if err := acknowledge(); err != nil {
		return fmt.Errorf("%w: %w", ErrStale, err)
	}
	return nil
}

// count counts what became of n deliveries. A stale one is no failure: the broker hands it out again.
func (s *subscription) count(result string, n int, err error) {
	if err != nil {
		result = "stale"
		s.broker.log.Debug("acknowledgement not sent", zap.String("queue", s.consumer.queue), zap.Error(err))
	}
	s.broker.metrics.deliveries.WithLabelValues(s.broker.cfg.Name, s.consumer.queue, result).Add(float64(n))
}

// finish ends the subscription: no more messages, then the running handler is waited for. On a stop it may finish and
// is acknowledged; after a loss its context ends at once, as its work will be done again.
func (s *subscription) finish(ctx context.Context, tag string, why error) error {
	stopping := ctx.Err() != nil && !s.ch.IsClosed()
	if stopping {
		_ = s.session.guard(func() error { return s.ch.Cancel(tag, false) }) // not returned: the channel is closed next
	}
	if s.busy == nil {
		return why
	}
	defer s.cancel(nil)
	if stopping {
		select {
		case err := <-s.result:
			s.settle(err)
			return why
		case <-time.After(s.broker.cfg.DrainTimeout):
			s.cancel(context.Canceled)
		case <-s.session.done:
		}
	}
	s.cancel(ErrStale) // the first cause stays
	return s.abandon(ctx, why)
}

// forsake tells a handler that is still at work that its subscription is gone; a panic of the subscription leaves one.
func (s *subscription) forsake() {
	if s.cancel != nil {
		s.cancel(ErrStale) // does nothing after the first cause
	}
}

// abandon waits for a handler whose context has ended: for as long as the process wants to go on, else DrainTimeout.
func (s *subscription) abandon(ctx context.Context, why error) error {
	select {
	case err := <-s.result:
		s.settle(err) // stale, unless the handler was merely slow to stop
		return why
	case <-ctx.Done():
	}
	select {
	case err := <-s.result:
		s.settle(err)
		return why
	case <-time.After(s.broker.cfg.DrainTimeout):
		return fmt.Errorf("queue %s: %w", s.consumer.queue, ErrAbandoned)
	}
}
