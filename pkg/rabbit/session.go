package rabbit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/openaperture/openaperture/pkg/loop"
)

// steady is how long a session must have lasted for its loss to count as a new outage.
const steady = 10 * time.Second

var (
	errConnectionClosed = errors.New("connection closed")
	errStopped          = errors.New("stopped")
	errDialing          = errors.New("dialing for the first time")
)

// server uses a session while it lasts; its return ends the session. It calls open when the session is fit for use.
type server func(ctx context.Context, s *session, open func()) error

// link is one of the two connections of a Broker: a loop that dials, declares, serves, and begins again.
type link struct {
	broker  *Broker
	role    string // "publish" or "consume"
	serve   server
	declare func(s *session) error // what a session begins with
	renew   chan struct{}          // the topology is to be declared again

	state   State    // guarded by Broker.mu, as are the next two
	reason  string   // of the last failure, "" while open
	current *session // nil unless open
}

func newLink(b *Broker, role string, declare func(*session) error, serve server) *link {
	l := &link{broker: b, role: role, declare: declare, serve: serve, renew: make(chan struct{}, 1),
		state: Closed, reason: "not started"}
	b.metrics.state(b.cfg.Name, role, Closed)
	return l
}

func (l *link) redeclare() {
	select {
	case l.renew <- struct{}{}:
	default: // one is pending: it reads the newest topology
	}
}

// run redials for ever, until ctx ends.
func (l *link) run(ctx context.Context) {
	b := l.broker
	b.setState(l, Connecting, errDialing)
	down := time.Now()
	refusals := 0 // in a row
	for attempt := 0; ctx.Err() == nil; attempt++ {
		if attempt > 0 {
			b.metrics.redials.WithLabelValues(b.cfg.Name, l.role).Inc()
		}
		opened := time.Now()
		err := loop.Contain(ctx, "broker connection", b.cfg.Name+" "+l.role, func() error { return l.once(ctx, attempt) })
		if time.Since(opened) > steady {
			down = time.Now()
		}
		if ctx.Err() != nil {
			break
		}
		state := stateOf(err)
		b.setState(l, state, err)
		if refusals++; !state.refused() {
			refusals = 0
		}
		if refusals%len(b.addresses) != 0 {
			state = Connecting // another node has not been asked yet: this one may just be starting
		}
		l.pause(ctx, redialDelay(state, time.Since(down), b.cfg, rand.Float64()))
	}
	b.setState(l, Closed, errStopped)
}

// redialDelay is full jitter up to an eighth of the outage, within 0.1 s and MaxRedial: a restart is noticed at once,
// a long outage costs next to nothing (T2). What a person must mend is tried at RefusedRetry.
func redialDelay(s State, outage time.Duration, c Config, random float64) time.Duration {
	if s.refused() {
		return c.RefusedRetry + time.Duration(random*float64(c.RefusedRetry)/10)
	}
	const least = 100 * time.Millisecond
	limit := min(max(outage/8, 500*time.Millisecond), c.MaxRedial)
	return least + time.Duration(random*float64(max(limit-least, 0)))
}

// pause waits; a new topology ends the wait, as it may be the cure.
func (l *link) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.renew:
	case <-ctx.Done():
	}
}

// once builds one session, serves it, and takes it down again.
func (l *link) once(ctx context.Context, attempt int) error {
	b := l.broker
	address := b.addresses[attempt%len(b.addresses)]
	conn, raw, err := dialAMQP(address, b.cfg, b.cfg.Name+" "+l.role)
	if err != nil {
		return err
	}
	s := newSession(conn, raw, b.cfg.RPCTimeout)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		s.watch(func(blocked bool, why string) { l.setBlocked(s, blocked, why) })
	}()
	defer func() {
		s.close()
		<-watching
	}()
	select {
	case <-l.renew: // declared right now anyway
	default:
	}
	if err := l.declare(s); err != nil {
		return err
	}
	defer l.attach(nil)
	return l.serve(ctx, s, func() {
		l.attach(s)
		b.setState(l, Open, nil)
	})
}

// attach makes the session the current one (nil: none).
func (l *link) attach(s *session) {
	b := l.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	l.current = s
	if l == b.consuming {
		b.epoch++
	}
	b.announce()
}

func (l *link) setBlocked(s *session, blocked bool, why string) {
	s.setBlocked(blocked)
	if blocked {
		l.broker.setState(l, Blocked, fmt.Errorf("the broker takes no messages: %s", why))
		return
	}
	l.broker.setState(l, Open, nil)
}

// session is one connection from dial to close. It is never repaired.
type session struct {
	conn    *amqp.Connection
	raw     net.Conn
	limit   time.Duration // of one RPC
	done    chan struct{} // closed when the connection is gone
	cause   atomic.Pointer[amqp.Error]
	blocked atomic.Bool
	unblock chan struct{} // a token per change of blocked
	failed  chan error    // the first reason to give the session up

	closes chan *amqp.Error
	blocks chan amqp.Blocking
}

func newSession(conn *amqp.Connection, raw net.Conn, limit time.Duration) *session {
	return &session{conn: conn, raw: raw, limit: limit, done: make(chan struct{}),
		unblock: make(chan struct{}, 1), failed: make(chan error, 1),
		closes: conn.NotifyClose(make(chan *amqp.Error, 1)), blocks: conn.NotifyBlocked(make(chan amqp.Blocking, 16))}
}

// watch drains both notifications until the library closes them, which it does whichever way the connection ends (T11).
func (s *session) watch(blocked func(bool, string)) {
	defer close(s.done)
	closes, blocks := s.closes, s.blocks
	for closes != nil || blocks != nil {
		select {
		case err, ok := <-closes:
			if !ok {
				closes = nil
				continue
			}
			s.cause.Store(err)
		case b, ok := <-blocks:
			if !ok {
				blocks = nil
				continue
			}
			blocked(b.Active, b.Reason)
		}
	}
}

func (s *session) setBlocked(blocked bool) {
	s.blocked.Store(blocked)
	select {
	case s.unblock <- struct{}{}:
	default:
	}
}

// fail gives the session up for a reason that its connection does not know of.
func (s *session) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// lost says why the connection is gone.
func (s *session) lost() error {
	if cause := s.cause.Load(); cause != nil {
		return fmt.Errorf("connection lost: %w", cause)
	}
	return errConnectionClosed
}

// guard runs one RPC under the watchdog: when it takes too long, the raw socket is closed, which makes it return at
// once and ends the session (T5).
func (s *session) guard(rpc func() error) error {
	var late atomic.Bool
	dog := time.AfterFunc(s.limit, func() {
		late.Store(true)
		_ = s.raw.Close()
	})
	defer dog.Stop()
	err := rpc()
	if late.Load() {
		return fmt.Errorf("no answer from the broker within %s: %w", s.limit, errConnectionClosed)
	}
	return err
}

func (s *session) channel() (*amqp.Channel, error) {
	var ch *amqp.Channel
	err := s.guard(func() error {
		var err error
		ch, err = s.conn.Channel()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open channel: %w", err)
	}
	return ch, nil
}

// closeChannel closes a channel. Its error says only that it was closed already.
func (s *session) closeChannel(ch *amqp.Channel) { _ = s.guard(ch.Close) }

// close takes the connection down within two seconds, whatever state it is in: even a polite close hangs while a
// publisher is stuck in a write (T3), so the raw socket goes after the limit. Calling it again does nothing.
func (s *session) close() {
	const limit = time.Second
	cut := time.AfterFunc(2*limit, func() { _ = s.raw.Close() })
	_ = s.conn.CloseDeadline(time.Now().Add(limit)) // not returned: the socket is closed below in any case
	cut.Stop()
	_ = s.raw.Close()
}

// over reports whether the connection is gone.
func (s *session) over() bool {
	select {
	case <-s.done:
		return true
	default:
		return s.conn.IsClosed()
	}
}
