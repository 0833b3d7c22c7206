package dispatch

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/member"
	"github.com/openaperture/openaperture/pkg/rabbit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// link is manager-api's connection to one broker, with a consumer of results for every exchange that is served there.
type link struct {
	broker *rabbit.Broker
	urls   []string
	handle func(context.Context, *rabbit.Delivery) error

	mu        sync.Mutex
	exchanges map[component.ExchangeID]*served
}

// served is one exchange on a link.
type served struct {
	exchange managerapi.Exchange
	stop     context.CancelFunc
	done     chan struct{}
	epoch    uint64    // of its queue's sessions when it was last looked at
	since    time.Time // since when it has consumed without a break; zero while it does not
}

func (v *served) queue() string {
	return v.exchange.Address().QueueName(messages.QueueWorkflowOrchestration)
}

// serve makes the link serve exactly these exchanges: each is declared for itself, new ones get a consumer, the
// consumers of those that left are stopped and waited for. One that the broker refuses waits alone. It reports whether
// anything has changed.
func (l *link) serve(ctx context.Context, exchanges []managerapi.Exchange) bool {
	wanted := map[component.ExchangeID]managerapi.Exchange{}
	for _, x := range exchanges {
		wanted[x.ID] = x
	}
	l.mu.Lock()
	var gone []*served
	changed := false
	for id, v := range l.exchanges {
		if x, ok := wanted[id]; ok && sameExchange(x, v.exchange) {
			continue
		}
		gone, changed = append(gone, v), true
		delete(l.exchanges, id)
	}
	l.mu.Unlock()
	stopAll(gone)
	for _, x := range exchanges {
		if !l.serves(x.ID) {
			changed = true
			break
		}
	}
	if !changed {
		return false
	}
	l.broker.SetParts(parts(exchanges))
	for _, x := range exchanges {
		if !l.serves(x.ID) {
			l.consume(ctx, x)
		}
	}
	return true
}

func (l *link) serves(id component.ExchangeID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.exchanges[id] != nil
}

func sameExchange(a, b managerapi.Exchange) bool {
	return a.Name == b.Name && a.RoutingKey == b.RoutingKey && a.RootExchangeName == b.RootExchangeName &&
		slices.Equal(a.Ancestors, b.Ancestors)
}

// parts are the topologies of exchanges by name: none has to do with another.
func parts(exchanges []managerapi.Exchange) map[string]rabbit.Topology {
	all := make(map[string]rabbit.Topology, len(exchanges))
	for _, x := range exchanges {
		all[x.Name] = member.Topology(x)
	}
	return all
}

func (l *link) consume(ctx context.Context, x managerapi.Exchange) {
	ctx, cancel := context.WithCancel(ctx)
	v := &served{exchange: x, stop: cancel, done: make(chan struct{})}
	l.mu.Lock()
	l.exchanges[x.ID] = v
	l.mu.Unlock()
	go func() {
		defer close(v.done)
		// an abandoned handler is logged by what it left undone
		_ = l.broker.Consume(ctx, rabbit.Consumer{Queue: v.queue(), Handle: l.handle})
	}()
}

func stopAll(list []*served) {
	for _, v := range list {
		v.stop()
	}
	for _, v := range list {
		<-v.done
	}
}

// close stops all consumers and waits for them.
func (l *link) close() {
	l.mu.Lock()
	list := make([]*served, 0, len(l.exchanges))
	for _, v := range l.exchanges {
		list = append(list, v)
	}
	l.exchanges = map[component.ExchangeID]*served{}
	l.mu.Unlock()
	stopAll(list)
}

// consuming lists the exchanges whose results have been consumed without a break for at least settle. It has to be
// asked regularly: what it has not seen does not count, and a break that it did not see shows in the session number of
// the queue.
func (l *link) consuming(now time.Time, settle time.Duration) []component.ExchangeID {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []component.ExchangeID
	for id, v := range l.exchanges {
		epoch := l.broker.SessionOf(v.queue())
		switch {
		case l.lacks(v) != nil:
			v.since = time.Time{}
		case v.since.IsZero() || v.epoch != epoch:
			v.since = now
		}
		v.epoch = epoch
		if !v.since.IsZero() && now.Sub(v.since) >= settle {
			list = append(list, id)
		}
	}
	return list
}

// lacks says in one sentence why an exchange is not served, nil if it is.
func (l *link) lacks(v *served) error {
	if err := l.broker.Declared(v.exchange.Name); err != nil {
		return fmt.Errorf("exchange %s is not served: %w", v.exchange.Name, err)
	}
	if !l.broker.Subscribed(v.queue()) {
		return fmt.Errorf("exchange %s is not served: queue %s is not consumed", v.exchange.Name, v.queue())
	}
	return nil
}

// unserved says what the exchanges lack that are not served, by name.
func (l *link) unserved() map[string]error {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[string]error{}
	for _, v := range l.exchanges {
		if err := l.lacks(v); err != nil {
			all[v.exchange.Name] = err
		}
	}
	return all
}

// declared lists the exchanges that messages can be sent to: without its topic exchange and its queues a message comes
// back, or costs the others the channel.
func (l *link) declared() []component.ExchangeID {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []component.ExchangeID
	for id, v := range l.exchanges {
		if l.broker.Declared(v.exchange.Name) == nil {
			list = append(list, id)
		}
	}
	return list
}

// open reports whether the link can be used.
func (l *link) open() bool {
	state, _ := l.broker.State()
	return state == rabbit.Open
}
