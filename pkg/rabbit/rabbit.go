// Package rabbit is our way to talk to one RabbitMQ broker. It keeps two connections, one to publish and one to consume
// (back-pressure on publishers must not stall consumers), redials them for ever, and declares the topology on each.
//
// Invariants:
//   - A session (connection, channels) is never reused or repaired: whatever breaks, a new one is built. The library's
//
// own
//
//	  recovery stays off, because it lets an old delivery tag acknowledge a new message (T1).
//	- A delivery belongs to its session. When that dies, nothing is sent for it, and the context of its handler is
//	  cancelled with cause ErrStale: the broker hands the message out again.
//	- One goroutine owns a channel (T9). Handlers never see one: what they return is turned into ack, requeue or
//	  dead-letter in one place, settle.
//	- Ack only after the handler has returned nil, so after the effect is committed.
//	- A publish is Confirmed only after a positive confirm and a look at the returns (I12). What is known not to have
//	  been written is NotSent; Unknown is what may or may not have reached the broker, to be sent again under the same
//	  ID.
//	- Nothing waits without a limit: every write has a deadline, every RPC a watchdog that closes the raw socket (T3-T5).
//	- No error, log line or metric holds a password (T8).
//
// A handler is called again for a message that was processed before: after a lost ack, a lost session, a crash. Its
// effects must therefore be idempotent. Redelivered is a hint and proves nothing (T27).
//
// The context of Run should outlive those of Consume and the last Publish: a stopping service cancels its consumers,
// publishes its last words, then cancels Run. Where all share one context, Run waits up to DrainTimeout for consumers.
package rabbit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// MaxBody is the largest body that is sent or accepted, in bytes (T19). A larger one is refused before it is written,
// or dead-lettered before it is decoded.
const MaxBody = 256 << 10

// Config says which broker to use and how patient to be. Zero durations and counts take the defaults named.
type Config struct {
	Name     string                // of this broker in metrics, logs and as connection name, e.g. "overseer@local"
	URLs     []string              // amqp:// or amqps:// of every node; Address.URL builds one
	TLS      *tls.Config           // for amqps; nil means TLS 1.2 or newer against the system's roots
	Topology Topology              // declared on every session; SetTopology replaces it
	Log      *zap.Logger           // nil means none
	Metrics  prometheus.Registerer // nil means none

	Heartbeat    time.Duration // 10 s; a dead peer is noticed after 1.5 times this (T6)
	DialTimeout  time.Duration // 5 s, for TCP, TLS and AMQP handshake together (T4)
	WriteTimeout time.Duration // 5 s, of a single write (T3)
	RPCTimeout   time.Duration // 10 s, of a declare, bind, qos, consume, channel open (T5)
	// PublishTimeout bounds a Publish whose context has no earlier deadline: 15 s.
	PublishTimeout time.Duration
	// DrainTimeout bounds how long a stop waits for a handler before it cancels it, and once more until it abandons it: 10
	// s.
	DrainTimeout time.Duration
	MaxRedial    time.Duration // 30 s, the longest wait between two dials
	RefusedRetry time.Duration // 30 s, the wait in the states auth and misconfigured, and between tries of a refused part
	Window       int           // 500, the most unconfirmed messages in flight
}

func (c Config) withDefaults() Config {
	orElse := func(d *time.Duration, fallback time.Duration) {
		if *d <= 0 {
			*d = fallback
		}
	}
	orElse(&c.Heartbeat, 10*time.Second)
	orElse(&c.DialTimeout, 5*time.Second)
	orElse(&c.WriteTimeout, 5*time.Second)
	orElse(&c.RPCTimeout, 10*time.Second)
	orElse(&c.PublishTimeout, 15*time.Second)
	orElse(&c.DrainTimeout, 10*time.Second)
	orElse(&c.MaxRedial, 30*time.Second)
	orElse(&c.RefusedRetry, 30*time.Second)
	if c.Window <= 0 || c.Window > 500 {
		c.Window = 500
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

// Broker is one RabbitMQ broker as a service sees it. It does nothing until Run; Publish, Consume and the others may be
// called before that, from any goroutine.
type Broker struct {
	cfg       Config
	addresses []Address
	log       *zap.Logger
	metrics   metrics

	publishing, consuming *link
	requests              chan *request // from Publish to the goroutine that owns the publish channel

	mu        sync.Mutex
	topology  Topology
	parts     map[string]*part // by name
	partOf    map[string]*part // by queue
	changed   chan struct{}    // closed and replaced at every change
	epoch     uint64
	consumers map[*consumer]bool // running consumers and whether each is subscribed
	logged    string             // last reason logged
}

// New checks the configuration and returns a Broker. Its errors never quote a URL.
func New(c Config) (*Broker, error) {
	c = c.withDefaults()
	if len(c.URLs) == 0 {
		return nil, errors.New("broker: no URL configured")
	}
	addresses := make([]Address, 0, len(c.URLs))
	for i, raw := range c.URLs {
		a, err := ParseURL(raw)
		if err != nil {
			return nil, fmt.Errorf("broker URL %d: %w", i+1, err)
		}
		addresses = append(addresses, a)
	}
	rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
	b := &Broker{cfg: c, addresses: addresses, metrics: newMetrics(c.Metrics), topology: c.Topology,
		log:      c.Log.Named("rabbit").With(zap.String("broker", c.Name)),
		requests: make(chan *request), changed: make(chan struct{}), consumers: map[*consumer]bool{}}
	b.publishing = newLink(b, "publish", func(s *session) error { return s.declare(b.currentTopology()) },
		b.servePublisher)
	b.consuming = newLink(b, "consume", func(s *session) error { return b.declare(s, every) }, b.serveConsumers)
	return b, nil
}

// Run keeps both connections until ctx ends, however long the broker is away, and returns nil. It must be called once.
func (b *Broker) Run(ctx context.Context) error {
	inner, stop := context.WithCancel(context.WithoutCancel(ctx)) // outlives ctx for the drain
	defer stop()
	var group errgroup.Group
	group.Go(func() error { b.publishing.run(inner); return nil })
	group.Go(func() error { b.consuming.run(inner); return nil })
	<-ctx.Done()
	b.consumersGone(time.After(2 * b.cfg.DrainTimeout))
	stop()
	return group.Wait()
}

// SetTopology replaces the topology and has it declared on the open sessions. A refusal shows in State.
func (b *Broker) SetTopology(t Topology) {
	b.mu.Lock()
	b.topology = t
	b.mu.Unlock()
	b.publishing.redeclare()
	b.consuming.redeclare()
}

func (b *Broker) currentTopology() Topology {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.topology
}
