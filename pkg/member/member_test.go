package member_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/member"
	"github.com/openaperture/openaperture/pkg/times"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// manager answers for one exchange, after as many refusals as it was given.
type manager struct {
	*httptest.Server
	calls atomic.Int64
}

func newManager(ex managerapi.Exchange, refusals ...int) *manager {
	m := &manager{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := int(m.calls.Add(1)); n <= len(refusals) {
			w.WriteHeader(refusals[n-1])
			return
		}
		if r.URL.Path != "/messaging/exchanges/7" || r.Header.Get("Authorization") != "Bearer t" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(ex)
	}))
	DeferCleanup(m.Close)
	return m
}

func newEnv() *boot.Env {
	return &boot.Env{Log: zap.NewNop(), Health: boot.NewHealth(), Metrics: prometheus.NewRegistry(), Service: "overseer",
		Version:  "v1",
		Hostname: "h1", BootID: "b1"}
}

func beats(queue string) func() []string {
	var seen []string
	return func() []string {
		for {
			d, ok := host.Get(queue)
			if !ok {
				return seen
			}
			m, _, err := messages.DecodeModuleStatus(d.Body)
			Expect(err).NotTo(HaveOccurred())
			seen = append(seen, m.Hostname+" "+m.Type+" "+m.Status)
		}
	}
}

var _ = Describe("A member", func() {
	It("waits for manager-api and its exchange, unready, then beats, and says goodbye last", func() {
		m := newManager(managerapi.Exchange{ID: 7, Name: "joining", RootExchangeName: "joining", RoutingKey: "joining"}, 503,
			401, 404)
		env := newEnv()
		ctx, cancel := context.WithCancel(context.Background())
		var working atomic.Bool
		ended := make(chan error, 1)
		go func() {
			cfg := member.Config{ManagerURL: m.URL, ManagerToken: "t", AMQPURL: boot.Secret(host.URL), ExchangeID: 7,
				Profile: times.Fast}
			self, err := member.Join(ctx, cfg, env, component.Overseer)
			if err != nil {
				ended <- err
				return
			}
			ended <- env.RunParts(ctx, self.Parts(loop.Part{Name: "work", Run: func(ctx context.Context) error {
				working.Store(true)
				<-ctx.Done()
				if err := self.Broker.Ready(); err != nil { // the broker outlives its users
					return err
				}
				return nil
			}})...)
		}()
		stop := sync.OnceFunc(func() { cancel(); Eventually(ended).Should(Receive(BeNil())) })
		DeferCleanup(stop)

		Eventually(func() bool { return env.Health.Report(ctx).Ready }).Should(BeTrue())
		Expect(m.calls.Load()).To(BeElementOf(int64(4), int64(5)), "until it has joined, and for the failover broker")
		heard := beats("joining.system_modules")
		Eventually(heard).Should(ContainElement("h1 overseer active"))
		Expect(working.Load()).To(BeTrue())
		stop()
		all := heard()
		Expect(all[len(all)-1]).To(Equal("h1 overseer inactive"))
	})

	It("says in /readyz why it has not joined", func() {
		m := newManager(managerapi.Exchange{}, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404, 404,
			404, 404)
		env := newEnv()
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			_, err := member.Join(ctx, member.Config{ManagerURL: m.URL, ManagerToken: "t", AMQPURL: boot.Secret(host.URL),
				ExchangeID: 7},
				env, component.Overseer)
			ended <- err
		}()
		Eventually(func() string {
			for _, c := range env.Health.Report(ctx).Checks {
				if c.Name == "exchange" {
					return c.Error
				}
			}
			return ""
		}).Should(ContainSubstring("read exchange 7: GET /messaging/exchanges/7: 404"))
		cancel()
		Eventually(ended).Should(Receive(MatchError(context.Canceled)))
	})

	DescribeTable("that joined before is not held up by an absent manager-api",
		func(name string, calls int64, refusals ...int) {
			m := newManager(managerapi.Exchange{ID: 7, Name: "now", RootExchangeName: "now", RoutingKey: "now"}, refusals...)
			env := newEnv()
			cfg := member.Config{ManagerURL: m.URL, ManagerToken: "t", AMQPURL: boot.Secret(host.URL), ExchangeID: 7}
			self, err := member.Rejoin(context.Background(), cfg, env, component.Deployer,
				managerapi.Exchange{ID: 7, Name: "before"})
			Expect(err).NotTo(HaveOccurred())
			Expect(self.Exchange.Name).To(Equal(name))
			Expect(m.calls.Load()).To(Equal(calls))
		},
		Entry("and takes its exchange as it was", "before", int64(1), http.StatusServiceUnavailable),
		Entry("and takes its exchange as it is when that is answered, asked for once", "now", int64(1)),
		Entry("but waits if it is refused", "now", int64(3), http.StatusForbidden, http.StatusForbidden),
	)
})
