package systemd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/services/unitd/internal/host"
)

const (
	callLimit   = 10 * time.Second
	reloadLimit = 60 * time.Second
	lookEvery   = time.Second // between two looks at a unit without signals
	redialEvery = time.Second
	// The same for units that are down. A start by somebody else is signalled, but the signal may be lost.
	sweepEvery = 15 * time.Second
)

// errNoBus says that there is no connection at the moment.
var errNoBus = errors.New("no D-Bus connection")

// unanswered are the errors with which the bus says that systemd did not answer.
var unanswered = []string{
	"org.freedesktop.DBus.Error.Disconnected",
	"org.freedesktop.DBus.Error.NameHasNoOwner",
	"org.freedesktop.DBus.Error.NoReply",
	"org.freedesktop.DBus.Error.ServiceUnknown",
	"org.freedesktop.DBus.Error.TimedOut",
	"org.freedesktop.DBus.Error.Timeout",
}

// bus is the connection with systemd, made anew when it breaks, and its signals by unit.
type bus struct {
	log *zap.Logger

	mu      sync.Mutex
	conn    *dbus.Conn
	updates chan *dbus.PropertiesUpdate
	waiters map[string]map[chan struct{}]bool
}

// dial connects; it is called by Open and by Run.
func (b *bus) dial(ctx context.Context) error {
	conn, err := dbus.NewWithContext(context.WithoutCancel(ctx)) // ctx would end the connection
	if err != nil {
		return fmt.Errorf("connect to systemd over D-Bus: %w", err)
	}
	updates := make(chan *dbus.PropertiesUpdate, 1024)
	// Before Subscribe: the library reads the channel without a lock once there are signals.
	conn.SetPropertiesSubscriber(updates, make(chan error, 1)) // errors are dropped: the next look finds the state
	if err := conn.Subscribe(); err != nil {
		conn.Close()
		return fmt.Errorf("subscribe to systemd: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conn, b.updates = conn, updates
	return nil
}

// run hands signals on and keeps the connection until ctx ends.
func (b *bus) run(ctx context.Context) error {
	ticker := time.NewTicker(redialEvery)
	defer ticker.Stop()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		b.mu.Lock()
		updates := b.updates
		b.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case update := <-updates:
			b.wake(update.UnitName)
		case <-ticker.C:
			// The library's panic, if it has one, must not end the process with the supervision of all units.
			_ = loop.Contain(ctx, "systemd", "connection", func() error { b.keepConnected(ctx); return nil })
		case <-sweep.C:
			b.wakeAll()
		}
	}
}

func (b *bus) keepConnected(ctx context.Context) {
	conn, err := b.connected()
	if err == nil {
		return
	}
	if conn != nil {
		b.log.Warn("connection to systemd is lost")
		conn.Close()
		b.mu.Lock()
		b.conn = nil
		b.mu.Unlock()
	}
	if err := b.dial(ctx); err != nil {
		return // the next tick tries again; connected tells every caller meanwhile
	}
	b.log.Info("connection to systemd is back")
}

func (b *bus) connected() (*dbus.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn == nil || !b.conn.Connected() {
		return b.conn, errNoBus
	}
	return b.conn, nil
}

func (b *bus) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil {
		b.conn.Close()
		b.conn = nil
	}
}

func (b *bus) wake(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ringAll(b.waiters[name])
}

func (b *bus) wakeAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, waiters := range b.waiters {
		ringAll(waiters)
	}
}

func ringAll(waiters map[chan struct{}]bool) {
	for c := range waiters {
		select {
		case c <- struct{}{}:
		default: // it rings already
		}
	}
}

// watch returns a channel that rings at each signal of a unit, and the function that ends it.
func (b *bus) watch(name string) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiters[name] == nil {
		b.waiters[name] = map[chan struct{}]bool{}
	}
	b.waiters[name][c] = true
	return c, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.waiters[name], c)
		if len(b.waiters[name]) == 0 {
			delete(b.waiters, name)
		}
	}
}

// callSystemd performs one call within limit. host.ErrUnreached: systemd did not answer.
func (b *bus) callSystemd(ctx context.Context, limit time.Duration, what string,
	call func(context.Context, *dbus.Conn) error) error {
	conn, err := b.connected()
	if err == nil {
		limited, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		err = call(limited, conn)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, classifyError(err))
	}
	return nil
}

// classifyError tells a call that was not answered (host.ErrUnreached) from one that systemd has refused.
func classifyError(err error) error {
	var answer godbus.Error
	if errors.As(err, &answer) && !slices.Contains(unanswered, answer.Name) {
		return err
	}
	return fmt.Errorf("%w: %w", host.ErrUnreached, err)
}

func (b *bus) properties(ctx context.Context, name string) (p properties, err error) {
	return p, b.callSystemd(ctx, callLimit, "read state of unit", func(ctx context.Context, c *dbus.Conn) (err error) {
		p, err = c.GetAllPropertiesContext(ctx, name)
		return err
	})
}

func (b *bus) reload(ctx context.Context) error {
	return b.callSystemd(ctx, reloadLimit, "reload unit files",
		func(ctx context.Context, c *dbus.Conn) error { return c.ReloadContext(ctx) })
}

// start has systemd take the order; the start itself is seen in the unit's state. The order is a
// restart. If somebody else has started the unit just before, a start would do nothing, and their
// process would pass for the ordered one.
func (b *bus) start(ctx context.Context, name string) error {
	return b.callSystemd(ctx, callLimit, "start unit", func(ctx context.Context, c *dbus.Conn) error {
		_, err := c.RestartUnitContext(ctx, name, "replace", nil)
		return err
	})
}

func (b *bus) stop(ctx context.Context, name string) error {
	return b.callSystemd(ctx, callLimit, "stop unit", func(ctx context.Context, c *dbus.Conn) error {
		_, err := c.StopUnitContext(ctx, name, "replace", nil)
		return err
	})
}

// resetFailed forgets failures and counts of restarts. A unit that is not loaded is no error.
func (b *bus) resetFailed(ctx context.Context, name string) {
	_ = b.callSystemd(ctx, callLimit, "reset unit", func(ctx context.Context, c *dbus.Conn) error {
		return c.ResetFailedUnitContext(ctx, name)
	})
}
