// Package dispatch carries manager-api's messages: it sends the outbox to the brokers of all exchanges, takes results
// from them, and ticks what runs out of time.
//
// Invariants: a message is marked as published only after the broker's confirm; a result is acknowledged only after its
// effect is committed; no deadline runs over time in which this process could not have learned of progress. One broker
// that is away delays no other. Replicas may do all of this at the same time: the store's locks decide.
package dispatch

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/rabbit"
	"github.com/openaperture/openaperture/pkg/routing"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
	"github.com/openaperture/openaperture/services/manager-api/internal/presence"
	"github.com/openaperture/openaperture/services/manager-api/internal/registry"
	"github.com/openaperture/openaperture/services/manager-api/internal/seal"
)

// Config is what Brokers need. Zero durations take the defaults named.
type Config struct {
	DB       *db.DB
	Engine   *engine.Engine
	Presence *presence.Presence
	Registry *registry.Registry
	Bell     *Bell      // rung by the store after a commit that left messages; nil means the relays only poll
	OwnURLs  []string   // AMQP URLs of manager-api's own broker, one for each node
	Keys     *seal.Ring // opens the passwords of the others
	Name     string     // "<service>/<hostname>", the app_id of every message
	Settle   time.Duration
	Log      *zap.Logger
	Metrics  prometheus.Registerer

	Reread        time.Duration // 2 s, between two looks at exchanges and brokers
	Poll          time.Duration // 1 s, between two looks into the outbox
	FailoverAfter time.Duration // 1 min, that a broker is away before its failover is used
	FailbackAfter time.Duration // 1 min, that it is back before it is used again
	RefusedRetry  time.Duration // 30 s, until what a broker has refused is tried again
}

// Bell connects the store, which is made first, to the relays that it wakes.
type Bell struct {
	ring atomic.Pointer[func([]component.ExchangeID)]
}

// Ring wakes the relays of these exchanges, if there are any yet. It never blocks.
func (b *Bell) Ring(exchanges []component.ExchangeID) {
	if ring := b.ring.Load(); ring != nil {
		(*ring)(exchanges)
	}
}

// Brokers are all brokers that exchanges are served by, each with its relay and its consumers of results.
type Brokers struct {
	cfg     Config
	own     *link
	results *results
	relay   *relay

	diverted *prometheus.GaugeVec

	mu       sync.Mutex
	routes   map[int64]*route
	unusable map[int64]string
	home     string            // name of manager-api's own exchange, "" until the database was read
	address  *messages.Address // of that exchange, nil while it is not registered

	read     chan struct{} // closed once the database was read
	readOnce func()
}

// New makes the own broker; nothing is dialled before Run. Its errors never quote a URL.
func New(c Config) (*Brokers, error) {
	orElse := func(d *time.Duration, fallback time.Duration) {
		if *d <= 0 {
			*d = fallback
		}
	}
	orElse(&c.Reread, 2*time.Second)
	orElse(&c.Poll, time.Second)
	orElse(&c.FailoverAfter, time.Minute)
	orElse(&c.FailbackAfter, time.Minute)
	m := newMetrics(c.Metrics)
	read := make(chan struct{})
	b := &Brokers{cfg: c, routes: map[int64]*route{}, unusable: map[int64]string{}, read: read,
		readOnce: sync.OnceFunc(func() { close(read) })}
	b.results = &results{apply: c.Engine.ApplyResult, log: c.Log.Named("results"), metrics: m}
	b.relay = &relay{outbox: c.DB, refuse: c.Engine.MessageUnsendable, appID: c.Name, log: c.Log.Named("relay"),
		metrics: m}
	b.diverted = rabbit.DivertedGauge(c.Metrics)
	own, err := b.link(brokerName(routing.Own), c.OwnURLs)
	if err != nil {
		return nil, err
	}
	b.own = own
	if c.Bell != nil {
		ring := b.Ring
		c.Bell.ring.Store(&ring)
	}
	return b, nil
}

// brokerName names a broker in logs, in metrics and as a connection.
func brokerName(id int64) string {
	if id == routing.Own {
		return "manager-api@own"
	}
	return "manager-api@" + strconv.FormatInt(id, 10)
}

func (b *Brokers) link(name string, urls []string) (*link, error) {
	broker, err := rabbit.New(rabbit.Config{Name: name, URLs: urls, Log: b.cfg.Log,
		Metrics:      b.cfg.Metrics,
		RefusedRetry: b.cfg.RefusedRetry})
	if err != nil {
		return nil, err
	}
	return &link{broker: broker, urls: urls, handle: b.results.Handle, exchanges: map[component.ExchangeID]*served{}}, nil
}

// Own is manager-api's own broker.
func (b *Brokers) Own() *rabbit.Broker { return b.own.broker }

// Home is where manager-api's own exchange is, as of the last look at the database; it waits for the first one.
// NotFound: the exchange is not registered (yet).
func (b *Brokers) Home(ctx context.Context) (messages.Address, error) {
	select {
	case <-b.read:
	case <-ctx.Done():
		return messages.Address{}, fmt.Errorf("wait for the exchanges to be read: %w", ctx.Err())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.address == nil {
		return messages.Address{}, fault.New(fault.NotFound,
			"no exchange is named %q: manager-api sends no heartbeats; register it, or correct home_exchange", b.home)
	}
	return *b.address, nil
}

// Ready says in one sentence what the own broker or the own exchange lacks; the others never gate.
func (b *Brokers) Ready(context.Context) error {
	if err := b.own.broker.Ready(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.own.unserved()[b.home]
}

// Others names the other brokers that cannot be used and the exchanges that are not served, for /readyz to show.
func (b *Brokers) Others(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var lines []string
	for id, why := range b.unusable {
		lines = append(lines, fmt.Sprintf("broker %d: %s", id, why))
	}
	for id, r := range b.routes {
		if state, why := r.primary.broker.State(); state != rabbit.Open {
			if id != routing.Own { // Ready tells of that one
				lines = append(lines, fmt.Sprintf("broker %d is %s: %s", id, state, why))
			}
			continue
		}
		for _, err := range r.primary.unserved() {
			lines = append(lines, err.Error())
		}
	}
	if len(lines) == 0 {
		return nil
	}
	slices.Sort(lines)
	return fmt.Errorf("%s", strings.Join(lines, "; "))
}

// Ring wakes the relays of these exchanges: a commit has left messages for them. It never blocks. An exchange that has
// no relay yet gets one at the next look at the database, and that relay begins with a look into the outbox.
func (b *Brokers) Ring(exchanges []component.ExchangeID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.routes {
		if slices.ContainsFunc(exchanges, r.primary.serves) {
			r.wake.Wake()
		}
	}
}

// Consuming lists the exchanges from whose brokers results have been consumed without a break for the settle time. A
// failover broker does not stand in: while the broker itself is away, results may wait there.
func (b *Brokers) Consuming(now time.Time) []component.ExchangeID {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []component.ExchangeID
	for _, r := range b.routes {
		list = append(list, r.primary.consuming(now, b.cfg.Settle)...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Run keeps the own broker's connection and, once usable is closed, the routes as the database has them. last are parts
// that publish on the own broker: its connection outlives them. It returns nil when ctx has ended and all have.
func (b *Brokers) Run(ctx context.Context, usable <-chan struct{}, last ...func(context.Context) error) error {
	detached, hangUp := context.WithCancel(context.WithoutCancel(ctx)) // the connections outlive who speaks on them
	var connections, speakers sync.WaitGroup
	connections.Go(func() { _ = b.own.broker.Run(detached) }) // returns nil by contract
	for _, speak := range last {
		speakers.Go(func() { _ = speak(ctx) }) // a beater returns nil by contract
	}
	select {
	case <-usable:
		watch := loop.Loop{Name: "routes", Interval: b.cfg.Reread,
			Do:      func(ctx context.Context) error { return b.reread(ctx, detached) },
			OnError: func(err error) { b.cfg.Log.Warn("routes not read", zap.Error(err)) }}
		_ = watch.Run(ctx) // nil: errors go to OnError
	case <-ctx.Done():
	}
	b.mu.Lock()
	routes := b.routes
	b.routes = map[int64]*route{}
	b.mu.Unlock()
	for _, r := range routes {
		r.close()
	}
	speakers.Wait()
	hangUp()
	connections.Wait()
	return nil
}

// reread makes the routes what the database says. ctx is of the parts that stop first, detached of the connections.
func (b *Brokers) reread(ctx, detached context.Context) error {
	plan, err := b.cfg.Registry.Plan(ctx, b.cfg.Keys)
	if err != nil {
		return err
	}
	wanted := map[int64][]managerapi.Exchange{}
	var home *messages.Address
	for _, r := range plan.Routes {
		wanted[r.BrokerID] = append(wanted[r.BrokerID], r.Exchange)
		if r.Exchange.Name == plan.Home {
			a := r.Exchange.Address()
			home = &a
		}
	}
	b.mu.Lock()
	b.home, b.address = plan.Home, home
	current := make(map[int64]*route, len(b.routes))
	for id, r := range b.routes {
		current[id] = r
	}
	b.mu.Unlock()
	b.readOnce()
	unusable := map[int64]string{}
	for id, r := range current {
		if len(wanted[id]) == 0 || !r.fits(plan, id) {
			b.forget(id)
			r.close()
			delete(current, id)
		}
	}
	for id, exchanges := range wanted {
		r := current[id]
		if r == nil {
			if r, err = b.open(ctx, detached, plan, id); err != nil {
				unusable[id] = err.Error()
				continue
			}
		}
		r.serve(ctx, exchanges)
	}
	b.mu.Lock()
	b.unusable = unusable
	b.mu.Unlock()
	return nil
}

func (b *Brokers) forget(id int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.routes, id)
}

func queueName(s string) messages.Queue { return messages.Queue(s) }
