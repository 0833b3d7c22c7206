package dispatch

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/routing"
	"github.com/openaperture/openaperture/services/manager-api/internal/registry"
)

// route is one broker with its failover, if any. Results are taken from both at all times, so it does not matter when
// the members of the exchanges change over, and nothing is left on the failover on the way back. Messages go to one of
// the two: routing.Switch says to which.
type route struct {
	primary  *link
	failover *link // nil without one
	owned    bool  // the primary's connection is the route's own to end
	stop     context.CancelFunc
	hangUp   context.CancelFunc
	parts    sync.WaitGroup // relay
	dials    sync.WaitGroup // connections
	wake     *loop.Waker
	log      *zap.Logger
	gauge    prometheus.Gauge   // 1 while diverted
	looks    prometheus.Counter // into the outbox

	mu       sync.Mutex
	rule     routing.Switch
	diverted bool
}

// open starts the connections and the relay of a broker. An error says why it cannot be used.
func (b *Brokers) open(ctx, detached context.Context, plan registry.Plan, id int64) (*route, error) {
	r := &route{primary: b.own, wake: loop.NewWaker(), log: b.cfg.Log.Named("route").With(zap.Int64("broker", id)),
		rule:  routing.Switch{After: b.cfg.FailoverAfter, Back: b.cfg.FailbackAfter},
		gauge: b.diverted.WithLabelValues(brokerName(id)), looks: b.relay.metrics.looks.WithLabelValues(brokerName(id))}
	if id != routing.Own {
		l, err := b.linkTo(plan.Brokers[id])
		if err != nil {
			return nil, err
		}
		r.primary, r.owned = l, true
		if next, ok := plan.Failover(id); ok {
			if r.failover, err = b.linkTo(next); err != nil {
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
	relaying := loop.Loop{Name: "relay", Interval: b.cfg.Poll, Wake: r.wake.C(),
		Do:      func(ctx context.Context) error { return r.pass(ctx, b, time.Now()) },
		OnError: func(err error) { r.log.Warn("outbox not relayed", zap.Error(err)) }}
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
	return b.link(brokerName(info.ID), urlsOf(info))
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
	if id == routing.Own {
		return true
	}
	if !slices.Equal(r.primary.urls, urlsOf(plan.Brokers[id])) {
		return false
	}
	next, ok := plan.Failover(id)
	if !ok || r.failover == nil {
		return !ok && r.failover == nil
	}
	return slices.Equal(r.failover.urls, urlsOf(next))
}

func (r *route) links() []*link {
	if r.failover == nil {
		return []*link{r.primary}
	}
	return []*link{r.primary, r.failover}
}

func (r *route) serve(ctx context.Context, exchanges []managerapi.Exchange) {
	changed := false
	for _, l := range r.links() {
		changed = l.serve(ctx, exchanges) || changed
	}
	if changed {
		r.wake.Wake() // there may be messages for an exchange that nobody served
	}
}

// pass relays over the link that counts now, for the exchanges that it has declared; all other messages wait in the
// outbox.
func (r *route) pass(ctx context.Context, b *Brokers, now time.Time) error {
	l := r.active(now)
	if l == nil {
		return nil
	}
	exchanges := l.declared()
	if len(exchanges) == 0 {
		return nil
	}
	r.looks.Inc()
	return b.relay.pass(ctx, l, exchanges)
}

// active chooses the link by the rule of routing.Switch; nil while the chosen one is not open.
func (r *route) active(now time.Time) *link {
	chosen := r.primary
	if r.failover != nil && r.divert(r.primary.open(), r.failover.open(), now) {
		chosen = r.failover
	}
	if !chosen.open() {
		return nil
	}
	return chosen
}

// divert asks the switch, and tells when its answer changes.
func (r *route) divert(primary, failover bool, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	diverted, _ := r.rule.Look(primary, failover, now) // the relay looks often enough
	if diverted == r.diverted {
		return diverted
	}
	r.diverted = diverted
	if diverted {
		r.gauge.Set(1)
		r.log.Warn("broker is away: messages take its failover", zap.Duration("away_for_at_least", r.rule.After))
	} else {
		r.gauge.Set(0)
		r.log.Info("messages take the broker itself again")
	}
	return diverted
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
	r.gauge.Set(0)
}
