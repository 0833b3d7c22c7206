package postgres_test

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// proxy stands between the pool and the server and misbehaves on demand.
type proxy struct {
	listener net.Listener
	server   string
	joined   sync.WaitGroup

	stalled      atomic.Bool // swallow everything from now on, keep the sockets open
	cutAtCommit  atomic.Bool // pass COMMIT on, then cut before its answer
	loseAtCommit atomic.Bool // cut instead of passing COMMIT on

	mu    sync.Mutex
	conns []net.Conn
}

// newProxy returns the proxy and the database's URL through it.
func newProxy(to string) (*proxy, string) {
	u, err := url.Parse(to)
	Expect(err).ToNot(HaveOccurred())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).ToNot(HaveOccurred())
	p := &proxy{listener: l, server: u.Host}
	p.joined.Go(p.accept)
	DeferCleanup(p.close)
	u.Host = l.Addr().String()
	return p, u.String()
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		p.joined.Go(func() { p.forward(client, server, true) })
		p.joined.Go(func() { p.forward(server, client, false) })
	}
}

func (p *proxy) forward(from, to net.Conn, isClient bool) {
	defer func() { _ = from.Close(); _ = to.Close() }()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if p.stalled.Load() {
			_, _ = io.Copy(io.Discard, from)
			return
		}
		commit := isClient && bytes.Contains(buf[:n], []byte("COMMIT"))
		if commit && p.loseAtCommit.Load() {
			return
		}
		if commit && p.cutAtCommit.Load() {
			p.cutAfter(buf[:n], from, to)
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// cutAfter closes the client's side first, so that the answer cannot reach it, and
// gives the server all it needs to commit.
func (p *proxy) cutAfter(commit []byte, client, server net.Conn) {
	_ = client.Close()
	_, _ = server.Write(commit)
	_ = server.(*net.TCPConn).CloseWrite()
}

func (p *proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.joined.Wait()
}
