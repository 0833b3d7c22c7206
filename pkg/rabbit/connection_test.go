package rabbit_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/openaperture/openaperture/pkg/rabbit"
	"github.com/openaperture/openaperture/pkg/rabbittest"
)

const canary = "c4n@ry/p?%:#secret"

var _ = Describe("the connections", func() {
	It("T4: a dial to a peer that accepts and stays silent ends at its time-out and is tried again", func() {
		silent, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func() { _ = silent.Close() })
		accepted := make(chan net.Conn, 64)
		go func() {
			defer close(accepted)
			for {
				c, err := silent.Accept()
				if err != nil {
					return
				}
				accepted <- c
			}
		}()
		h := start(func(c *rabbit.Config) {
			c.URLs, c.DialTimeout = []string{host.Through(silent.Addr().String())}, 200*time.Millisecond
		})
		Eventually(func() string { _, why := h.State(); return why }).Should(ContainSubstring("timeout"))
		for range 4 { // two connections, each at least twice
			var c net.Conn
			Eventually(accepted).Should(Receive(&c))
			DeferCleanup(func() { _ = c.Close() })
		}
		h.stop()
		Eventually(h.done).Should(BeClosed())
		Expect(silent.Close()).To(Succeed())
		for c := range accepted {
			_ = c.Close()
		}
	})

	It("T5: an RPC without an answer is ended by the watchdog, and a fresh session works", func() {
		proxy := rabbittest.NewProxy(host.Address())
		h := open(func(c *rabbit.Config) {
			c.URLs = []string{host.Through(proxy.Address())}
			c.RPCTimeout, c.DialTimeout = 300*time.Millisecond, 300*time.Millisecond
		})
		proxy.Stall()
		session := h.Session()
		h.background(func() error { // its first RPC meets a deaf peer
			return h.Consume(h.ctx, rabbit.Consumer{Queue: h.work(), Handle: func(context.Context,
				*rabbit.Delivery) error {
				return nil
			}})
		})
		Eventually(h.Session).Should(BeNumerically(">", session)) // the session was given up
		Eventually(func() string { return h.logText() }).Should(ContainSubstring("no answer from the broker within 300ms"))
		proxy.Resume()
		Eventually(h.Ready).Should(Succeed())
		Expect(h.Subscribed(h.work())).To(BeTrue())
	})

	It("T6/A5: a black hole is noticed by missing heartbeats alone", func() {
		proxy := rabbittest.NewProxy(host.Address())
		h := open(func(c *rabbit.Config) {
			c.URLs, c.Heartbeat = []string{host.Through(proxy.Address())}, 2*time.Second
			c.DialTimeout = 300 * time.Millisecond
		})
		proxy.Stall()
		began := time.Now()
		h.awaitState(rabbit.Connecting)
		Expect(time.Since(began)).To(BeNumerically("<", 5*time.Second)) // 1.5 x 2 s, and a margin
		proxy.Resume()
		h.awaitState(rabbit.Open)
	})

	It("T7: redials with the same credentials, quickly, as often as needed", func() {
		user := unique()
		proxy := rabbittest.NewProxy(host.Address())
		url := strings.Replace(host.WithUser(user, canary), host.Address(), proxy.Address(), 1)
		h := open(func(c *rabbit.Config) { c.URLs = []string{url} })
		for range 3 {
			session := h.Session()
			proxy.Reset()
			Eventually(h.Session, 5*time.Second).Should(BeNumerically(">=", session+2)) // lost and opened
			Eventually(h.Ready, 5*time.Second).Should(Succeed())
		}
	})

	It("T8/I10: a password full of reserved characters works and shows nowhere", func() {
		user := unique()
		h := open(func(c *rabbit.Config) { c.URLs = []string{host.WithUser(user, canary)} })
		Expect(h.Publish(context.Background(), h.to("work", "x"))).To(Succeed())
		h.stop()
		Eventually(h.done).Should(BeClosed())
		bad := start(func(c *rabbit.Config) {
			c.URLs = []string{strings.Replace(host.WithUser(user, canary), user+":", "x"+user+":", 1)}
		})
		bad.awaitState(rabbit.Auth)
		_, why := bad.State()
		for _, text := range []string{h.logText(), bad.logText(), why,
			fmt.Sprint(bad.Ready(), bad.Publish(context.Background(), bad.to("work", "x")))} {
			Expect(text).NotTo(ContainSubstring("c4n"))
		}
	})

	DescribeTable("A20: what the broker refuses is the state auth, tried again slowly",
		func(url func() string, text string) {
			registry := prometheus.NewRegistry()
			h := start(func(c *rabbit.Config) {
				c.URLs, c.RefusedRetry, c.Metrics = []string{url()}, time.Hour, registry
			})
			h.awaitState(rabbit.Auth)
			Expect(h.Ready()).To(MatchError(ContainSubstring(text)))
			Expect(testutil.GatherAndCount(registry, "openaperture_rabbit_redials_total")).To(BeZero())
		},
		Entry("a wrong password", func() string {
			a, err := rabbit.ParseURL(host.WithUser(unique(), "right"))
			Expect(err).NotTo(HaveOccurred())
			a.Password = "wrong"
			return a.URL()
		}, "ACCESS_REFUSED"),
		Entry("an unknown user", func() string { return strings.Replace(host.URL, "//guest:", "//nobody:", 1) },
			"ACCESS_REFUSED"),
		Entry("a vhost that does not exist", func() string { return host.URL + "-missing" }, "NOT_ALLOWED"),
	)

	It("does not mistake a peer that hangs up during the handshake for refused credentials", func() {
		rude, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(rude.Close)
		go func() {
			for {
				c, err := rude.Accept()
				if err != nil {
					return
				}
				_ = c.Close()
			}
		}()
		h := start(func(c *rabbit.Config) { c.URLs = []string{host.Through(rude.Addr().String()), host.URL} })
		h.awaitState(rabbit.Open) // the next host in the list
	})

	It("T28/A9: a queue with other arguments is one clear error, tried slowly, and cured by a new topology", func() {
		name := unique() + "-wrong"
		host.DeclareQueue(name, amqp.Table{"x-max-length": int64(5)})
		h := start(func(c *rabbit.Config) {
			c.Topology.Queues = append(c.Topology.Queues, rabbit.Queue{Name: name, Kind: rabbit.Beats})
			c.RefusedRetry = time.Hour
		})
		h.awaitState(rabbit.Misconfigured)
		_, why := h.State()
		Expect(why).To(And(ContainSubstring(name), ContainSubstring("x-message-ttl=60000"),
			ContainSubstring("inequivalent arg")))
		Expect(strings.Count(h.logText(), "inequivalent arg")).To(Equal(1))
		h.SetTopology(topologyFor(h.name))
		h.awaitState(rabbit.Open)
	})

	It("T28: a new topology that the broker refuses shows at run time, too", func() {
		h := open()
		name := h.name + "-wrong"
		host.DeclareQueue(name, nil)
		topology := topologyFor(h.name)
		topology.Queues = append(topology.Queues, rabbit.Queue{Name: name, Kind: rabbit.Work})
		h.SetTopology(topology)
		h.awaitState(rabbit.Misconfigured)
		host.DeleteQueue(name)
		h.awaitState(rabbit.Open) // RefusedRetry later
		Expect(host.Depth(name)).To(BeZero())
	})

	It("T2: waits for a broker that is away, and is open within two seconds of its return", func() {
		parked, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0") // reserves an address
		Expect(err).NotTo(HaveOccurred())
		address := parked.Addr().String()
		Expect(parked.Close()).To(Succeed())
		h := start(func(c *rabbit.Config) { c.URLs = []string{host.Through(address)} })
		Eventually(func() string { _, why := h.State(); return why }).Should(ContainSubstring("refused"))
		Consistently(func() rabbit.State { s, _ := h.State(); return s }, time.Second).Should(Equal(rabbit.Connecting))
		rabbittest.NewProxyAt(address, host.Address())
		Eventually(func() rabbit.State { s, _ := h.State(); return s }, 2*time.Second).Should(Equal(rabbit.Open))
	})

	It("counts states, publishes, deliveries and redials, and shares the collectors between Brokers", func() {
		registry := prometheus.NewRegistry()
		proxy := rabbittest.NewProxy(host.Address())
		named := func(name string) func(*rabbit.Config) {
			return func(c *rabbit.Config) {
				c.Name, c.Metrics, c.URLs = name, registry, []string{host.Through(proxy.Address())}
			}
		}
		one, other := open(named("one")), open(named("other"))
		Expect(one.Publish(context.Background(), one.to("work", "x"))).To(Succeed())
		_ = one.Publish(context.Background(), rabbit.Message{Exchange: one.name + "-root", Key: "nowhere"})
		one.consume(rabbit.Consumer{Queue: one.work(), Handle: func(context.Context, *rabbit.Delivery) error { return nil }})
		Eventually(func() error {
			return testutil.GatherAndCompare(registry, strings.NewReader(fmt.Sprintf(`
# HELP openaperture_rabbit_deliveries_total Deliveries settled, by result.
# TYPE openaperture_rabbit_deliveries_total counter
openaperture_rabbit_deliveries_total{broker="one",queue="%s",result="acked"} 1
# HELP openaperture_rabbit_publishes_total Messages published, by outcome.
# TYPE openaperture_rabbit_publishes_total counter
openaperture_rabbit_publishes_total{broker="one",outcome="confirmed"} 1
openaperture_rabbit_publishes_total{broker="one",outcome="returned"} 1
`, one.work())), "openaperture_rabbit_publishes_total", "openaperture_rabbit_deliveries_total")
		}).Should(Succeed())
		proxy.Reset()
		Eventually(func() (int, error) { return testutil.GatherAndCount(registry, "openaperture_rabbit_redials_total") }).
			Should(Equal(4))
		other.awaitState(rabbit.Open)
	})

	It("T12/A4: is blocked while the broker takes no messages: nothing is written, callers end at their own deadline",
		func() {
			proxy := rabbittest.NewProxy(host.Address())
			h := open(func(c *rabbit.Config) { c.URLs = []string{host.Through(proxy.Address())} })
			Expect(h.Publish(context.Background(), h.to("work", "before"))).To(Succeed())
			proxy.SendToClients(rabbittest.BlockedFrame("low on memory"))
			h.awaitState(rabbit.Blocked)
			Expect(h.Ready()).To(MatchError(ContainSubstring("low on memory")))
			stored := 2               // before and after
			Eventually(func() error { // the two connections learn of the block one after the other
				short, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
				defer cancel()
				err := h.Publish(short, h.to("work", "during"))
				if rabbit.OutcomeOf(err) == rabbit.Confirmed {
					stored++
				}
				return err
			}).Should(And(WithTransform(rabbit.OutcomeOf, Equal(rabbit.NotSent)),
				MatchError(ContainSubstring("low on memory"))))
			proxy.SendToClients(rabbittest.UnblockedFrame())
			h.awaitState(rabbit.Open)
			Expect(h.Publish(context.Background(), h.to("work", "after"))).To(Succeed())
			Expect(host.Depth(h.work())).To(Equal(stored))
		})

	It("announces changes to those who watch", func() {
		h := open()
		changed := h.Watch()
		Expect(changed).NotTo(BeClosed())
		h.stop()
		Eventually(changed).Should(BeClosed())
		h.awaitState(rabbit.Closed)
	})
})

var _ = DescribeTable("T8: addresses and URLs",
	func(a rabbit.Address) {
		parsed, err := rabbit.ParseURL(a.URL())
		Expect(err).NotTo(HaveOccurred())
		Expect(parsed).To(Equal(a))
		for _, text := range []string{rabbit.Redact(a.URL()), fmt.Sprintf("%v %+v %#v %s", a, a, &a, a)} {
			Expect(text).NotTo(ContainSubstring("c4n"))
			Expect(text).To(ContainSubstring(a.Host))
		}
	},
	Entry("reserved characters in the password", rabbit.Address{Host: "h", Port: 5672, User: "u", Password: canary,
		VHost: "/"}),
	Entry("reserved characters in user and vhost", rabbit.Address{Host: "h", Port: 1, User: "a:b@c/d", Password: canary,
		VHost: "a/b ä%2f"}),
	Entry("an IPv6 host with TLS", rabbit.Address{Host: "::1", Port: 5671, User: "u", Password: canary, VHost: "v",
		TLS: true}),
)

var _ = DescribeTable("T2: the addresses of a cluster in one text",
	func(text, wrong string, urls ...string) {
		got, err := rabbit.ParseURLs(text)
		if wrong != "" {
			Expect(err).To(MatchError(And(ContainSubstring(wrong), Not(ContainSubstring("c4n")))))
			return
		}
		Expect(err).NotTo(HaveOccurred())
		Expect(got).To(Equal(urls))
	},
	Entry("one", "amqp://u:p@a/v", "", "amqp://u:p@a/v"),
	Entry("several with commas", "amqp://u:p@a/v,amqp://u:p@b/v, amqps://u:p@c/v", "",
		"amqp://u:p@a/v", "amqp://u:p@b/v", "amqps://u:p@c/v"),
	Entry("one a line", "amqp://u:p@a/v\namqp://u:p@b/v\n", "", "amqp://u:p@a/v", "amqp://u:p@b/v"),
	Entry("a comma in a password", "amqp://u:p,q@a/v,amqp://u:p,q@b/v", "", "amqp://u:p,q@a/v", "amqp://u:p,q@b/v"),
	Entry("none", "", "parse broker URL"),
	Entry("something in front", "c4nary,amqp://a/", "address 1: parse broker URL"),
	Entry("a wrong one", "amqp://a/, amqp://u:c4nary%zz@h/", "address 2: parse broker URL"),
	Entry("another virtual host", "amqp://a/v,amqp://u:c4nary@b/w", "address 2: another virtual host"),
)

var _ = Describe("a configuration", func() {
	It("is refused without a URL, and with a broken one without quoting it", func() {
		_, err := rabbit.New(rabbit.Config{})
		Expect(err).To(MatchError(ContainSubstring("no URL")))
		_, err = rabbit.New(rabbit.Config{URLs: []string{"amqp://u:c4nary%zz@h/"}})
		Expect(err).To(MatchError(Not(ContainSubstring("c4n"))))
		Expect(rabbit.Redact("amqp://u:c4nary%zz@h/")).To(Equal("invalid broker URL"))
	})
})
