package rabbittest

import (
	"context"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/link"
)

// Proxy is a TCP proxy between a client and a server that can reset connections or fall silent. It works for any
// protocol.
type Proxy struct{ *link.Link }

// NewProxy starts a proxy to target (host:port), which is closed when the spec is over.
func NewProxy(target string) *Proxy { return NewProxyAt("127.0.0.1:0", target) }

// NewProxyAt is NewProxy with an address to listen on.
func NewProxyAt(address, target string) *Proxy {
	ginkgo.GinkgoHelper()
	l, err := link.Listen(context.Background(), address, target)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	ginkgo.DeferCleanup(l.Close)
	return &Proxy{l}
}

// Resume ends a Stall; what was held back is delivered.
func (p *Proxy) Resume() { p.Heal() }
