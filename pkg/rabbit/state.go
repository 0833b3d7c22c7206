package rabbit

import (
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"
)

// State is what a broker connection is doing. The order is by gravity: a Broker shows the worst of its two connections.
type State int

// The states of a connection, from best to worst.
const (
	Open          State = iota // connected, topology declared
	Blocked                    // connected, but the broker takes no messages (memory or disk alarm, T12)
	Connecting                 // not connected; a dial runs or waits its turn
	Auth                       // the broker refused credentials, vhost or permission; tried again slowly
	Misconfigured              // a queue or exchange exists with other arguments (A9); tried again slowly
	Closed                     // Run has not begun or has returned
)

var stateNames = []string{"open", "blocked", "connecting", "auth", "misconfigured", "closed"}

// String returns the state's name as metrics and readiness show it.
func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return "unknown"
	}
	return stateNames[s]
}

// refused reports whether a person must act, so that quick redials would only make noise.
func (s State) refused() bool { return s == Auth || s == Misconfigured }

// MisconfiguredError says that something exists on the broker with other arguments than ours (A9, T28).
type MisconfiguredError struct {
	Kind      string // "queue" or "exchange"
	Name      string
	Arguments string // ours
	Server    string // what the broker said about its own
}

// Error names the thing, our arguments and the broker's.
func (e *MisconfiguredError) Error() string {
	return fmt.Sprintf("%s %q exists with other arguments than ours (%s): %s", e.Kind, e.Name, e.Arguments, e.Server)
}

// stateOf turns the reason for a missing session into a state.
func stateOf(err error) State {
	var wrong *MisconfiguredError
	if errors.As(err, &wrong) {
		return Misconfigured
	}
	var refusal *amqp.Error
	if errors.As(err, &refusal) && refusal.Server &&
		(refusal.Code == amqp.AccessRefused || refusal.Code == amqp.NotAllowed) {
		return Auth
	}
	return Connecting
}

// State returns the worse state of the two connections and the last error's text without credentials ("" when open).
func (b *Broker) State() (State, string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	worst := b.publishing
	if b.consuming.state > worst.state {
		worst = b.consuming
	}
	return worst.state, worst.reason
}

// Session returns a number that rises whenever consuming may have had a gap: a consume connection opened or lost, a
// subscription begun or ended. Equal numbers at two moments mean nothing was missed between them
// (docs/messaging.md#silence).
func (b *Broker) Session() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.epoch
}

// SessionOf is Session for one queue: it rises only when consuming of that queue may have had a gap, whatever happens
// to others. It is 0 while nobody consumes the queue.
func (b *Broker) SessionOf(queue string) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	var newest uint64
	for c := range b.consumers {
		if c.queue == queue {
			newest = max(newest, c.epoch)
		}
	}
	return newest
}

// Subscribed reports whether every consumer of the queue in this process, and at least one, is subscribed right now.
func (b *Broker) Subscribed(queue string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	found := false
	for c, subscribed := range b.consumers {
		if c.queue != queue {
			continue
		}
		if !subscribed {
			return false
		}
		found = true
	}
	return found
}

// Ready returns nil when both connections are open, the topology is declared and every running consumer is subscribed,
// but for those of parts, which gate nothing; otherwise one sentence that says what is missing, fit for /readyz.
func (b *Broker) Ready() error {
	state, reason := b.State()
	if state != Open {
		return fmt.Errorf("broker %s is %s: %s", b.cfg.Name, state, reason)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for c, subscribed := range b.consumers {
		if !subscribed && b.partOf[c.queue] == nil {
			return fmt.Errorf("broker %s: queue %s is not consumed", b.cfg.Name, c.queue)
		}
	}
	return nil
}

// Watch returns a channel that is closed at the next change of State, Session, Subscribed, Declared or Ready. Take it
// before reading them, so that no change falls between.
func (b *Broker) Watch() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

// announce wakes everyone who watches. Callers hold b.mu.
func (b *Broker) announce() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// setState records a connection's state. One text is logged once, however often it is tried and by whichever
// connection.
func (b *Broker) setState(l *link, state State, err error) {
	reason := ""
	if err != nil {
		reason = scrub(err.Error(), b.addresses)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.state == state && l.reason == reason {
		return
	}
	moved := l.state != state
	l.state, l.reason = state, reason
	b.metrics.state(b.cfg.Name, l.role, state)
	b.announce()
	fields := []zap.Field{zap.String("connection", l.role), zap.Stringer("state", state)}
	switch {
	case state == Open && moved:
		b.logged = ""
		b.log.Info("broker connection open", fields...)
	case state == Open || state == Closed || errors.Is(err, errDialing): // no news
	case reason != b.logged:
		b.logged = reason
		b.log.Warn("broker connection not usable", append(fields, zap.String("reason", reason))...)
	}
}

// setSubscribed records that a consumer hears its queue, or that it no longer does.
func (b *Broker) setSubscribed(c *consumer, subscribed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now, known := b.consumers[c]; !known || now == subscribed {
		return
	}
	b.consumers[c] = subscribed
	b.epoch++
	c.epoch = b.epoch
	b.announce()
}

func (b *Broker) addConsumer(c *consumer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.consumers[c] = false
	b.announce()
}

func (b *Broker) removeConsumer(c *consumer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.consumers, c)
	b.epoch++
	b.announce()
}

// consumersGone waits until no consumer runs any more, or the channel fires.
func (b *Broker) consumersGone(limit <-chan time.Time) {
	for {
		changed := b.Watch()
		b.mu.Lock()
		left := len(b.consumers)
		b.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-changed:
		case <-limit:
			return
		}
	}
}
