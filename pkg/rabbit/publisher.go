package rabbit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Limits of the publisher.
const (
	nacksPerChannel = 10              // in a row, before a new channel; as many again, before a new session (T16)
	redeclareEvery  = 5 * time.Second // at most, when messages come back as unroutable (A8)
)

var (
	errChannelGone = errors.New("publish channel closed by the broker")
	errAllNacked   = errors.New("the broker refuses every message")
	errNoConfirms  = errors.New("the broker confirms nothing any more")
)

// publisher owns the publish channels of one session. All its methods run on one goroutine.
type publisher struct {
	broker   *Broker
	session  *session
	ready    func() // says once that the first channel is open
	ch       *amqp.Channel
	returns  chan amqp.Return
	closes   chan *amqp.Error
	settled  chan *flight        // confirms, nacks and losses, in any order; never blocks, as it holds a whole window
	flying   sync.WaitGroup      // goroutines that wait for a confirm
	inFlight int                 // written, not settled
	returned map[string][]string // message id to the broker's words, until its confirm comes
	nacks    int                 // in a row
	acked    bool                // at least one message on this channel
	progress time.Time           // of the last confirm, or of the first message that waits for one
	closing  error               // why the channel closed
	restored time.Time           // when the topology was last asked to be declared again
}

// flight is a written message that waits for its confirm.
type flight struct {
	request *request
	confirm *amqp.DeferredConfirmation
}

// servePublisher publishes until the session ends. A channel that the broker closes, or one that only nacks, is
// replaced; when the next one fares no better, so is the session.
func (b *Broker) servePublisher(ctx context.Context, s *session, open func()) error {
	p := &publisher{broker: b, session: s, ready: sync.OnceFunc(open)}
	fruitless := false
	for {
		err := p.serveChannel(ctx)
		if p.acked {
			fruitless = false
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case (errors.Is(err, errAllNacked) || errors.Is(err, errNoConfirms)) && !fruitless:
			fruitless = true
		case errors.Is(err, errChannelGone):
			if err := p.replant(err); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// serveChannel publishes on one channel until that is no use any more. Every request that it took is settled when it
// returns.
func (p *publisher) serveChannel(ctx context.Context) error {
	if err := p.open(); err != nil {
		return err
	}
	p.ready()
	defer p.landAll()
	patience := 2 * p.broker.cfg.PublishTimeout // all callers have given up by then
	check := time.NewTicker(patience)
	defer check.Stop()
	for p.nacks < nacksPerChannel {
		requests := p.broker.requests
		if p.session.blocked.Load() || p.inFlight >= p.broker.cfg.Window {
			requests = nil // callers wait, within their context: nothing is written into a blocked socket (T12)
		}
		select {
		case r := <-requests:
			p.send(r)
		case f := <-p.settled:
			p.land(f)
		case r, ok := <-p.returns:
			p.note(r, ok)
		case err, ok := <-p.closes:
			return p.end(p.gone(err, ok))
		case <-p.session.unblock:
		case now := <-check.C: // a window full of messages for a lost quorum would stop all others for ever
			if p.inFlight > 0 && now.Sub(p.progress) > patience && !p.session.blocked.Load() {
				return p.end(errNoConfirms)
			}
		case <-p.broker.publishing.renew:
			if err := p.session.declare(p.broker.currentTopology()); err != nil {
				return err
			}
		case <-p.session.done:
			return p.end(p.session.lost())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errAllNacked
}

// end remembers why the channel ends, for those whose messages are still in flight.
func (p *publisher) end(why error) error {
	p.closing = why
	return why
}

// landAll closes the channel, which fires every confirm that is still out, and settles them.
func (p *publisher) landAll() {
	p.session.closeChannel(p.ch)
	p.flying.Wait()
	for p.inFlight > 0 {
		p.land(<-p.settled)
	}
}

// open opens a channel in confirm mode. The buffer for returns holds a whole window, so the library's reader never
// waits (T11, T14).
func (p *publisher) open() error {
	ch, err := p.session.channel()
	if err != nil {
		return err
	}
	if err := p.session.guard(func() error { return ch.Confirm(false) }); err != nil {
		return fmt.Errorf("confirm mode: %w", err)
	}
	window := p.broker.cfg.Window
	p.ch, p.nacks, p.acked, p.closing = ch, 0, false, errChannelGone
	p.returns = ch.NotifyReturn(make(chan amqp.Return, 2*window))
	p.closes = ch.NotifyClose(make(chan *amqp.Error, 1))
	p.settled = make(chan *flight, window+1)
	p.returned = map[string][]string{}
	return nil
}

// send writes one message. Its write may take up to WriteTimeout, after which the session is over (T3).
func (p *publisher) send(r *request) {
	confirm, err := p.ch.PublishWithDeferredConfirm(r.exchange, r.key, true, false, r.message)
	if errors.Is(err, amqp.ErrClosed) { // noticed before the first byte
		r.settle(NotSent, fmt.Errorf("%w: %w", ErrUnavailable, err))
		return
	}
	if err != nil {
		r.settle(Unknown, fmt.Errorf("write: %w", err))
		return
	}
	if p.inFlight == 0 {
		p.progress = time.Now()
	}
	p.inFlight++
	f := &flight{request: r, confirm: confirm}
	p.flying.Go(func() {
		<-f.confirm.Done() // fires on confirm and nack, and when the channel ends
		p.settled <- f
	})
}

// land judges a message whose confirm has fired. Its return, if any, came before and waits in the buffer (T14).
func (p *publisher) land(f *flight) {
	p.inFlight--
	p.progress = time.Now()
	p.drainReturns()
	id := f.request.message.MessageId
	if words := p.returned[id]; len(words) > 0 {
		if p.returned[id] = words[1:]; len(words) == 1 {
			delete(p.returned, id)
		}
		f.request.settle(Returned, errors.New(words[0]))
		p.restore(f.request.key)
		return
	}
	switch {
	case f.confirm.Acked():
		p.nacks, p.acked = 0, true
		f.request.settle(Confirmed, nil)
	case p.ch.IsClosed(): // the library says "not acked" for every message that was in flight (T15)
		f.request.settle(Unknown, fmt.Errorf("no confirm: %w", p.closing))
	default:
		p.nacks++
		f.request.settle(Refused, errors.New("nacked by the broker"))
	}
}

func (p *publisher) drainReturns() {
	for {
		select {
		case r, ok := <-p.returns:
			p.note(r, ok)
			if !ok {
				return
			}
		default:
			return
		}
	}
}

// note keeps a return until the confirm of its message.
func (p *publisher) note(r amqp.Return, ok bool) {
	if !ok {
		p.returns = nil // closed with the channel
		return
	}
	p.returned[r.MessageId] = append(p.returned[r.MessageId], fmt.Sprintf("%s (%d)", r.ReplyText, r.ReplyCode))
}

// restore asks for what a message came back from to be declared again, now and then: the queue may have been deleted
// (A8).
func (p *publisher) restore(key string) {
	p.broker.doubt(func(t Topology) bool {
		return slices.ContainsFunc(t.Queues, func(q Queue) bool { return q.BindKey == key || q.Name == key })
	})
	p.redeclare()
}

func (p *publisher) redeclare() {
	if time.Since(p.restored) >= redeclareEvery {
		p.restored = time.Now()
		p.broker.consuming.redeclare()
	}
}

// replant declares the topology again, as an exchange may be missing, and of the parts no more than went with that
// exchange: publishing never waits for whole parts, of which there may be hundreds under one root. These are declared
// again with the other doubtful ones. What the broker refuses here it refuses there too, and there it is said whose it
// is.
func (p *publisher) replant(lost error) error {
	b := p.broker
	if err := p.session.declare(b.currentTopology()); err != nil {
		return err
	}
	exchange, affected := b.missing(lost)
	b.doubt(affected)
	p.redeclare()
	if exchange == "" {
		return nil
	}
	if err := p.session.declare(b.around(exchange)); err != nil && !refused(err) {
		return err
	}
	return nil
}

// gone says whether the channel alone is lost, or the session with it.
func (p *publisher) gone(err *amqp.Error, ok bool) error {
	if p.session.conn.IsClosed() {
		<-p.session.done
		return p.session.lost()
	}
	if !ok || err == nil {
		return errChannelGone
	}
	return fmt.Errorf("%w: %w", errChannelGone, err)
}
