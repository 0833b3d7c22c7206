package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"
	"github.com/onsi/gomega/gexec"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/openaperture/openaperture/pkg/managerapi"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// manager is manager-api as one executor sees it: an exchange and orders.
type manager struct {
	*httptest.Server
	mu     sync.Mutex
	away   bool
	token  int64
	name   string
	orders map[string]*managerapi.OrderView
}

func newManager(name string) *manager {
	m := &manager{name: name, orders: map[string]*managerapi.OrderView{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /messaging/exchanges/7", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, managerapi.Exchange{ID: 7, Name: name, RootExchangeName: name, RoutingKey: name})
	})
	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, r *http.Request) {
		var p managerapi.Page[managerapi.OrderView]
		for _, v := range m.orders {
			if v.Holder == r.URL.Query().Get("holder") {
				p.Items = append(p.Items, *v)
			}
		}
		reply(w, p)
	})
	mux.HandleFunc("GET /orders/{id}", func(w http.ResponseWriter,
		r *http.Request) {
		reply(w, m.orders[r.PathValue("id")])
	})
	mux.HandleFunc("POST /orders/{id}/{verb}", func(w http.ResponseWriter, r *http.Request) {
		v, ok := m.orders[r.PathValue("id")]
		switch {
		case !ok:
			w.WriteHeader(http.StatusNotFound)
			return
		case r.PathValue("verb") == "claim":
			var c managerapi.ClaimRequest
			_ = json.NewDecoder(r.Body).Decode(&c)
			m.token++
			v.Holder, v.State, v.Token = c.Hostname, "claimed", m.token
		case r.PathValue("verb") == "release":
			v.Holder, v.State = "", "open"
		}
		reply(w, managerapi.Claim{Token: v.Token, ExpiresInMS: 6000, Order: *v.Order})
	})
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		switch {
		case m.away:
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.Header.Get("Authorization") != "Bearer t0ken":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			mux.ServeHTTP(w, r)
		}
	}))
	DeferCleanup(m.Close)
	return m
}

func reply(w http.ResponseWriter, body any) { _ = json.NewEncoder(w).Encode(body) }

func (m *manager) set(change func()) { m.mu.Lock(); defer m.mu.Unlock(); change() }

// order sends an order into the executor's queue.
func (m *manager) order(id string, o messages.Order) {
	GinkgoHelper()
	o.OrderID, o.WorkflowID, o.Attempt, o.Deadline = id, "w-"+id, 1, time.Now().Add(time.Hour)
	o.ProgressDeadlineMS, o.ComponentType, o.MessagingExchangeID = 60_000, "overseer", 7
	if o.HealthDeadlineMS == 0 {
		o.HealthDeadlineMS = 20_000
	}
	body, err := json.Marshal(o)
	Expect(err).NotTo(HaveOccurred())
	m.set(func() { m.orders[id] = &managerapi.OrderView{ID: id, State: "open", Attempt: 1, Order: &o} })
	host.Publish(m.name+".deploy_oa", amqp.Publishing{Body: body})
}

// result waits for the final result of an order, and has manager-api learn it.
func (m *manager) result(id string) messages.Result {
	GinkgoHelper()
	var last messages.Result
	Eventually(func() bool {
		d, ok := host.Get(m.name + ".workflow_orchestration")
		if !ok {
			return false
		}
		r, _, err := messages.DecodeResult(d.Body)
		Expect(err).NotTo(HaveOccurred())
		last = r
		return r.OrderID == id && r.EventType != messages.EventMilestoneProgress
	}).Should(BeTrue())
	m.set(func() { m.orders[id].State, m.orders[id].Holder, m.orders[id].Settled = "completed", "", true })
	return last
}

// site is a host with a unitd, and a place for one executor's state.
type site struct {
	dir, config, socket string
}

func newSite() *site {
	GinkgoHelper()
	dir, err := os.MkdirTemp("", "doa-spec-")
	Expect(err).NotTo(HaveOccurred())
	s := &site{dir: dir, config: filepath.Join(dir, "unitd.yaml"), socket: filepath.Join(dir, "s")}
	text := fmt.Sprintf("listen: 127.0.0.1:0\nsocket: %s\nstate_dir: %s/unitd\n", s.socket, dir)
	Expect(os.WriteFile(s.config, []byte(text), 0o600)).To(Succeed())
	session, err := gexec.Start(exec.Command(unitd, "--config", s.config), GinkgoWriter, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() {
		Eventually(session.Terminate()).Should(gexec.Exit(0))
		out, err := exec.Command(unitd, "--config", s.config, "stop-all").CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(out))
		Expect(os.RemoveAll(dir)).To(Succeed())
	})
	Eventually(func() error { _, err := net.Dial("unix", s.socket); return err }).Should(Succeed())
	return s
}

// process is one deployer-oa as it is shipped.
type process struct {
	*gexec.Session
	url string
}

func (s *site) start(m *manager) *process {
	GinkgoHelper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	address := l.Addr().String()
	Expect(l.Close()).To(Succeed())
	command := exec.Command(binary)
	command.Env = append(os.Environ(), "HOSTNAME=box.deployer-oa-1", "OPENAPERTURE_LISTEN="+address,
		"OPENAPERTURE_MANAGER_URL="+m.URL,
		"OPENAPERTURE_MANAGER_TOKEN=t0ken", "OPENAPERTURE_AMQP_URL="+host.URL, "OPENAPERTURE_EXCHANGE_ID=7",
		"OPENAPERTURE_PROFILE=fast",
		"OPENAPERTURE_STATE_DIR="+filepath.Join(s.dir, "state"), "OPENAPERTURE_ALLOW_LOCAL_REPOS=true",
		"GORACE=atexit_sleep_ms=0")
	session, err := gexec.Start(command, GinkgoWriter, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() {
		Eventually(session.Kill()).Should(gexec.Exit())
		Expect(string(session.Err.Contents())).NotTo(Or(ContainSubstring("DATA RACE"), ContainSubstring("t0ken")))
	})
	p := &process{Session: session, url: "http://" + address}
	Eventually(p.readyz).Should(Equal(200))
	return p
}

func (p *process) readyz() int {
	res, err := http.Get(p.url + "/readyz")
	if err != nil {
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// runs lists what unitd runs as "name command state".
func (s *site) runs() []string {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", s.socket)
		}}}
	read := func(path string, into any) {
		res, err := client.Get("http://unitd/fleet/v1/" + path)
		Expect(err).NotTo(HaveOccurred())
		defer func() { _ = res.Body.Close() }()
		Expect(json.NewDecoder(res.Body).Decode(into)).To(Succeed())
	}
	var units struct {
		Units []messages.UnitDefinition `json:"units"`
	}
	var states struct {
		States []struct {
			Name   string `json:"name"`
			Active string `json:"systemdActiveState"`
		} `json:"states"`
	}
	read("units", &units)
	read("state", &states)
	active := map[string]string{}
	for _, st := range states.States {
		active[st.Name] = st.Active
	}
	var list []string
	for _, u := range units.Units {
		list = append(list, u.Name+" "+u.Options[0].Value+" "+active[u.Name])
	}
	return list
}

func git(dir string, args ...string) string {
	GinkgoHelper()
	command := exec.Command("git", args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
	out, err := command.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
	return strings.TrimSpace(string(out))
}

// repos makes a deployment repository and a source repository with the tags v1 and v2.
func repos() (deployment, source string) {
	deployment, source = GinkgoT().TempDir(), GinkgoT().TempDir()
	git(deployment, "init", "-q", "-b", "master")
	for file, text := range map[string]string{"etcd.json": `{"token":"c1"}`, "fleet.json": `{"instance_cnt":3}`,
		"overseer@.service.tmpl": "[Unit]\nDescription={{.source_ref}}\n[Service]\nExecStart=/bin/sleep 1000\n"} {
		Expect(os.WriteFile(filepath.Join(deployment, file), []byte(text), 0o600)).To(Succeed())
	}
	git(deployment, "add", "-A")
	git(deployment, "commit", "-q", "-m", "x")
	git(source, "init", "-q", "-b", "master")
	for _, tag := range []string{"v1", "v2"} {
		git(source, "commit", "-q", "--allow-empty", "-m", tag)
		git(source, "tag", tag)
	}
	return deployment, source
}

// deploy is the deploy order that follows from a config result.
func (s *site) deploy(r messages.Result) messages.Order {
	return messages.Order{CurrentStep: messages.MilestoneDeployOA, DeployableUnits: r.DeployableUnits,
		FleetConfig: r.FleetConfig, EtcdToken: r.EtcdToken,
		Cluster: &messages.Cluster{EtcdToken: r.EtcdToken, Runtime: "fleet", Endpoint: "unix:" + s.socket}}
}

var _ = Describe("A deployer-oa", func() {
	running := func(ref string) []string {
		var list []string
		for i := 1; i <= 3; i++ {
			list = append(list, fmt.Sprintf("overseer@%d.service %s active", i, ref))
		}
		return list
	}

	It("renders a release, deploys it, upgrades it in place, and beats as a deployer", func() {
		m, s := newManager("story"), newSite()
		deployment, source := repos()
		s.start(m)
		for _, ref := range []string{"v1", "v2"} {
			m.order("config-"+ref, messages.Order{CurrentStep: messages.MilestoneConfig, DeploymentRepo: deployment,
				DeploymentRepoGitRef: "master", SourceRepo: source, SourceRepoGitRef: ref})
			release := m.result("config-" + ref)
			Expect(release.EventType).To(Equal(messages.EventMilestoneCompleted), release.Message)
			Expect(release.SourceCommitHash).To(Equal(git(source, "rev-parse", ref)))
			began := time.Now()
			m.order("deploy-"+ref, s.deploy(release))
			r := m.result("deploy-" + ref)
			GinkgoWriter.Println("deploy of", ref, "took", time.Since(began), r.Steps, "after", release.Steps)
			Expect(r.EventType).To(Equal(messages.EventMilestoneCompleted), r.Message)
			Expect(r.Instances).To(Equal(3))
			Expect(s.runs()).To(Equal(running(ref)))
		}
		d, ok := host.Get("story.system_modules")
		Expect(ok).To(BeTrue())
		beat, _, err := messages.DecodeModuleStatus(d.Body)
		Expect(err).NotTo(HaveOccurred())
		Expect([]string{beat.Type, beat.Service, beat.Hostname, beat.SourceRepoGitRef,
			beat.Status}).To(Equal([]string{"deployer", "deployer-oa", "box.deployer-oa-1", "v9", "active"}))
		Eventually(func() ([]string,
			error) {
			return filepath.Glob(filepath.Join(s.dir, "state", "work", "*.json"))
		}).Should(BeEmpty())
	})

	It("killed amid a deploy, finishes it at the next start although manager-api is away (D1, D19)", func() {
		m, s := newManager("killed"), newSite()
		p := s.start(m)
		three := 3
		order := s.deploy(messages.Result{EtcdToken: "c1", FleetConfig: &messages.FleetConfig{InstanceCount: &three},
			DeployableUnits: []messages.UnitDefinition{{Name: "overseer@.service",
				Options: []messages.Option{{Section: "Unit", Name: "Description", Value: "v1"},
					{Section: "Service", Name: "ExecStart", Value: "/bin/sleep 1000"}}}}})
		order.MinHealthyMS = 500
		m.order("d1", order)
		Eventually(s.runs).Should(HaveLen(1))
		p.Kill()
		Eventually(p.Session).Should(gexec.Exit())
		Expect(s.runs()).To(HaveLen(1))
		m.set(func() { m.away = true })
		s.start(m)
		r := m.result("d1")
		Expect(r.EventType).To(Equal(messages.EventMilestoneCompleted), r.Message)
		Expect(r.Token).To(Equal(int64(1)))
		Expect(s.runs()).To(Equal(running("v1")))
	})

	It("puts back what ran, when the new version does not get healthy, and tells why", func() {
		m, s := newManager("failing"), newSite()
		s.start(m)
		one := 1
		version := func(ref, command string) messages.Order {
			o := s.deploy(messages.Result{EtcdToken: "c1", FleetConfig: &messages.FleetConfig{InstanceCount: &one},
				DeployableUnits: []messages.UnitDefinition{{Name: "overseer@.service",
					Options: []messages.Option{{Section: "Unit", Name: "Description", Value: ref},
						{Section: "Service", Name: "ExecStart", Value: command}}}}})
			o.HealthDeadlineMS, o.MinHealthyMS = 1500, 300
			return o
		}
		m.order("good", version("v1", "/bin/sleep 1000"))
		Expect(m.result("good").EventType).To(Equal(messages.EventMilestoneCompleted))
		m.order("bad", version("v2", "/bin/sh -c 'echo no luck with amqp://u:s3cret@box; exit 3'"))
		r := m.result("bad")
		Expect([]string{r.EventType, string(r.Cause), r.Reason}).To(Equal([]string{messages.EventMilestoneFailed, "version",
			"deploy_unhealthy"}))
		Expect([]bool{r.Touched, r.Restored}).To(Equal([]bool{true, true}))
		Expect(r.Message).To(Equal("overseer@1.service did not get healthy within 1.5s " +
			"and what ran before is back: look at its log"))
		Expect(r.Log).To(ContainSubstring("no luck with amqp://…@box"))
		Expect(r.Log).To(HavePrefix("unitd: starting overseer@1.service"), "of the failing instance's last start")
		Expect(strings.Count(r.Log, "unitd: starting")).To(Equal(1))
		Expect(s.runs()).To(Equal([]string{"overseer@1.service v1 active"}))
	})

	It("says inactive last when it is stopped", func() {
		m, s := newManager("stopped"), newSite()
		p := s.start(m)
		Eventually(func() int { return host.Depth("stopped.system_modules") }).Should(BeNumerically(">", 0))
		p.Signal(syscall.SIGTERM)
		Eventually(p.Session, "10s").Should(gexec.Exit(0))
		status := ""
		for {
			d, ok := host.Get("stopped.system_modules")
			if !ok {
				break
			}
			beat, _, err := messages.DecodeModuleStatus(d.Body)
			Expect(err).NotTo(HaveOccurred())
			status = beat.Status
		}
		Expect(status).To(Equal("inactive"))
	})
})

var _ = Describe("Two executors", func() {
	It("do not share a state directory", func() {
		m, s := newManager("shared"), newSite()
		s.start(m)
		second := exec.Command(binary)
		second.Env = append(os.Environ(), "OPENAPERTURE_LISTEN=127.0.0.1:0", "OPENAPERTURE_MANAGER_URL="+m.URL,
			"OPENAPERTURE_MANAGER_TOKEN=t0ken",
			"OPENAPERTURE_AMQP_URL="+host.URL, "OPENAPERTURE_EXCHANGE_ID=7",
			"OPENAPERTURE_STATE_DIR="+filepath.Join(s.dir, "state"))
		session, err := gexec.Start(second, GinkgoWriter, GinkgoWriter)
		Expect(err).NotTo(HaveOccurred())
		Eventually(session).Should(gexec.Exit(1))
		Expect(string(session.Err.Contents())).To(ContainSubstring("another process uses"))
	})
})

var _ = Describe("A graceful stop", func() {
	It("finishes the instance in hand, answers probes, gives the claim back and leaves the next order in the queue",
		func() {
			m, s := newManager("graceful"), newSite()
			p := s.start(m)
			three := 3
			order := s.deploy(messages.Result{EtcdToken: "c1", FleetConfig: &messages.FleetConfig{InstanceCount: &three},
				DeployableUnits: []messages.UnitDefinition{{Name: "overseer@.service", Options: []messages.Option{
					{Section: "Unit", Name: "Description", Value: "v1"},
					{Section: "Service", Name: "ExecStart", Value: "/bin/sleep 1000"}}}}})
			probe := messages.Order{CurrentStep: messages.MilestoneProbe}
			order.MinHealthyMS = 3000
			m.order("d1", order)
			Eventually(s.runs).Should(HaveLen(1))
			m.order("d2", probe)
			Expect(m.result("d2").EventType).To(Equal(messages.EventMilestoneCompleted))
			p.Signal(syscall.SIGTERM)
			Eventually(p.Err).Should(gbytes.Say("no order is begun any more"))
			m.order("d3", order)
			m.order("d4", probe)
			Expect(m.result("d4").EventType).To(Equal(messages.EventMilestoneCompleted))
			Eventually(p.Session, "10s").Should(gexec.Exit(0))
			Expect(s.runs()).To(Equal([]string{"overseer@1.service v1 active"}))
			m.set(func() {
				Expect(m.orders["d1"].State).To(Equal("open"))
				Expect(m.orders["d3"].Token).To(BeZero())
				m.orders["d3"].Order.MinHealthyMS = 100
			})
			Eventually(func() int { return host.Depth("graceful.deploy_oa") }).Should(Equal(1))
			s.start(m)
			Expect(m.result("d3").EventType).To(Equal(messages.EventMilestoneCompleted))
		})
})
