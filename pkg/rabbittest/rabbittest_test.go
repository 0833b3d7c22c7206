package rabbittest_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/openaperture/openaperture/pkg/rabbittest"
)

// echo is a server that sends back what it hears.
func echo() string {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { _ = listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	return listener.Addr().String()
}

var _ = Describe("the proxy", func() {
	// lines returns a client through the proxy and what it hears.
	lines := func(p *rabbittest.Proxy) (net.Conn, <-chan string) {
		c, err := net.DialTimeout("tcp", p.Address(), 5*time.Second)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func() { _ = c.Close() })
		heard := make(chan string, 16)
		go func() {
			defer close(heard)
			for s := bufio.NewScanner(c); s.Scan(); {
				heard <- s.Text()
			}
		}()
		return c, heard
	}
	say := func(c net.Conn, text string) { Expect(io.WriteString(c, text+"\n")).To(Equal(len(text) + 1)) }

	It("forwards, holds back while stalled, and delivers on resume", func() {
		p := rabbittest.NewProxy(echo())
		c, heard := lines(p)
		say(c, "one")
		Eventually(heard).Should(Receive(Equal("one")))
		p.Stall()
		say(c, "two")
		Consistently(heard, 100*time.Millisecond).ShouldNot(Receive())
		p.Resume()
		Eventually(heard).Should(Receive(Equal("two")))
	})

	It("resets its connections and takes new ones", func() {
		p := rabbittest.NewProxy(echo())
		c, heard := lines(p)
		say(c, "one")
		Eventually(heard).Should(Receive(Equal("one")))
		Expect(p.Connections()).To(Equal(1))
		p.Reset()
		Eventually(heard).Should(BeClosed())
		Eventually(p.Connections).Should(BeZero())
		again, heardAgain := lines(p)
		say(again, "two")
		Eventually(heardAgain).Should(Receive(Equal("two")))
	})

	It("refuses while it is cut, and takes new connections when it is healed", func() {
		p := rabbittest.NewProxy(echo())
		c, heard := lines(p)
		say(c, "one")
		Eventually(heard).Should(Receive(Equal("one")))
		p.Cut()
		Eventually(heard).Should(BeClosed())
		if refused, err := net.DialTimeout("tcp", p.Address(), 5*time.Second); err == nil { // else it was reset at once
			DeferCleanup(refused.Close)
			_, err := refused.Read(make([]byte, 1))
			Expect(err).To(HaveOccurred())
		}
		Eventually(p.Connections).Should(BeZero())
		p.Heal()
		again, heardAgain := lines(p)
		say(again, "two")
		Eventually(heardAgain).Should(Receive(Equal("two")))
	})

	It("puts the spec's own bytes between the server's", func() {
		p := rabbittest.NewProxy(echo())
		c, heard := lines(p)
		say(c, "one")
		Eventually(heard).Should(Receive(Equal("one")))
		p.SendToClients([]byte("injected\n"))
		Eventually(heard).Should(Receive(Equal("injected")))
	})

	It("closes even while stalled", func() {
		p := rabbittest.NewProxy(echo())
		c, heard := lines(p)
		p.Stall()
		say(c, "one")
		p.Close()
		Eventually(heard).Should(BeClosed())
	})
})

var _ = Describe("a virtual host", func() {
	It("holds queues of its own, which can be filled, measured, emptied and deleted", func() {
		one, other := rabbittest.NewHost(), rabbittest.NewHost()
		one.DeclareQueue("q", nil)
		Expect(other.Depth("q")).To(Equal(-1))
		one.Publish("q", amqp.Publishing{Body: []byte("a")}, amqp.Publishing{Body: []byte("b")})
		Expect(one.Depth("q")).To(Equal(2))
		d, ok := one.Get("q")
		Expect(ok).To(BeTrue())
		Expect(string(d.Body)).To(Equal("a"))
		one.DeleteQueue("q")
		_, ok = one.Get("q")
		Expect(ok).To(BeFalse())
	})
})
