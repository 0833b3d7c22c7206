package rabbit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/routing"
)

// Pair is a broker together with its failover broker, if it has one, for who is a member of one exchange.
//
// Messages are published on one of the two: routing.Switch says which. Queues are consumed on both at all times, so
// nothing that came to the failover is left there when messages go back, and it does not matter if others go over
// earlier or later. The deliveries of one Consume are handled one after the other, whichever broker they come from.
//
// Without a failover a Pair behaves as its Broker does.
type Pair struct {
	primary *Broker
	cfg     Config
	log     *zap.Logger
	metric  prometheus.Gauge

	mu       sync.Mutex
	rule     routing.Switch
	diverted bool
	standby  *standby      // nil without a failover
	changed  chan struct{} // closed and replaced at every change of the standby or of diverted
	news     chan struct{} // closed and replaced at every change that Watch tells
	gaps     uint64        // that Session knows of besides those of the primary
	heard    uint64        // the session of the standby at the last Session, while diverted
}

// standby is the failover broker.
type standby struct {
	broker *Broker
	urls   []string
	gone   chan struct{} // closed when another one, or none, takes its place
}

// Times of a Pair for which zero was given.
const (
	defaultFailoverAfter = time.Minute
	defaultFailbackAfter = time.Minute
)

// NewPair returns a Pair without a failover. after and back are those of routing.Switch; zero means a minute.
func NewPair(c Config, after, back time.Duration) (*Pair, error) {
	primary, err := New(c)
	if err != nil {
		return nil, err
	}
	if after <= 0 {
		after = defaultFailoverAfter
	}
	if back <= 0 {
		back = defaultFailbackAfter
	}
	return &Pair{primary: primary, cfg: c, rule: routing.Switch{After: after, Back: back}, log: primary.log,
		metric:  DivertedGauge(c.Metrics).WithLabelValues(c.Name),
		changed: make(chan struct{}), news: make(chan struct{})}, nil
}

// SetFailover makes the broker with these URLs the failover; none takes it away. The same URLs change nothing. An error
// says that a URL is wrong, without quoting it; the failover then stays as it was.
func (p *Pair) SetFailover(urls []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.standby == nil && len(urls) == 0 || p.standby != nil && slices.Equal(p.standby.urls, urls) {
		return nil
	}
	var next *standby
	if len(urls) > 0 {
		c := p.cfg
		c.Name, c.URLs = c.Name+" failover", urls
		broker, err := New(c)
		if err != nil {
			return fmt.Errorf("failover: %w", err)
		}
		next = &standby{broker: broker, urls: slices.Clone(urls), gone: make(chan struct{})}
	}
	if p.standby != nil {
		close(p.standby.gone)
	}
	p.standby = next
	p.divert(false) // what was learned of the former one says nothing about this one
	p.rule = routing.Switch{After: p.rule.After, Back: p.rule.Back}
	p.announceChange()
	return nil
}

// divert records where messages go. Callers hold p.mu.
func (p *Pair) divert(diverted bool) {
	if diverted == p.diverted {
		return
	}
	p.diverted = diverted
	p.gaps++
	p.heard = 0
	p.metric.Set(map[bool]float64{true: 1}[diverted])
	if diverted {
		p.log.Warn("broker is away: messages take its failover", zap.Duration("away_for_at_least", p.rule.After))
	} else {
		p.log.Info("messages take the broker itself again")
	}
	p.announceChange()
}

func (p *Pair) announceChange() {
	close(p.changed)
	p.changed = make(chan struct{})
	p.announce()
}

func (p *Pair) announce() {
	close(p.news)
	p.news = make(chan struct{})
}

// Run keeps the connections to both brokers until ctx ends, as Broker.Run does. It must be called once.
func (p *Pair) Run(ctx context.Context) error {
	var group errgroup.Group
	group.Go(func() error { return p.primary.Run(ctx) })
	group.Go(func() error {
		return p.onStandby(ctx, func(ctx context.Context, s *standby) error { return s.broker.Run(ctx) })
	})
	watch := loop.Loop{Name: "failover", OnError: func(error) {}, // a panic, which is told
		Do: func(ctx context.Context) error { p.watch(ctx); return nil }}
	group.Go(func() error { return watch.Run(ctx) })
	return group.Wait()
}

// watch looks at the brokers whenever one of them changes, or time alone may decide.
func (p *Pair) watch(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		primary := p.primary.Watch()
		s, changed := p.failover()
		var failover <-chan struct{}
		if s != nil {
			failover = s.broker.Watch()
		}
		timer.Reset(p.look(s, time.Now()))
		select {
		case <-primary:
		case <-failover:
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		p.mu.Lock()
		p.announce()
		p.mu.Unlock()
	}
}

// look applies the rule and returns when to do so again.
func (p *Pair) look(s *standby, now time.Time) time.Duration {
	const never = time.Hour
	if s == nil {
		return never
	}
	primary, _ := p.primary.State()
	failover, _ := s.broker.State()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.standby != s {
		return 0 // it was replaced this moment
	}
	diverted, again := p.rule.Look(primary == Open, failover == Open, now)
	p.divert(diverted)
	if again == 0 {
		return never
	}
	return again
}

// failover returns the failover of this moment, nil without one, and a channel that is closed when that changes.
func (p *Pair) failover() (*standby, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.standby, p.changed
}

// onStandby runs do on each failover, one after the other, until ctx ends. The context of do ends with its failover.
func (p *Pair) onStandby(ctx context.Context, do func(context.Context, *standby) error) error {
	for ctx.Err() == nil {
		s, changed := p.failover()
		if s == nil {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		inner, stop := context.WithCancel(ctx)
		joined := make(chan struct{})
		go func() {
			defer close(joined)
			select {
			case <-s.gone:
				stop()
			case <-inner.Done():
			}
		}()
		err := do(inner, s)
		stop()
		<-joined
		if err != nil && ctx.Err() != nil {
			return err
		}
		if err != nil {
			p.log.Warn("failover broker left", zap.Error(err))
		}
	}
	return nil
}

// active is the broker that messages take.
func (p *Pair) active() *Broker {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.diverted {
		return p.standby.broker
	}
	return p.primary
}

// Publish is Broker.Publish on the broker that messages take now. An outcome that is not Confirmed says nothing about
// the other broker: a repeat under the same ID may take that one, and both copies may arrive.
func (p *Pair) Publish(ctx context.Context, m Message) error { return p.active().Publish(ctx, m) }

// Consume is Broker.Consume on both brokers.
func (p *Pair) Consume(ctx context.Context, c Consumer) error {
	turns := make(turns, 1)
	handle := c.Handle
	c.Handle = func(ctx context.Context, d *Delivery) error {
		return turns.take(ctx, func() error { return handle(ctx, d) })
	}
	return p.onBoth(ctx, func(ctx context.Context, b *Broker) error { return b.Consume(ctx, c) })
}

// ConsumeBatch is Broker.ConsumeBatch on both brokers.
func (p *Pair) ConsumeBatch(ctx context.Context, c BatchConsumer) error {
	turns := make(turns, 1)
	handle := c.Handle
	c.Handle = func(ctx context.Context, batch []*Delivery) error {
		return turns.take(ctx, func() error { return handle(ctx, batch) })
	}
	return p.onBoth(ctx, func(ctx context.Context, b *Broker) error { return b.ConsumeBatch(ctx, c) })
}

func (p *Pair) onBoth(ctx context.Context, consume func(context.Context, *Broker) error) error {
	var primary, failover error
	var both sync.WaitGroup
	both.Go(func() { primary = consume(ctx, p.primary) })
	both.Go(func() {
		failover = p.onStandby(ctx, func(ctx context.Context, s *standby) error { return consume(ctx, s.broker) })
	})
	both.Wait()
	return errors.Join(primary, failover)
}

// turns lets one handler run at a time.
type turns chan struct{}

func (t turns) take(ctx context.Context, do func() error) error {
	select {
	case t <- struct{}{}:
		defer func() { <-t }()
		return do()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Diverted reports whether messages take the failover now.
func (p *Pair) Diverted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.diverted
}

// Ready is Broker.Ready of the broker that messages take.
func (p *Pair) Ready() error { return p.active().Ready() }

// Failover returns nil if there is no failover or it is ready, and otherwise what it lacks. It gates nothing.
func (p *Pair) Failover() error {
	s, _ := p.failover()
	if s == nil {
		return nil
	}
	return s.broker.Ready()
}

// Subscribed is Broker.Subscribed on the broker that messages take.
func (p *Pair) Subscribed(queue string) bool { return p.active().Subscribed(queue) }

// Session is Broker.Session for the broker that messages take: it rises with each change of that broker too. What the
// other one does meanwhile does not count, so a failover that is away disturbs nobody.
func (p *Pair) Session() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.diverted {
		if now := p.standby.broker.Session(); now != p.heard {
			p.heard = now
			p.gaps++
		}
	}
	return p.primary.Session() + p.gaps
}

// Whole is a view of the Pair for who concludes something from not hearing. See Pair.Whole.
type Whole struct{ *Pair }

// Whole returns a view that is subscribed only while messages take the broker itself. While they take the failover,
// nobody can tell from here whether others still reach the broker, and speak there unheard: so silence proves nothing.
func (p *Pair) Whole() Whole { return Whole{p} }

// Subscribed reports whether everything that is sent to the queue is heard here, as far as can be known.
func (w Whole) Subscribed(queue string) bool { return !w.Diverted() && w.Pair.Subscribed(queue) }

// Watch returns a channel that is closed at the next change of Ready, Session, Subscribed or Diverted. Take it before
// reading them, so that no change falls between. It needs a running Run.
func (p *Pair) Watch() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.news
}
