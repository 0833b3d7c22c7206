// Package link is a TCP link between clients and a server that can be cut, reset or made silent. Suites use it through
// pkg/rabbittest, and the soak (deploy/local) puts it between the services and their servers. It works for any
// protocol.
package link

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
)

// Link is a TCP proxy to one server. Its methods may be called from any goroutine.
type Link struct {
	listener net.Listener
	flows    sync.WaitGroup

	mu     sync.Mutex
	target string
	wake   *sync.Cond        // signalled when stalled or closed changes
	conns  map[net.Conn]bool // true: to a client
	stall  bool
	cut    bool
	closed bool
}

// Listen opens a link that listens on address and forwards to target; both are host:port. Close ends it.
func Listen(ctx context.Context, address, target string) (*Link, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("open a link to %s: %w", target, err)
	}
	l := &Link{listener: listener, target: target, conns: map[net.Conn]bool{}}
	l.wake = sync.NewCond(&l.mu)
	l.flows.Go(l.accept)
	return l, nil
}

// Address returns the link's own host:port.
func (l *Link) Address() string { return l.listener.Addr().String() }

// Reset breaks every connection at once with a TCP reset (linger 0), as a crashed host or a firewall does. New ones are
// accepted.
func (l *Link) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		reset(c)
	}
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// Cut breaks every connection with a TCP reset, and every new one, until Heal.
func (l *Link) Cut() {
	l.set(func() { l.cut = true })
	l.Reset()
}

// Stall makes the link swallow nothing and forward nothing, in both directions, while all sockets stay open. New
// connections are accepted and hear nothing.
func (l *Link) Stall() { l.set(func() { l.stall = true }) }

// Heal ends a Cut and a Stall; what a stall held back is delivered.
func (l *Link) Heal() { l.set(func() { l.cut, l.stall = false, false }) }

// Retarget lets new connections go to another server. The connections that are there stay with the server before, as
// after a failover that moved a name or an address.
func (l *Link) Retarget(target string) { l.set(func() { l.target = target }) }

// SendToClients writes bytes of the caller's own to every client, as if the server had sent them. The connections
// should be idle, so that they fall between two messages.
func (l *Link) SendToClients(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c, isClient := range l.conns {
		if isClient {
			_, _ = c.Write(b)
		}
	}
}

// Close ends the link and all its connections. Calling it again does nothing.
func (l *Link) Close() {
	l.set(func() { l.closed = true })
	_ = l.listener.Close()
	l.Reset()
	l.flows.Wait()
}

// Connections returns how many client connections are open.
func (l *Link) Connections() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns) / 2
}

func (l *Link) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	l.wake.Broadcast()
}

func (l *Link) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.mu.Lock()
		cut, target := l.cut, l.target
		l.mu.Unlock()
		if cut {
			reset(client)
			continue
		}
		server, err := new(net.Dialer).DialContext(context.Background(), "tcp", target)
		if err != nil {
			_ = client.Close()
			continue
		}
		if !l.track(client, server) {
			continue
		}
		l.flows.Go(func() { l.forward(client, server) })
		l.flows.Go(func() { l.forward(server, client) })
	}
}

// track refuses the connections of a link that has been cut or closed meanwhile.
func (l *Link) track(client, server net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.cut {
		reset(client)
		_ = server.Close()
		return false
	}
	l.conns[client], l.conns[server] = true, false
	return true
}

// forward copies until either side ends, and then ends both.
func (l *Link) forward(from, to net.Conn) {
	defer func() {
		l.mu.Lock()
		delete(l.conns, from)
		delete(l.conns, to)
		l.mu.Unlock()
		_, _ = from.Close(), to.Close()
	}()
	_, _ = io.Copy(gate{Conn: to, link: l}, onlyReader{from})
}

// onlyReader hides WriteTo, with which io.Copy would bypass the gate.
type onlyReader struct{ io.Reader }

// gate is a connection whose writes wait while the link is stalled.
type gate struct {
	net.Conn
	link *Link
}

// Write waits for the end of a stall.
func (g gate) Write(b []byte) (int, error) {
	g.link.mu.Lock()
	for g.link.stall && !g.link.closed && !g.link.cut {
		g.link.wake.Wait()
	}
	g.link.mu.Unlock()
	return g.Conn.Write(b)
}
