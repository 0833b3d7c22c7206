package dispatch_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/postgres"
	"github.com/openaperture/openaperture/pkg/rabbittest"
	"github.com/openaperture/openaperture/pkg/times"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/dispatch"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
	"github.com/openaperture/openaperture/services/manager-api/internal/presence"
	"github.com/openaperture/openaperture/services/manager-api/internal/registry"
	"github.com/openaperture/openaperture/services/manager-api/internal/seal"
)

// rig is a running dispatch over one exchange "here" on a broker of its own.
type rig struct {
	*db.DB
	*engine.Engine
	*presence.Presence
	*registry.Registry
	db       *postgres.DB
	host     *rabbittest.Host
	brokers  *dispatch.Brokers
	sweeper  *dispatch.Sweeper
	exchange component.ExchangeID
	metrics  *prometheus.Registry

	mu    sync.Mutex
	rings map[component.ExchangeID]int // by commits, so far
}

func ctx() context.Context { return context.Background() }

func start(change ...func(*dispatch.Config)) *rig {
	return startAt(rabbittest.NewHost(), "", change...)
}

// startAt runs dispatch against a URL of the host, its own if that is empty, and joins it at the end of the spec.
func startAt(host *rabbittest.Host, ownURL string, change ...func(*dispatch.Config)) *rig {
	GinkgoHelper()
	if ownURL == "" {
		ownURL = host.URL
	}
	t, err := times.Named(times.Fast)
	Expect(err).NotTo(HaveOccurred())
	t.MinHealthy, t.Settle = 0, 300*time.Millisecond
	r := &rig{db: database.Open(6), host: host, metrics: prometheus.NewRegistry(), rings: map[component.ExchangeID]int{}}
	bell := &dispatch.Bell{}
	r.DB = db.New(db.Config{Pool: r.db, Times: t, Ring: func(exchanges []component.ExchangeID) {
		r.mu.Lock()
		for _, id := range exchanges {
			r.rings[id]++
		}
		r.mu.Unlock()
		bell.Ring(exchanges)
	}})
	r.Engine = engine.New(engine.Config{DB: r.DB, Times: t, Home: "here"})
	r.Presence = presence.New(r.DB, t)
	r.Registry = registry.New(r.DB, r.Engine, "here")
	r.exchange = r.register("here")
	c := dispatch.Config{DB: r.DB, Engine: r.Engine, Presence: r.Presence, Registry: r.Registry, Bell: bell,
		OwnURLs: []string{ownURL}, Keys: keys(), Name: "manager-api/spec", Settle: t.Settle, Log: logger(),
		Metrics: r.metrics, Reread: 100 * time.Millisecond, Poll: 100 * time.Millisecond,
		FailoverAfter: 3 * time.Second, FailbackAfter: time.Second, RefusedRetry: 500 * time.Millisecond}
	for _, f := range change {
		f(&c)
	}
	r.brokers, err = dispatch.New(c)
	Expect(err).NotTo(HaveOccurred())
	r.sweeper = r.brokers.Sweeper(t)
	run, cancel := context.WithCancel(context.Background())
	usable, ended := make(chan struct{}), make(chan struct{})
	close(usable)
	go func() { defer close(ended); _ = r.brokers.Run(run, usable) }()
	DeferCleanup(func() { cancel(); Eventually(ended, "20s").Should(BeClosed()) })
	return r
}

func keys() *seal.Ring {
	GinkgoHelper()
	ring, err := seal.Parse([]byte("k1 " + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))))
	Expect(err).NotTo(HaveOccurred())
	return ring
}

func (r *rig) register(name string) component.ExchangeID {
	GinkgoHelper()
	var id component.ExchangeID
	Expect(r.db.Get(&id, `INSERT INTO messaging_exchanges (name, routing_key_fragment, routing_key, root_exchange_name)
		VALUES ($1, $1, $1, $1) RETURNING id`, name)).To(Succeed())
	return id
}

func (r *rig) value(query string, args ...any) string {
	GinkgoHelper()
	var out string
	Expect(r.db.Get(&out, query, args...)).To(Succeed())
	return out
}

// workflow executes [config] in an exchange: one order, and no more.
func (r *rig) workflow(ex component.ExchangeID) string {
	GinkgoHelper()
	id := r.value(`INSERT INTO workflows (id, milestones) VALUES (gen_random_uuid(), '["config"]') RETURNING id`)
	Expect(r.ExecuteWorkflow(ctx(), id, []byte(`{"deploy_messaging_exchange_id":`+strconv.FormatInt(int64(ex), 10)+`}`))).
		To(Succeed())
	return id
}

// taken takes a message, if the queue is there already and has one: a quorum queue that is just being declared answers
// with an error.
func taken(host *rabbittest.Host, queue string) (d amqp.Delivery, ok bool) {
	err := host.Do(func(ch *amqp.Channel) (err error) {
		d, ok, err = ch.Get(queue, true)
		return err
	})
	return d, ok && err == nil
}

// received takes the next order from a queue of a host.
func received(host *rabbittest.Host, queue string) messages.Order {
	GinkgoHelper()
	var d amqp.Delivery
	Eventually(func() bool { var ok bool; d, ok = taken(host, queue); return ok }, "10s", "50ms").Should(BeTrue())
	o, err := messages.DecodeOrder(d.Body)
	Expect(err).NotTo(HaveOccurred())
	Expect([]string{d.Type, d.AppId, d.CorrelationId}).
		To(Equal([]string{"milestone_order", "manager-api/spec", o.WorkflowID}))
	return o
}

func (r *rig) answer(o messages.Order) messages.Result {
	GinkgoHelper()
	k, err := r.Claim(ctx(), o.OrderID, 0, managerapi.ClaimRequest{Attempt: o.Attempt, Hostname: "e", BootID: "b"})
	Expect(err).NotTo(HaveOccurred())
	return messages.Result{EventType: messages.EventMilestoneCompleted, OrderID: o.OrderID, WorkflowID: o.WorkflowID,
		Attempt: o.Attempt, Token: k.Token, At: time.Now().UTC()}
}

func publishing(body any) amqp.Publishing {
	GinkgoHelper()
	raw, err := json.Marshal(body)
	Expect(err).NotTo(HaveOccurred())
	return amqp.Publishing{MessageId: uuid.NewString(), Body: raw, DeliveryMode: amqp.Persistent}
}

const confirmed = `SELECT count(*) FROM outbox WHERE published_at IS NOT NULL`

var _ = Describe("Dispatch", func() {
	It("carries an order to its exchange and the result back", func() {
		r := start()
		id := r.workflow(r.exchange)
		o := received(r.host, "here.deployer")
		Expect(o.WorkflowID).To(Equal(id))
		Eventually(func() string {
			return r.value(`SELECT (confirmed_at IS NOT NULL)::text
			FROM orders`)
		}).Should(Equal("true"))
		result := publishing(r.answer(o))
		result.AppId = "alice"
		r.host.Publish("here.workflow_orchestration", result, result) // a duplicate has no second effect
		Eventually(func() string { return r.value(`SELECT workflow_completed::text FROM workflows`) },
			"5s").Should(Equal("true"))
		Eventually(func() string { return r.value(`SELECT count(*) FROM inbox`) }, "5s").Should(Equal("1"))
		Expect(r.value(`SELECT actor FROM journal WHERE code = 'workflow_completed'`)).To(Equal("executor:alice"),
			"no operator did it")
		Eventually(r.brokers.Ready, "5s").WithArguments(ctx()).Should(Succeed())
	})

	It("R12 dead-letters what cannot be read, counts what is not ours, and goes on", func() {
		r := start()
		Eventually(r.brokers.Ready, "10s").WithArguments(ctx()).Should(Succeed())
		o := received(r.host, func() string { r.workflow(r.exchange); return "here.deployer" }())
		r.host.Publish("here.workflow_orchestration", amqp.Publishing{Body: []byte("{")},
			publishing(map[string]string{"event_type": "milestone_completed"}),
			publishing(map[string]string{"event_type": "other"}), publishing(r.answer(o)))
		Eventually(func() string { return r.value(`SELECT workflow_completed::text FROM workflows`) },
			"5s").Should(Equal("true"))
		Eventually(func() int { return r.host.Depth("here.workflow_orchestration_error") }, "5s").Should(Equal(2))
	})

	It("knows where the own exchange is, also after it has moved", func() {
		r := start()
		Expect(r.brokers.Home(ctx())).To(Equal(messages.Address{Name: "here", Root: "here", RoutingKey: "here"}))
		r.value(`UPDATE messaging_exchanges SET routing_key_fragment = 'moved', routing_key = 'moved' RETURNING id`)
		Eventually(r.brokers.Home, "5s").WithArguments(ctx()).Should(HaveField("RoutingKey", "moved"))
	})

	It("takes a result from its exchange's queue alone", func() {
		r := start()
		other := r.register("other")
		r.workflow(r.exchange)
		result := publishing(r.answer(received(r.host, "here.deployer")))
		r.workflow(other)
		received(r.host, "other.deployer") // its queues are there
		r.host.Publish("other.workflow_orchestration", result)
		Eventually(func() string { return r.value(`SELECT count(*) FROM journal WHERE code = 'queue_foreign'`) },
			"10s").Should(Equal("1"))
		Expect(r.value(`SELECT count(*) FROM workflows WHERE workflow_completed`)).To(Equal("0"))
		r.host.Publish("here.workflow_orchestration", result)
		Eventually(func() string { return r.value(`SELECT count(*) FROM workflows WHERE workflow_completed`) },
			"5s").Should(Equal("1"))
	})

	It("A8 A10 keeps an unroutable order, declares the queue again and sends it under the same id", func() {
		r := start()
		Eventually(r.brokers.Ready, "10s").WithArguments(ctx()).Should(Succeed())
		r.workflow(r.exchange)
		received(r.host, "here.deployer") // both connections have declared it
		r.host.DeleteQueue("here.deployer")
		second := r.workflow(r.exchange)
		Expect(received(r.host, "here.deployer").WorkflowID).To(Equal(second))
		Eventually(func() string { return r.value(confirmed) }, "5s").Should(Equal("2"))
		Expect(r.value(`SELECT max(attempts) > 1 FROM outbox`)).To(Equal("true"))
	})

	It("A1 accepts orders while the broker is away, and sends them when it is back", func() {
		host := rabbittest.NewHost()
		proxy := rabbittest.NewProxy(host.Address())
		address := proxy.Address()
		r := startAt(host, host.Through(address))
		Eventually(r.brokers.Ready, "10s").WithArguments(ctx()).Should(Succeed())
		proxy.Close()
		Eventually(r.brokers.Ready, "10s").WithArguments(ctx()).ShouldNot(Succeed())
		Expect(r.brokers.Consuming(time.Now())).To(BeEmpty())
		r.workflow(r.exchange)
		Consistently(func() string { return r.value(confirmed) }, "500ms").Should(Equal("0"))
		back := rabbittest.NewProxyAt(address, host.Address())
		DeferCleanup(back.Close)
		Expect(received(host, "here.deployer").Attempt).To(Equal(1))
	})

	It("counts an exchange as heard only after the settle time", func() {
		r := start()
		Expect(r.brokers.Consuming(time.Now())).To(BeEmpty())
		Eventually(func() []component.ExchangeID { return r.brokers.Consuming(time.Now()) }, "10s",
			"20ms").Should(Equal([]component.ExchangeID{r.exchange}))
	})

	It("serves an exchange on the broker that it is restricted to, with the password unsealed, and ends when it goes",
		func() {
			r := start()
			far := rabbittest.NewHost()
			id := r.registerOn("far", r.broker("far", far, nil))
			r.workflow(id)
			Expect(received(far, "far.deployer").MessagingExchangeID).To(Equal(int64(id)))
			Eventually(r.brokers.Others, "5s").WithArguments(ctx()).Should(Succeed())
			_, err := r.db.Exec(`DELETE FROM workflows; DELETE FROM messaging_exchanges
				WHERE id = ` + strconv.FormatInt(int64(id), 10))
			Expect(err).NotTo(HaveOccurred())
			Eventually(func() []component.ExchangeID { return r.brokers.Consuming(time.Now()) }, "10s",
				"20ms").Should(Equal([]component.ExchangeID{r.exchange}))
		})

	It("shows a broker that cannot be used and lets it gate nothing", func() {
		r := start()
		r.registerOn("far", r.broker("empty", nil, nil))
		Eventually(r.brokers.Others, "5s").WithArguments(ctx()).
			Should(MatchError(ContainSubstring("broker empty has no connection")))
		Eventually(r.brokers.Ready, "10s").WithArguments(ctx()).Should(Succeed())
	})

	DescribeTable("A9 serves the others beside an exchange that the broker refuses, names it, and serves it too once it "+
		"may be declared",
		func(name string, spoil, mend func(*rig), why string) {
			host := rabbittest.NewHost()
			r := startAt(host, "")
			Eventually(r.brokers.Ready, "10s").WithArguments(ctx()).Should(Succeed())
			spoil(r)
			refused := r.register(name)
			id := r.workflow(refused)
			Eventually(r.brokers.Others, "10s").WithArguments(ctx()).
				Should(MatchError(And(ContainSubstring("exchange "+name+" "), ContainSubstring(why))))
			Consistently(r.brokers.Ready, "1s", "20ms").WithArguments(ctx()).Should(Succeed())
			healthy := r.workflow(r.exchange)
			o := received(host, "here.deployer")
			Expect(o.WorkflowID).To(Equal(healthy))
			host.Publish("here.workflow_orchestration", publishing(r.answer(o)))
			Eventually(func() string { return r.value(`SELECT workflow_completed::text FROM workflows WHERE id = $1`, healthy) },
				"5s").Should(Equal("true"))
			Eventually(func() []component.ExchangeID { return r.brokers.Consuming(time.Now()) }, "5s",
				"20ms").Should(Equal([]component.ExchangeID{r.exchange}))
			Expect(r.value(confirmed)).To(Equal("1"), "the refused one's order waits in the outbox")

			mend(r)
			Expect(received(host, "mended.deployer").WorkflowID).To(Equal(id))
			Eventually(r.brokers.Others, "5s").WithArguments(ctx()).Should(Succeed())
			Eventually(func() []component.ExchangeID { return r.brokers.Consuming(time.Now()) }, "5s",
				"20ms").Should(Equal([]component.ExchangeID{r.exchange, refused}))
		},
		Entry("a queue that somebody has made with other arguments", "mended",
			func(r *rig) { r.host.DeclareQueue("mended.deployer", amqp.Table{"x-max-length": int64(5)}) },
			func(r *rig) { r.host.DeleteQueue("mended.deployer") }, "inequivalent arg"),
		Entry("a result queue that somebody has made with other arguments", "mended",
			func(r *rig) { r.host.DeclareQueue("mended.workflow_orchestration", nil) },
			func(r *rig) { r.host.DeleteQueue("mended.workflow_orchestration") }, "inequivalent arg"),
		Entry("queue names that the broker keeps for itself", "amq", func(*rig) {}, func(r *rig) {
			_, err := r.db.Exec(`UPDATE messaging_exchanges SET routing_key_fragment = 'mended', routing_key = 'mended'
				WHERE name = 'amq'`)
			Expect(err).NotTo(HaveOccurred())
		}, "ACCESS_REFUSED"),
	)

	It("A9 is not ready while its own exchange is refused", func() {
		host := rabbittest.NewHost()
		host.DeclareQueue("here.deployer", nil)
		r := startAt(host, "")
		Eventually(r.brokers.Ready, "10s").WithArguments(ctx()).
			Should(MatchError(And(ContainSubstring("here.deployer"), ContainSubstring("inequivalent arg"))))
		host.DeleteQueue("here.deployer")
		Eventually(r.brokers.Ready, "10s").WithArguments(ctx()).Should(Succeed())
	})

	It("hears an exchange without a break while others are registered and deleted", func() {
		r := start()
		consuming := func() []component.ExchangeID { return r.brokers.Consuming(time.Now()) }
		Eventually(consuming, "10s", "20ms").Should(ConsistOf(r.exchange))
		other := r.register("other")
		Eventually(func(g Gomega) {
			list := consuming()
			Expect(list).To(ContainElement(r.exchange))
			g.Expect(list).To(ContainElement(other))
		}, "10s", "10ms").Should(Succeed())
		_, err := r.db.Exec(`DELETE FROM messaging_exchanges WHERE id = $1`, other)
		Expect(err).NotTo(HaveOccurred())
		Eventually(func(g Gomega) {
			list := consuming()
			Expect(list).To(ContainElement(r.exchange))
			g.Expect(list).NotTo(ContainElement(other))
		}, "10s", "10ms").Should(Succeed())
		Consistently(consuming, "400ms", "10ms").Should(ConsistOf(r.exchange))
	})

	It("A15 takes the failover broker after a while, and goes back", func() {
		r := start()
		far, spare := rabbittest.NewHost(), rabbittest.NewHost()
		proxy := rabbittest.NewProxy(far.Address())
		failover := r.broker("spare", spare, nil)
		u, err := url.Parse(far.Through(proxy.Address()))
		Expect(err).NotTo(HaveOccurred())
		id := r.registerOn("far", r.brokerAt("far", u, &failover))
		r.workflow(id)
		received(far, "far.deployer")
		address := proxy.Address()
		proxy.Close()
		r.workflow(id)
		diverted, later := received(spare, "far.deployer"), r.workflow(id)
		Expect(diverted.MessagingExchangeID).To(Equal(int64(id)))
		completed := func(workflow string) func() string {
			return func() string {
				return r.value(`SELECT workflow_completed::text FROM workflows WHERE id = $1`, workflow)
			}
		}
		spare.Publish("far.workflow_orchestration", publishing(r.answer(diverted)))
		Eventually(completed(diverted.WorkflowID), "5s").Should(Equal("true"))
		last := received(spare, "far.deployer")
		Expect(last.WorkflowID).To(Equal(later))
		Consistently(func() []component.ExchangeID { return r.brokers.Consuming(time.Now()) }, "2s",
			"50ms").ShouldNot(ContainElement(id),
			"results may wait on the broker that is away: no deadline runs")
		back := rabbittest.NewProxyAt(address, far.Address())
		DeferCleanup(back.Close)
		Eventually(func() error { return r.brokers.Others(ctx()) }, "20s").Should(Succeed())
		Eventually(func() bool { r.workflow(id); _, ok := taken(far, "far.deployer"); return ok }, "15s",
			"300ms").Should(BeTrue())
		// What an executor sent to the failover before it went back itself is heard.
		spare.Publish("far.workflow_orchestration", publishing(r.answer(last)))
		Eventually(completed(later), "5s").Should(Equal("true"))
	})

	It("shows a home exchange that is not registered, which gates nothing", func() {
		r := start()
		home := func() error { _, err := r.brokers.Home(ctx()); return err }
		Eventually(home, "10s").Should(Succeed())
		rename := func(name string) {
			_, err := r.db.Exec(`UPDATE messaging_exchanges SET name = $1`, name)
			Expect(err).NotTo(HaveOccurred())
		}
		rename("elsewhere")
		Eventually(home, "10s").Should(MatchError(ContainSubstring(`no exchange is named "here"`)))
		Eventually(func() error { return r.brokers.Ready(ctx()) }, "10s").Should(Succeed())
		rename("here")
		Eventually(home, "10s").Should(Succeed())
	})

	It("sweeps: an order that was confirmed and not claimed comes again", func() {
		r := start()
		r.workflow(r.exchange)
		first := received(r.host, "here.deployer")
		Eventually(func() string { return r.value(confirmed) }).Should(Equal("1"))
		Eventually(func() []component.ExchangeID { return r.brokers.Consuming(time.Now()) }, "10s",
			"20ms").ShouldNot(BeEmpty())
		_, err := r.db.Exec(`UPDATE orders SET confirmed_at = now() - interval '1 minute'`)
		Expect(err).NotTo(HaveOccurred())
		Expect(r.sweeper.Pass(ctx(), time.Now())).To(Succeed())
		Expect(received(r.host, "here.deployer").OrderID).To(Equal(first.OrderID))
	})
})

// broker registers a broker with one connection to a host, or none.
func (r *rig) broker(name string, host *rabbittest.Host, failover *int64) int64 {
	GinkgoHelper()
	if host == nil {
		return r.brokerAt(name, nil, failover)
	}
	u, err := url.Parse(host.URL)
	Expect(err).NotTo(HaveOccurred())
	return r.brokerAt(name, u, failover)
}

func (r *rig) brokerAt(name string, u *url.URL, failover *int64) int64 {
	GinkgoHelper()
	id, err := r.CreateBroker(ctx(), registry.BrokerSpec{Name: name, FailoverID: failover})
	Expect(err).NotTo(HaveOccurred())
	if u == nil {
		return id
	}
	port, err := strconv.ParseInt(u.Port(), 10, 64)
	Expect(err).NotTo(HaveOccurred())
	password, ok := u.User.Password()
	Expect(ok).To(BeTrue(), errors.New("the URL of the host has a password"))
	_, err = r.CreateConnection(ctx(), id, registry.ConnectionSpec{Username: u.User.Username(), Host: u.Hostname(),
		Port:        &port,
		VirtualHost: strings.TrimPrefix(u.Path, "/")}, boot.Secret(password), keys())
	Expect(err).NotTo(HaveOccurred())
	return id
}

// registerOn registers an exchange that is restricted to a broker from the first moment on: no relay sees it elsewhere.
func (r *rig) registerOn(name string, broker int64) component.ExchangeID {
	GinkgoHelper()
	var id component.ExchangeID
	Expect(r.db.Get(&id, `WITH x AS (INSERT INTO messaging_exchanges (name, routing_key_fragment, routing_key,
		root_exchange_name) VALUES ($1, $1, $1, $1) RETURNING id)
		INSERT INTO messaging_exchange_brokers (messaging_exchange_id, messaging_broker_id) SELECT id, $2 FROM x
		RETURNING messaging_exchange_id`, name, broker)).To(Succeed())
	return id
}

// logger writes to the report of a spec that fails.
func logger() *zap.Logger {
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig()),
		zapcore.AddSync(GinkgoWriter), zap.InfoLevel))
}
