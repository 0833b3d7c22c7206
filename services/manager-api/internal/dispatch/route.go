package dispatch

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/services/manager-api/internal/registry"
)

// route is one broker with its failover, if any. Results are taken from both at all times; messages go to one: to the
// failover after the broker was away for a while, and back after the broker was back for a while.
type route struct {
	primary  *link
	failover *link // nil without one
	owned    bool  // the primary's connection is the route's own to end
	stop     context.CancelFunc
	hangUp   context.CancelFunc
	parts    sync.WaitGroup // relay
	dials    sync.WaitGroup // connections
	wake     *loop.Waker

	mu       sync.Mutex
	diverted bool
}

// open starts the connections and the relay of a broker. An error says why it cannot be used.
func (b *Brokers) open(ctx, detached context.Context, plan registry.Plan, id int64) (*route, error) {
	r := &route{primary: b.own, wake: loop.NewWaker()}
	if id != ownBroker {
		l, err := b.linkTo(plan.Brokers[id])
		if err != nil {
			return nil, err
		}
		r.primary, r.owned = l, true
		if next := plan.Brokers[id].FailoverID; next != nil && plan.Brokers[*next].Unusable == "" {
			if r.failover, err = b.linkTo(plan.Brokers[*next]); err != nil {
				return nil, err
			}
		}
	}
	var dialled context.Context
	dialled, r.hangUp = context.WithCancel(detached)
	for _, l := range r.links() {
		if l != b.own {
			r.dials.Go(func() { _ = l.broker.Run(dialled) }) // returns nil by contract
		}
	}
	ctx, r.stop = context.WithCancel(ctx)
	log := b.cfg.Log.Named("relay").With(zap.Int64("broker", id))
	relaying := loop.Loop{Interval: b.cfg.Poll, Wake: r.wake.C(),
		Do:      func(ctx context.Context) error { return r.pass(ctx, b, time.Now()) },
		OnError: func(err error) { log.Warn("outbox not relayed", zap.Error(err)) }}
	r.parts.Go(func() { _ = relaying.Run(ctx) })
	b.mu.Lock()
	b.routes[id] = r
	b.mu.Unlock()
	return r, nil
}

func (b *Brokers) linkTo(info registry.BrokerInfo) (*link, error) {
	if info.Unusable != "" {
		return nil, errors.New(info.Unusable)
	}
	return b.link(strconv.FormatInt(info.ID, 10), urlsOf(info))
}

func urlsOf(info registry.BrokerInfo) []string {
	urls := make([]string, len(info.Addresses))
	for i, a := range info.Addresses {
		urls[i] = a.URL()
	}
	return urls
}

// fits says whether the route's connections are still those of the plan.
func (r *route) fits(plan registry.Plan, id int64) bool {
	if id == ownBroker {
		return true
	}
	info := plan.Brokers[id]
	if !slices.Equal(r.primary.urls, urlsOf(info)) {
		return false
	}
	if info.FailoverID == nil || plan.Brokers[*info.FailoverID].Unusable != "" {
		return r.failover == nil
	}
	return r.failover != nil && slices.Equal(r.failover.urls, urlsOf(plan.Brokers[*info.FailoverID]))
}

func (r *route) links() []*link {
	if r.failover == nil {
		return []*link{r.primary}
	}
	return []*link{r.primary, r.failover}
}

func (r *route) serve(ctx context.Context, exchanges []managerapi.Exchange) {
	for _, l := range r.links() {
		l.serve(ctx, exchanges)
	}
	r.wake.Wake()
}

// pass relays over the link that counts now, for the exchanges that it has declared; all other messages wait in the
// outbox.
func (r *route) pass(ctx context.Context, b *Brokers, now time.Time) error {
	l := r.active(now, b.cfg.FailoverAfter, b.cfg.FailbackAfter)
	if l == nil {
		return nil
	}
	exchanges := l.declared()
	if len(exchanges) == 0 {
		return nil
	}
	return b.relay.pass(ctx, l, exchanges)
}

// active chooses the link; nil while the chosen one is not open.
func (r *route) active(now time.Time, after, back time.Duration) *link {
	open, since := r.primary.health(now)
	chosen := r.primary
	if r.failover != nil {
		r.mu.Lock()
		r.diverted = divert(r.diverted, open, since, after, back)
		if r.diverted {
			chosen = r.failover
		}
		r.mu.Unlock()
	}
	if open, _ = chosen.health(now); !open {
		return nil
	}
	return chosen
}

// divert decides whether messages take the failover: not before the broker was away for after, and until it was back
// for back.
func divert(diverted, open bool, since, after, back time.Duration) bool {
	if diverted {
		return !open || since < back
	}
	return !open && since >= after
}

// close ends relay and consumers, then the connections, and waits for all.
func (r *route) close() {
	r.stop()
	r.parts.Wait()
	for _, l := range r.links() {
		l.close()
	}
	r.hangUp()
	r.dials.Wait()
}
