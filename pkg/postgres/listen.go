package postgres

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/lib/pq"
)

const (
	listenPing     = 30 * time.Second // more often than the read deadline, which then only a dead server meets
	listenDeadline = 90 * time.Second
)

// Listen calls wake whenever somebody notifies the channel, when listening has
// begun, and after every reconnect, for notifications sent meanwhile are lost: a
// notification only rings, the reader looks into the table, and polls as well. It
// reconnects by itself and blocks until ctx ends, then returns nil. It has a
// connection of its own. wake must not block (loop.Waker.Wake).
func (db *DB) Listen(ctx context.Context, channel string, wake func()) error {
	d := &listenDialer{dialer: dialer{read: listenDeadline, write: slack}, ctx: ctx}
	l := pq.NewDialListener(d, db.listenDSN, 200*time.Millisecond, 2*time.Second, nil)
	var calls sync.WaitGroup
	stop := context.AfterFunc(ctx, d.cut) // ends a call that waits on the socket, so that Close does not wait for it
	defer func() {
		stop()
		d.cut()
		_ = l.Close()
		for range l.Notify { // closed once the listener's own goroutine is done
		}
		calls.Wait()
	}()
	listening := make(chan error, 1)
	calls.Go(func() { listening <- l.Listen(channel) })
	ping := time.NewTicker(listenPing)
	defer ping.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-listening:
			if err != nil && ctx.Err() == nil {
				return Translate(fmt.Errorf("listen on %s: %w", channel, err))
			}
			wake()
		case <-l.Notify: // nil after a reconnect: the same ring
			wake()
		case <-ping.C:
			calls.Go(func() { _ = l.Ping() }) // its failure makes the listener reconnect
		}
	}
}

// listenDialer keeps the socket, to cut it.
type listenDialer struct {
	dialer
	ctx context.Context // of the one Listen call that this dialer belongs to

	mu   sync.Mutex
	conn net.Conn
	shut bool
}

func (d *listenDialer) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut = true
	if d.conn != nil {
		_ = d.conn.Close()
	}
}

func (d *listenDialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(d.ctx, network, address)
}

func (d *listenDialer) DialTimeout(network, address string, limit time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, limit)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

// DialContext ends with the Listen call also when the driver gives no context.
func (d *listenDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)() //nolint:contextcheck // two contexts bound the dial: the driver's and that of the Listen call
	c, err := d.dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shut {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	d.conn = c
	return c, nil
}
