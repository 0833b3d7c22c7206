package rabbittest

import (
	"context"
	"io"
	"net"
	"sync"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
)

// Proxy is a TCP proxy between a client and a server that can reset connections or fall silent. It works for any protocol.
type Proxy struct {
	listener net.Listener
	target   string
	flows    sync.WaitGroup

	mu     sync.Mutex
	wake   *sync.Cond        // signalled when stalled or closed changes
	conns  map[net.Conn]bool // true: to a client
	stall  bool
	closed bool
}

// NewProxy starts a proxy to target (host:port), which is closed when the spec is over.
func NewProxy(target string) *Proxy { return NewProxyAt("127.0.0.1:0", target) }

// NewProxyAt is NewProxy with an address to listen on.
func NewProxyAt(address, target string) *Proxy {
	ginkgo.GinkgoHelper()
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	p := &Proxy{listener: listener, target: target, conns: map[net.Conn]bool{}}
	p.wake = sync.NewCond(&p.mu)
	p.flows.Go(p.accept)
	ginkgo.DeferCleanup(p.Close)
	return p
}

// Address returns the proxy's own host:port.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Reset breaks every connection at once with a TCP reset (linger 0), as a crashed host or a firewall does. New ones are accepted.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
}

// Stall makes the proxy swallow nothing and forward nothing, in both directions, while all sockets stay open. New
// connections are accepted and hear nothing.
func (p *Proxy) Stall() { p.set(func() { p.stall = true }) }

// Resume ends a Stall; what was held back is delivered.
func (p *Proxy) Resume() { p.set(func() { p.stall = false }) }

// SendToClients writes bytes of the spec's own to every client, as if the server had sent them. The connections should be
// idle, so that they fall between two messages.
func (p *Proxy) SendToClients(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c, isClient := range p.conns {
		if isClient {
			_, _ = c.Write(b)
		}
	}
}

// Close ends the proxy and all its connections. Calling it again does nothing.
func (p *Proxy) Close() {
	p.set(func() { p.closed = true })
	_ = p.listener.Close()
	p.Reset()
	p.flows.Wait()
}

// Connections returns how many client connections are open.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns) / 2
}

func (p *Proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	p.wake.Broadcast()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		if !p.track(client, server) {
			return
		}
		p.flows.Go(func() { p.forward(client, server) })
		p.flows.Go(func() { p.forward(server, client) })
	}
}

func (p *Proxy) track(client, server net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_, _ = client.Close(), server.Close()
		return false
	}
	p.conns[client], p.conns[server] = true, false
	return true
}

// forward copies until either side ends, and then ends both.
func (p *Proxy) forward(from, to net.Conn) {
	defer func() {
		p.mu.Lock()
		delete(p.conns, from)
		delete(p.conns, to)
		p.mu.Unlock()
		_, _ = from.Close(), to.Close()
	}()
	_, _ = io.Copy(gate{Conn: to, proxy: p}, onlyReader{from})
}

// onlyReader hides WriteTo, with which io.Copy would bypass the gate.
type onlyReader struct{ io.Reader }

// gate is a connection whose writes wait while the proxy is stalled.
type gate struct {
	net.Conn
	proxy *Proxy
}

// Write waits for the end of a stall.
func (g gate) Write(b []byte) (int, error) {
	g.proxy.mu.Lock()
	for g.proxy.stall && !g.proxy.closed {
		g.proxy.wake.Wait()
	}
	g.proxy.mu.Unlock()
	return g.Conn.Write(b)
}
