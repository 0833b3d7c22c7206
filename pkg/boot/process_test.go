package boot_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"
	"github.com/onsi/gomega/gexec"
)

func sampleProcess(env []string, args ...string) *gexec.Session {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append([]string{childEnv + "=1", "PATH=" + os.Getenv("PATH"), "HOSTNAME=box-1"}, env...)
	session, err := gexec.Start(cmd, GinkgoWriter, GinkgoWriter)
	Expect(err).ToNot(HaveOccurred())
	DeferCleanup(func() { session.Kill().Wait(5 * time.Second) })
	return session
}

var listening = regexp.MustCompile(`"listen":"([^"]+)"`)

func address(s *gexec.Session) string {
	Eventually(s.Err, "5s").Should(gbytes.Say("service is starting.*\n"))
	return string(listening.FindSubmatch(s.Err.Contents())[1])
}

func get(url string) (int, string) {
	res, err := http.Get(url)
	Expect(err).ToNot(HaveOccurred())
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	Expect(err).ToNot(HaveOccurred())
	return res.StatusCode, string(body)
}

// manager is a service manager that listens to sd_notify.
func manager() (env string, states chan string) {
	path := filepath.Join(GinkgoT().TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	Expect(err).ToNot(HaveOccurred())
	states, joined := make(chan string, 8), make(chan struct{})
	go func() {
		defer close(joined)
		buf := make([]byte, 256)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			states <- string(buf[:n])
		}
	}()
	DeferCleanup(func() { _ = c.Close(); Eventually(joined).Should(BeClosed()) })
	return "NOTIFY_SOCKET=" + path, states
}

var _ = Describe("A process", func() {
	It("becomes ready, tells the service manager, and stops cleanly on SIGTERM", func() {
		notify, states := manager()
		s := sampleProcess([]string{notify})
		url := "http://" + address(s)
		Eventually(states, "5s").Should(Receive(Equal("READY=1")))
		status, body := get(url + "/readyz")
		Expect(status).To(Equal(http.StatusOK))
		Expect(body).To(MatchJSON(`{"ready":true,"checks":[]}`))
		status, body = get(url + "/healthz")
		Expect(status).To(Equal(http.StatusOK))
		Expect(body).To(ContainSubstring(`"version":"1.2.3"`))
		_, body = get(url + "/metrics")
		Expect(body).To(ContainSubstring(`openaperture_build_info{service="sample",version="1.2.3"} 1`))
		status, _ = get(url + "/elsewhere")
		Expect(status).To(Equal(http.StatusNotFound))

		s.Terminate()
		Eventually(states, "5s").Should(Receive(Equal("STOPPING=1")))
		Eventually(s, "5s").Should(gexec.Exit(0))
		Expect(states).To(BeEmpty())
		Expect(s.Err).To(gbytes.Say("service has stopped"))
		Expect(bytes.Count(s.Err.Contents(), []byte(`"hostname":"box-1"`))).To(BeNumerically(">", 2))
	})

	It("is named after the host and the service without HOSTNAME: several services share a host", func() {
		host, err := os.Hostname()
		Expect(err).ToNot(HaveOccurred())
		s := sampleProcess([]string{"HOSTNAME="})
		address(s)
		s.Terminate()
		Eventually(s, "5s").Should(gexec.Exit(0))
		Expect(string(s.Err.Contents())).To(ContainSubstring(`"hostname":"` + host + `.sample"`))
	})

	It("is alive but not ready while it starts, and answers its routes with 503 then", func() {
		s := sampleProcess([]string{"OPENAPERTURE_BEHAVIOUR=starting"})
		url := "http://" + address(s)
		status, _ := get(url + "/healthz")
		Expect(status).To(Equal(http.StatusOK))
		status, body := get(url + "/readyz")
		Expect(status).To(Equal(http.StatusServiceUnavailable))
		Expect(body).To(MatchJSON(`{"ready":false,"checks":[{"name":"process","ok":false,"error":"starting"}]}`))
		status, _ = get(url + "/components/1")
		Expect(status).To(Equal(http.StatusServiceUnavailable))
		s.Interrupt()
		Eventually(s, "5s").Should(gexec.Exit(0))
	})

	It("serves the routes that are mounted, with paths as they came", func() {
		s := sampleProcess([]string{"OPENAPERTURE_BEHAVIOUR=routes"})
		url := "http://" + address(s)
		Eventually(func() string { _, body := get(url + "//x"); return body }).Should(Equal("route //x"))
	})

	It("lets requests in flight finish, and tells those that wait", func() {
		s := sampleProcess([]string{"OPENAPERTURE_BEHAVIOUR=routes"})
		url := "http://" + address(s)
		Eventually(func() int { status, _ := get(url + "/x"); return status }).Should(Equal(http.StatusOK))
		answer := make(chan string, 1)
		go func() {
			defer GinkgoRecover()
			_, body := get(url + "/wait")
			answer <- body
		}()
		Eventually(s.Err, "5s").Should(gbytes.Say("somebody waits"))
		s.Terminate()
		Eventually(answer, "5s").Should(Receive(Equal("route /wait")))
		Eventually(s, "5s").Should(gexec.Exit(0))
	})

	It("refuses headers without measure", func() {
		s := sampleProcess(nil)
		req, err := http.NewRequest(http.MethodGet, "http://"+address(s)+"/healthz", nil)
		Expect(err).ToNot(HaveOccurred())
		req.Header.Set("X-Long", strings.Repeat("x", 32<<10))
		res, err := http.DefaultClient.Do(req)
		Expect(err).ToNot(HaveOccurred())
		Expect(res.Body.Close()).To(Succeed())
		Expect(res.StatusCode).To(Equal(http.StatusRequestHeaderFieldsTooLarge))
	})

	It("ends at once with 130 on the second signal", func() {
		s := sampleProcess([]string{"OPENAPERTURE_BEHAVIOUR=ignore-stop", "OPENAPERTURE_LOG_FORMAT=json"})
		address(s)
		s.Terminate()
		Eventually(s.Err, "5s").Should(gbytes.Say("service is stopping"))
		s.Signal(syscall.SIGTERM)
		Eventually(s, "2s").Should(gexec.Exit(130))
	})

	It("does not wait for ever for a part that does not stop, and names it", func() {
		s := sampleProcess([]string{"OPENAPERTURE_BEHAVIOUR=ignore-stop", "OPENAPERTURE_SHUTDOWN_TIMEOUT=200ms"})
		address(s)
		s.Terminate()
		Eventually(s, "5s").Should(gexec.Exit(1))
		Expect(s.Err).To(gbytes.Say("sample: wait: did not stop within 150ms"))
	})

	It("ends with one line and 1 when Run fails", func() {
		s := sampleProcess([]string{"OPENAPERTURE_BEHAVIOUR=fail"})
		Eventually(s, "5s").Should(gexec.Exit(1))
		Expect(string(s.Err.Contents())).To(HaveSuffix("\nsample: migrate: no luck\n"))
	})

	It("survives panics of items, loops and checks, counts them, and logs each stack once (fault 9)", func() {
		s := sampleProcess([]string{"OPENAPERTURE_BEHAVIOUR=panics"})
		url := "http://" + address(s)
		metrics := func() string { _, body := get(url + "/metrics"); return body }
		Eventually(metrics, "5s").Should(And(ContainSubstring(`openaperture_panics_total{part="pass"} 1`),
			ContainSubstring(`openaperture_panics_total{part="judge"} 2`),
			ContainSubstring(`openaperture_panics_total{part="readyz"}`)))
		_, body := get(url + "/readyz")
		Expect(body).To(MatchJSON(`{"ready":false,"checks":[{"name":"check","ok":false,"error":"panicked: check boom"}]}`))
		s.Terminate()
		Eventually(s, "5s").Should(gexec.Exit(0))
		log := string(s.Err.Contents())
		Expect(strings.Count(log, `"error":"panicked: item boom"`)).To(Equal(2))
		Expect(strings.Count(log, `"error":"panicked: check boom"`)).To(BeNumerically(">", 1))
		Expect(strings.Count(log, `"stack":"goroutine`)).To(Equal(3), "one each of item, pass and check")
		Expect(log).To(MatchRegexp(`"part":"judge","item":"upgrade 1",.*"stack":".*boot_test.runSample`))
	})

	DescribeTable("stops in order, with one line, when what cannot be begun anew panics (fault 9)",
		func(behaviour, line string) {
			s := sampleProcess([]string{"OPENAPERTURE_BEHAVIOUR=" + behaviour})
			Eventually(s, "5s").Should(gexec.Exit(1))
			Expect(string(s.Err.Contents())).To(HaveSuffix("\nsample: " + line + "\n"))
			Expect(s.Err).To(gbytes.Say(`"stack":"goroutine`))
		},
		Entry("a part", "panicking-part", "wait: panicked: part boom"),
		Entry("run itself", "panicking-run", "panicked: run boom"),
	)

	It("says in one line that its port is taken", func() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		Expect(err).ToNot(HaveOccurred())
		DeferCleanup(l.Close)
		s := sampleProcess([]string{"OPENAPERTURE_LISTEN=" + l.Addr().String()})
		Eventually(s, "5s").Should(gexec.Exit(1))
		Expect(string(s.Err.Contents())).
			To(Equal(fmt.Sprintf("sample: listen on %s: address already in use: stop the other process or set listen / "+
				"OPENAPERTURE_LISTEN\n", l.Addr())))
	})

	It("checks the health of the one that runs", func() {
		s := sampleProcess([]string{"OPENAPERTURE_BEHAVIOUR=starting"})
		at := "OPENAPERTURE_LISTEN=" + address(s)
		Eventually(sampleProcess([]string{at}, "healthcheck"), "5s").Should(gexec.Exit(0))
		unready := sampleProcess([]string{at}, "healthcheck", "ready")
		Eventually(unready, "5s").Should(gexec.Exit(1))
		Expect(unready.Err).To(gbytes.Say("readyz answers 503"))
		s.Terminate()
		Eventually(s, "5s").Should(gexec.Exit(0))
		Eventually(sampleProcess([]string{at}, "healthcheck"), "5s").Should(gexec.Exit(1))
	})
})
