package main

import (
	big "encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// deafener is a proxy in front of RabbitMQ that can swallow all deliveries, and nothing else: the client's connections,
// heartbeats, publishes and subscriptions stay whole, and no message reaches its consumers.
type deafener struct {
	listener net.Listener
	target   string
	deaf     atomic.Bool
	swallows atomic.Int64 // deliveries
	flows    sync.WaitGroup
}

func newDeafener(target string) *deafener {
	GinkgoHelper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	d := &deafener{listener: listener, target: target}
	d.flows.Go(d.accept)
	DeferCleanup(func() {
		_ = listener.Close()
		d.flows.Wait()
	})
	return d
}

func (d *deafener) accept() {
	for {
		client, err := d.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", d.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		end := func() { _, _ = client.Close(), server.Close() }
		d.flows.Go(func() { defer end(); _, _ = io.Copy(server, client) })
		d.flows.Go(func() { defer end(); d.forward(client, server) })
	}
}

// forward copies the server's frames: type, channel, size, payload, end. A delivery is a method frame of basic.deliver,
// then a header and bodies on the same channel.
func (d *deafener) forward(to io.Writer, from io.Reader) {
	const method, header, body = 1, 2, 3
	deliver := []byte{0, 60, 0, 60}
	swallowing := map[uint16]bool{} // by channel
	for {
		head := make([]byte, 7)
		if _, err := io.ReadFull(from, head); err != nil {
			return
		}
		rest := make([]byte, big.BigEndian.Uint32(head[3:])+1)
		if _, err := io.ReadFull(from, rest); err != nil {
			return
		}
		channel := big.BigEndian.Uint16(head[1:])
		switch head[0] {
		case method:
			swallowing[channel] = d.deaf.Load() && slices.Equal(rest[:4], deliver)
			if swallowing[channel] {
				d.swallows.Add(1)
				continue
			}
		case header, body:
			if swallowing[channel] {
				continue
			}
		}
		if _, err := to.Write(append(head, rest...)); err != nil {
			return
		}
	}
}
