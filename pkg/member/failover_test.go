package member_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/member"
	"github.com/openaperture/openaperture/pkg/rabbittest"
	"github.com/openaperture/openaperture/pkg/times"
)

// world is manager-api and the failover broker as the learner sees them.
type world struct {
	id          *int64
	connections []managerapi.BrokerConnection
	down        error // of manager-api
	unusable    error // the failover
	now         time.Time

	reads int
	urls  []string
}

func (w *world) Exchange(context.Context, component.ExchangeID) (managerapi.Exchange, error) {
	return managerapi.Exchange{ID: 7, Name: "x", FailoverBrokerID: w.id}, w.down
}

func (w *world) BrokerConnections(context.Context, int64) ([]managerapi.BrokerConnection, error) {
	w.reads++
	return w.connections, w.down
}

func (w *world) SetFailover(urls []string) error { w.urls = urls; return nil }
func (w *world) Failover() error                 { return w.unusable }

var _ = Describe("The failover broker of a member (A15)", func() {
	connection := func(host string, port *int) managerapi.BrokerConnection {
		return managerapi.BrokerConnection{Username: "u", Password: "p@/", Host: host, Port: port, VirtualHost: "/v"}
	}
	learned := func() (*world, func() error) {
		w := &world{id: new(int64(9)), connections: []managerapi.BrokerConnection{connection("a", nil)},
			now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
		learn := member.Learner(w, 7, w, func() time.Time { return w.now })
		ask := func() error { return learn(context.Background()) }
		Expect(ask()).To(Succeed())
		return w, ask
	}

	It("is one address for each connection, with TLS on the port of TLS", func() {
		w, ask := learned()
		w.id, w.connections = new(int64(10)), []managerapi.BrokerConnection{connection("a", nil), connection("b", new(5671))}
		Expect(ask()).To(Succeed())
		Expect(w.urls).To(Equal([]string{"amqp://u:p%40%2F@a:5672/%2Fv", "amqps://u:p%40%2F@b:5671/%2Fv"}))
	})

	DescribeTable("is asked for every minute, but its addresses are read only when that may bring news",
		func(change func(*world), reads int, urls int) {
			w, ask := learned()
			change(w)
			_ = ask()
			Expect(w.reads).To(Equal(reads))
			Expect(w.urls).To(HaveLen(urls))
		},
		Entry("the same, and usable", func(w *world) { w.now = w.now.Add(time.Hour) }, 1, 1),
		Entry("another broker", func(w *world) { w.id = new(int64(10)) }, 2, 1),
		Entry("none any more", func(w *world) { w.id = nil }, 1, 0),
		Entry("not usable since a moment", func(w *world) { w.unusable = errors.New("away") }, 1, 1),
		Entry("not usable for long", func(w *world) {
			w.unusable, w.now = errors.New("away"), w.now.Add(5*time.Minute)
			w.connections = append(w.connections, connection("b", nil))
		}, 2, 2),
		Entry("manager-api is away: what is known stays", func(w *world) { w.down = errors.New("away") }, 1, 1),
	)

	It("is read again if manager-api failed in between", func() {
		w := &world{id: new(int64(9)), down: errors.New("away")}
		learn := member.Learner(w, 7, w, time.Now)
		Expect(learn(context.Background())).NotTo(Succeed())
		w.down, w.connections = nil, []managerapi.BrokerConnection{connection("a", nil)}
		Expect(learn(context.Background())).To(Succeed())
		Expect(w.urls).To(HaveLen(1))
	})

	It("is used by the heartbeats, and by readiness, once the member's own broker is away", func() {
		other, link := rabbittest.NewHost(), rabbittest.NewProxy(host.Address())
		mux := http.NewServeMux()
		mux.HandleFunc("GET /messaging/exchanges/7", func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(managerapi.Exchange{ID: 7, Name: "left", RootExchangeName: "left", RoutingKey: "left",
				FailoverBrokerID: new(int64(9))})
		})
		mux.HandleFunc("GET /messaging/brokers/9/connections", func(w http.ResponseWriter, _ *http.Request) {
			user, password, address, port := other.Credentials()
			_ = json.NewEncoder(w).Encode([]map[string]any{{"id": 1, "username": user, "password": password, "host": address,
				"port": port, "virtual_host": other.Name}})
		})
		api := httptest.NewServer(mux)
		DeferCleanup(api.Close)
		env := newEnv()
		ctx, cancel := context.WithCancel(context.Background())
		cfg := member.Config{ManagerURL: api.URL, ManagerToken: "t", AMQPURL: boot.Secret(host.Through(link.Address())),
			ExchangeID: 7,
			Profile:    times.Fast, Times: times.Overrides{FailoverAfter: new(1500 * time.Millisecond)}}
		self, err := member.Join(ctx, cfg, env, component.Overseer)
		Expect(err).NotTo(HaveOccurred())
		ended := make(chan error, 1)
		go func() { ended <- env.RunParts(ctx, self.Parts()...) }()
		DeferCleanup(func() { cancel(); Eventually(ended).Should(Receive(BeNil())) })
		ready := func() bool { return env.Health.Report(ctx).Ready }
		Eventually(ready).Should(BeTrue())
		Eventually(func() int { return other.Depth("left.system_modules") }).Should(BeZero(), "declared, and unused")

		link.Close()
		Eventually(func() int { return other.Depth("left.system_modules") }).Should(BeNumerically(">", 0))
		Eventually(ready).Should(BeTrue())
	})
})
