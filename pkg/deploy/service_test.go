package deploy_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/deploy"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/member"
)

// starting is a start of an executor up to its exchange.
type starting struct {
	dir  string
	away bool // manager-api does not answer
	logs *observer.ObservedLogs
}

func newStarting() *starting { return &starting{dir: GinkgoT().TempDir()} }

func (s *starting) file() string { return filepath.Join(s.dir, "exchange.json") }

// save leaves the file of an earlier start behind, and says when that was.
func (s *starting) save(name string) time.Time {
	GinkgoHelper()
	text, err := json.Marshal(exchangeNamed(name))
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(s.file(), text, 0o600)).To(Succeed())
	earlier := time.Now().Add(-time.Hour).Truncate(time.Second)
	Expect(os.Chtimes(s.file(), earlier, earlier)).To(Succeed())
	return earlier
}

// fill makes it impossible to write the file, as a full disk does.
func (s *starting) fill() { Expect(os.Mkdir(s.file()+".new", 0o700)).To(Succeed()) }

func (s *starting) saved() (ex managerapi.Exchange) {
	GinkgoHelper()
	text, err := os.ReadFile(s.file())
	Expect(err).NotTo(HaveOccurred())
	Expect(json.Unmarshal(text, &ex)).To(Succeed())
	return ex
}

// join starts against a manager-api that knows the exchange as "now".
func (s *starting) join() (*member.Member, error) {
	manager := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if s.away {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_ = json.NewEncoder(w).Encode(exchangeNamed("now"))
	}))
	defer manager.Close()
	core, logs := observer.New(zap.WarnLevel)
	s.logs = logs
	env := &boot.Env{Log: zap.New(core), Health: boot.NewHealth(), Metrics: prometheus.NewRegistry(), Service: "deployer",
		Hostname: "h1"}
	return deploy.Join(context.Background(),
		deploy.ServiceConfig{Config: member.Config{ManagerURL: manager.URL, ManagerToken: "t",
			AMQPURL: "amqp://127.0.0.1/", ExchangeID: 7, StateDir: s.dir}}, env)
}

func exchangeNamed(name string) managerapi.Exchange {
	return managerapi.Exchange{ID: 7, Name: name, RootExchangeName: name, RoutingKey: name,
		Ancestors: []managerapi.Ancestor{{Name: "root"}}}
}

var _ = Describe("An executor that starts", func() {
	It("is refused without a place for its work files", func() {
		c := deploy.Executor{Name: "deployer"}.DefaultConfig()
		c.StateDir = "state"
		Expect(c.Validate()).To(MatchError(`state_dir "state": want an absolute path`))
	})

	It("saves what it has read of its exchange", func() {
		s := newStarting()
		self, err := s.join()
		Expect(err).NotTo(HaveOccurred())
		Expect(s.saved()).To(Equal(self.Exchange))
	})

	It("leaves the file alone when nothing has changed", func() {
		s := newStarting()
		earlier := s.save("now")
		_, err := s.join()
		Expect(err).NotTo(HaveOccurred())
		Expect(os.Stat(s.file())).To(HaveField("ModTime()", BeTemporally("==", earlier)))
	})

	It("saves what has changed", func() {
		s := newStarting()
		s.save("before")
		_, err := s.join()
		Expect(err).NotTo(HaveOccurred())
		Expect(s.saved()).To(Equal(exchangeNamed("now")))
	})

	It("needs neither manager-api nor room on the disk when it has a file", func() {
		s := newStarting()
		s.save("before")
		s.fill()
		s.away = true
		self, err := s.join()
		Expect(err).NotTo(HaveOccurred())
		Expect(self.Exchange).To(Equal(exchangeNamed("before")))
	})

	It("goes on with an old file, and says so, when it cannot save a newer one", func() {
		s := newStarting()
		s.save("before")
		s.fill()
		self, err := s.join()
		Expect(err).NotTo(HaveOccurred())
		Expect(self.Exchange).To(Equal(exchangeNamed("now")))
		Expect(s.logs.FilterMessageSnippet("not saved").Len()).To(Equal(1))
	})

	It("ends when it cannot save the first one: it could not start again without manager-api", func() {
		s := newStarting()
		s.fill()
		_, err := s.join()
		Expect(err).To(MatchError(ContainSubstring("save exchange")))
	})
})
