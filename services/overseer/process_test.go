package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"
	"github.com/onsi/gomega/gexec"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/module"
	"github.com/openaperture/openaperture/pkg/rabbittest"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// process is one overseer as it is shipped.
type process struct {
	*gexec.Session
	url string
}

func start(m *manager, hostname, amqpURL string) *process {
	GinkgoHelper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	address := l.Addr().String()
	Expect(l.Close()).To(Succeed())
	command := exec.Command(binary)
	command.Env = append(os.Environ(), "HOSTNAME="+hostname, "OPENAPERTURE_LISTEN="+address,
		"OPENAPERTURE_MANAGER_URL="+m.URL,
		"OPENAPERTURE_MANAGER_TOKEN=t0ken", "OPENAPERTURE_AMQP_URL="+amqpURL, "OPENAPERTURE_EXCHANGE_ID=7",
		"OPENAPERTURE_PROFILE=fast")
	session, err := gexec.Start(command, GinkgoWriter, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Eventually(session.Kill()).Should(gexec.Exit()) })
	return &process{Session: session, url: "http://" + address}
}

func (p *process) readyz() int {
	res, err := http.Get(p.url + "/readyz")
	if err != nil {
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// report is the body of /readyz without space.
func (p *process) report() string {
	GinkgoHelper()
	return strings.Join(strings.Fields(p.get("/readyz")), "")
}

func (p *process) metrics() string { GinkgoHelper(); return p.get("/metrics") }

func (p *process) get(path string) string {
	GinkgoHelper()
	res, err := http.Get(p.url + path)
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	Expect(err).NotTo(HaveOccurred())
	return string(body)
}

// stop asks the process to end and expects a clean end within five seconds.
func (p *process) stop() {
	GinkgoHelper()
	p.Signal(syscall.SIGTERM)
	Eventually(p.Session, "5s").Should(gexec.Exit(0))
}

var _ = Describe("An overseer", func() {
	It("leads, hears its own heartbeats come back, and covers the exchange", func() {
		m := newManager("lead")
		p := start(m, "o1", host.URL)
		Eventually(p.readyz).Should(Equal(200))
		Eventually(m.coverage).Should(Equal("no yes"))
		Expect(m.heard()["o1 active"]).To(BeNumerically(">", 0))
		Eventually(m.written).Should(ContainElement("POST /messaging/exchanges/7/modules/expire <nil>"), "covered, it sweeps")
		Eventually(p.report).Should(ContainSubstring(`{"name":"covers","ok":true}`))
		Expect(p.Err.Contents()).NotTo(ContainSubstring("t0ken"))
	})

	It("resigns first of all on SIGTERM, says inactive last, and ends within five seconds", func() {
		m := newManager("resign")
		p := start(m, "o1", host.URL)
		Eventually(m.coverage).Should(HaveSuffix("yes"))
		p.stop()
		Expect(m.written()).To(ContainElement("resign o1"))
		var last messages.ModuleStatus
		for { // nobody leads: the last beat still waits in the queue
			d, ok := host.Get("resign.system_modules")
			if !ok {
				break
			}
			var err error
			last, _, err = messages.DecodeModuleStatus(d.Body)
			Expect(err).NotTo(HaveOccurred())
		}
		Expect(last.Status).To(Equal("inactive"))
		Expect(*last.SentAt).To(BeTemporally(">=", m.resigned.Truncate(time.Microsecond)))
	})

	It("follows while another leads, ready all the while, and takes over when that one stops (C1, C14)", func() {
		m := newManager("follow")
		first := start(m, "o1", host.URL)
		Eventually(m.written).Should(ContainElement("lead o1"))
		second := start(m, "o2", host.URL)
		Eventually(second.readyz).Should(Equal(200))
		Eventually(func() int { return m.heard()["o2 active"] }).
			Should(BeNumerically(">", 1), "a follower beats, and the leader hears it")
		Expect(m.written()).NotTo(ContainElement("lead o2"))
		first.stop()
		Eventually(m.written, "5s").Should(ContainElement("lead o2"))
		Eventually(m.coverage).Should(Equal("no yes"), "a new term covers anew (HB9)")
		Eventually(func() int { return m.heard()["o1 inactive"] }).Should(Equal(1))
	})

	It("that was stopped for longer than its lease follows the new leader and writes nothing (C2, I3)", func() {
		m := newManager("stopped")
		first := start(m, "o1", host.URL)
		Eventually(m.coverage).Should(HaveSuffix("yes"))
		second := start(m, "o2", host.URL)
		Eventually(second.readyz).Should(Equal(200))
		first.Signal(syscall.SIGSTOP)
		Eventually(m.written).Should(ContainElement("lead o2"))
		Eventually(m.coverage).Should(HaveSuffix("yes"))
		before := len(m.written())
		first.Signal(syscall.SIGCONT)
		Eventually(first.Err).Should(gbytes.Say("no longer leading"))
		Eventually(first.report).Should(ContainSubstring(`{"name":"leads","ok":false`))
		Consistently(m.leadership, "2s").Should(Equal("lead o1, lead o2"))
		Expect(m.written()[before:]).NotTo(ContainElement(HavePrefix("stale")))
		Eventually(m.coverage).Should(HaveSuffix("yes"), "the new leader hears all the while, or again")
	})

	It("hands over when it hears nothing although its subscriptions stand, and the other covers (fault 7)", func() {
		m := newManager("deaf")
		proxy := newDeafener(host.Address())
		first := start(m, "o1", host.Through(proxy.listener.Addr().String()))
		Eventually(m.coverage).Should(HaveSuffix("yes"))
		second := start(m, "o2", host.URL)
		Eventually(second.readyz).Should(Equal(200))
		proxy.deaf.Store(true)
		Eventually(proxy.swallows.Load).Should(BeNumerically(">", 0))
		Eventually(m.written).Should(ContainElements("resign o1", "lead o2"))
		Eventually(m.coverage).Should(Equal("no yes"))
		Expect(first.readyz()).To(Equal(200), "its own heartbeats are sent, it is a follower")
		Consistently(m.written, "5s").ShouldNot(ContainElement("resign o2"))
		second.stop()
		Eventually(m.leadership).Should(Equal("lead o1, resign o1, lead o2, resign o2, lead o1, resign o1"))
	})

	It("starts covered time anew after the broker was cut, and is ready again", func() {
		m := newManager("cut")
		proxy := rabbittest.NewProxy(host.Address())
		p := start(m, "o1", host.Through(proxy.Address()))
		Eventually(m.coverage).Should(HaveSuffix("yes"))
		proxy.Reset()
		Eventually(m.coverage).Should(HaveSuffix("yes no yes"))
		Eventually(p.readyz).Should(Equal(200))
	})

	It("stays ready while manager-api is away, and leads anew under a new term", func() {
		m := newManager("away")
		m.snapshot.Components = []component.Component{{ID: 1, Type: "builder", SourceRepo: "r", SourceRepoGitRef: "v1",
			Strategy: component.Manual}}
		m.snapshot.Refs = []component.Ref{{Type: "builder", SourceRepo: "r", SourceRepoGitRef: "v1"}}
		p := start(m, "o1", host.URL)
		Eventually(m.coverage).Should(HaveSuffix("yes"))
		Eventually(p.metrics).Should(ContainSubstring(`openaperture_overseer_components{verdict="missing"} 1`))
		m.set(func() { m.away = true })
		Eventually(func() bool { m.mu.Lock(); defer m.mu.Unlock(); return time.Now().After(m.expires) }).Should(BeTrue())
		Consistently(p.readyz, "1s", "100ms").Should(Equal(200))
		Expect(p.report()).To(And(ContainSubstring(`{"name":"leads","ok":false`),
			ContainSubstring(`{"name":"covers","ok":false`)))
		Expect(p.metrics()).To(And(ContainSubstring("openaperture_overseer_covered_seconds 0\n"),
			ContainSubstring(`openaperture_overseer_components{verdict="missing"} 0`)))
		m.set(func() { m.away = false })
		Eventually(func() int64 { m.mu.Lock(); defer m.mu.Unlock(); return m.lease.Term }).Should(Equal(int64(2)))
		Eventually(m.coverage).Should(Equal("no yes"))
	})

	It("lives on when its host is cut off from everything for long, and leads anew afterwards (A5)", func() {
		m := newManager("island")
		proxy := rabbittest.NewProxy(host.Address())
		p := start(m, "o1", host.Through(proxy.Address()))
		Eventually(m.coverage).Should(HaveSuffix("yes"))
		proxy.Stall()
		m.set(func() { m.away = true })
		Eventually(p.Err).Should(gbytes.Say("no longer leading"))
		Eventually(p.Err).Should(gbytes.Say("slow to end"))
		Consistently(p.Session, "5s", "100ms").ShouldNot(gexec.Exit())
		m.set(func() { m.away = false })
		proxy.Resume()
		Eventually(func() int64 { m.mu.Lock(); defer m.mu.Unlock(); return m.lease.Term }).Should(Equal(int64(2)))
		Eventually(m.coverage).Should(Equal("no yes"))
		p.stop()
	})

	It("makes an upgrade of a message's request, starts it, and proves it as soon as the modules are heard", func() {
		m := newManager("story")
		run := managerapi.OpenUpgrade{Upgrade: managerapi.Upgrade{ID: "u1", ComponentID: 1, ComponentType: "builder",
			Trigger: upgrade.TriggerRequest,
			State:   upgrade.Requested, To: upgrade.Version{SourceRepo: "r", SourceRepoGitRef: "v2"}}}
		m.snapshot = managerapi.Snapshot{
			Components: []component.Component{{ID: 1, Type: "builder", SourceRepo: "r", SourceRepoGitRef: "v1",
				DeploymentRepo:       "d",
				DeploymentRepoGitRef: "main", Strategy: component.Manual}},
			Refs:   []component.Ref{{Type: "builder", SourceRepo: "r", SourceRepoGitRef: "v2", AutoUpgradeEnabled: true}},
			Counts: []module.Count{{Type: component.Deployer, Service: "deployer-oa", Live: 1, Total: 1}}}
		m.onWrite = func(write string) {
			switch write {
			case "POST /upgrades builder":
				m.snapshot.Upgrades = []managerapi.OpenUpgrade{run}
			case "POST /upgrades/u1/start <nil>":
				run.State, run.Step = upgrade.Verifying, upgrade.StepVerify
				run.Need = &upgrade.Need{Type: "builder", Count: 1, Ref: "v2"}
				m.snapshot.Upgrades = []managerapi.OpenUpgrade{run}
			case "POST /upgrades/u1/proven <nil>":
				m.snapshot.Upgrades = nil
			}
		}
		start(m, "o1", host.URL)
		Eventually(m.coverage).Should(HaveSuffix("yes"))
		host.Publish("story.overseer", amqp.Publishing{
			Body: []byte(`{"action":"upgrade_request","options":{"component_type":"builder"}}`)})
		Eventually(m.written).Should(ContainElements("POST /upgrades builder", "POST /upgrades/u1/start <nil>"))
		Expect(m.written()).NotTo(ContainElement("POST /upgrades/u1/proven <nil>"))

		m.set(func() {
			m.snapshot.Modules = []module.Module{{Hostname: "b1", Type: "builder", Status: module.Active, SourceRepoGitRef: "v2",
				LastSeen: time.Now()}}
		})
		host.Publish("story.system_modules", amqp.Publishing{Body: fmt.Appendf(nil,
			`{"event_type":"status","hostname":"b1","type":"builder","status":"active"}`)})
		Eventually(m.written, "2s").Should(ContainElement("POST /upgrades/u1/proven <nil>"))
	})

	It("ships a sample configuration that is valid once its secrets are filled in", func() {
		path := filepath.Join(GinkgoT().TempDir(), "overseer.yaml")
		Expect(os.WriteFile(path, sample, 0o600)).To(Succeed())
		_, err := boot.Load(defaultConfig(), path)
		Expect(err).To(MatchError(ContainSubstring("manager_token: set it or manager_token_file")))
		GinkgoT().Setenv("OPENAPERTURE_MANAGER_TOKEN", "t")
		GinkgoT().Setenv("OPENAPERTURE_AMQP_URL", "amqp://127.0.0.1/")
		c, err := boot.Load(defaultConfig(), path)
		Expect(err).NotTo(HaveOccurred())
		Expect(c.ExchangeID).To(Equal(1))
	})
})
