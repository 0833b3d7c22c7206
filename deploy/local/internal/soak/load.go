package soak

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	messages "github.com/openaperture/openaperture/proto-messages"
)

// simulated is the type and the service of the modules that do not exist.
const simulated = "simulated"

// load sends the heartbeats of simulated modules, as many a second as it was told, whatever happens to the broker.
type load struct {
	url   string
	every time.Duration // between two heartbeats, of all modules together
	boot  string

	mu     sync.Mutex
	heard  map[string]time.Time // when the broker last confirmed a module's heartbeat
	silent int                  // so many modules, from the first, send nothing
	again  map[string]time.Time // when a module that was silent was told to beat again
	seq    int64
	sent   int
}

// settle is how long after its silence a module may still be shown as silent.
const settle = time.Minute

func newLoad(url string, perSecond int) *load {
	return &load{url: url, every: time.Second / time.Duration(perSecond), boot: uuid.NewString(),
		heard: map[string]time.Time{}, again: map[string]time.Time{}}
}

// modules is how many modules there are: each beats every two seconds.
func (l *load) modules() int { return int(2 * time.Second / l.every) }

func simulatedHost(i int) string { return fmt.Sprintf("simulated-%04d", i) }

// run sends until ctx ends, over a new connection whenever the old one has failed.
func (l *load) run(ctx context.Context) {
	for ctx.Err() == nil {
		_ = l.session(ctx) // the broker is a victim too
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// session sends over one connection until that fails.
func (l *load) session(ctx context.Context) error {
	conn, err := amqp.DialConfig(l.url, amqp.Config{Dial: amqp.DefaultDial(2 * time.Second), Heartbeat: 2 * time.Second})
	if err != nil {
		return fmt.Errorf("dial the broker: %w", err)
	}
	defer func() { _ = conn.CloseDeadline(time.Now().Add(time.Second)) }()
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel: %w", err)
	}
	if err := ch.Confirm(false); err != nil {
		return fmt.Errorf("ask for confirms: %w", err)
	}
	failed := conn.NotifyClose(make(chan *amqp.Error, 1))
	tick := time.NewTicker(l.every)
	defer tick.Stop()
	var confirms sync.WaitGroup
	defer confirms.Wait()
	inner, stop := context.WithCancel(ctx) // no confirm is waited for on a connection that is gone
	defer stop()
	for i := 0; ; i = (i + 1) % l.modules() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			return fmt.Errorf("lose the broker: %w", err)
		case <-tick.C:
		}
		if l.isSilent(i) {
			continue
		}
		confirm, err := l.beat(ctx, ch, i)
		if err != nil {
			return err
		}
		confirms.Go(func() {
			if ok, err := confirm.WaitContext(inner); ok && err == nil {
				l.confirmed(i)
			}
		})
	}
}

func (l *load) beat(ctx context.Context, ch *amqp.Channel, i int) (*amqp.DeferredConfirmation, error) {
	l.mu.Lock()
	l.seq++
	seq := l.seq
	l.mu.Unlock()
	body, err := json.Marshal(messages.ModuleStatus{EventType: messages.EventStatus, Hostname: simulatedHost(i),
		Type: simulated, Service: simulated, Status: messages.StatusActive, BootID: l.boot, Seq: seq, SourceRepoGitRef: "v1"})
	if err != nil {
		return nil, fmt.Errorf("encode a heartbeat: %w", err)
	}
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, address.Root, address.Key(messages.QueueSystemModules),
		false, false,
		amqp.Publishing{DeliveryMode: amqp.Persistent, ContentType: "application/json", Type: messages.TypeModuleStatus,
			Body: body})
	if err != nil {
		return nil, fmt.Errorf("send a heartbeat: %w", err)
	}
	return confirm, nil
}

func (l *load) isSilent(i int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return i < l.silent
}

func (l *load) confirmed(i int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard[simulatedHost(i)] = time.Now()
	l.sent++
}

// silence tells the first n modules to be silent, and the others to beat.
func (l *load) silence(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := n; i < l.silent; i++ {
		l.again[simulatedHost(i)] = time.Now()
	}
	l.silent = n
}

// told is which modules beat, when each was last heard by the broker, and which are silent or were so a moment ago.
func (l *load) told() (beating map[string]time.Time, silent map[string]bool, sent int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	silent = map[string]bool{}
	for i := range l.silent {
		silent[simulatedHost(i)] = true
	}
	for hostname, at := range l.again {
		if time.Since(at) < settle {
			silent[hostname] = true
		}
	}
	return maps.Clone(l.heard), silent, l.sent
}
