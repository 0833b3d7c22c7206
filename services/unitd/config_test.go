package main_test

import (
	"fmt"
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
	"github.com/onsi/gomega/gexec"
)

// launch runs the binary with a configuration of its own.
func launch(config string, args ...string) *gexec.Session {
	GinkgoHelper()
	file := filepath.Join(GinkgoT().TempDir(), "unitd.yaml")
	Expect(os.WriteFile(file, []byte(config), 0o600)).To(Succeed())
	command := exec.Command(program, append([]string{"--config", file}, args...)...)
	command.Env = append(os.Environ(), noLinger)
	session, err := gexec.Start(command, GinkgoWriter, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { session.Kill().Wait(patience) })
	return session
}

// freePort finds one below the kernel's ephemeral range.
func freePort() (net.Listener, int) {
	GinkgoHelper()
	for port := 21900; port < 21999; port++ {
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return l, port
		}
	}
	Fail("no free port")
	return nil, 0
}

var _ = Describe("The command line", Label("direct"), func() {
	DescribeTable("refuses a wrong configuration in one line that names the key (H4)",
		func(config, message string) {
			session := launch(config, "--check-config")
			Eventually(session).WithTimeout(patience).Should(gexec.Exit(2))
			line := string(session.Err.Contents())
			Expect(line).To(ContainSubstring(message))
			Expect(strings.Count(strings.TrimSpace(line), "\n")).To(BeZero())
		},
		Entry("an unknown key", "state_dri: /x\n", "unknown key state_dri"),
		Entry("a network address without token", "listen: 0.0.0.0:21000\n", "needs token_file"),
		Entry("every address without token", "listen: :21000\n", "needs token_file"),
		Entry("a token file that is not there", "token_file: /nowhere/token\n",
			"token_file: read secret: open /nowhere/token"),
		Entry("a relative state_dir", "state_dir: x\n", `state_dir "x": want an absolute path`),
		Entry("a relative socket", "socket: x\n", `socket "x": want an absolute path`),
		Entry("a backend", "backend: docker\n", `backend "docker": want direct or systemd`),
		Entry("a directory that systemd does not read", "systemd_unit_dir: /srv\n",
			`systemd_unit_dir "/srv": want /run/systemd/system or`),
		Entry("a log level", "log_level: loud\n", "log_level"),
	)

	It("accepts its own sample, and a network address with a token", func() {
		sample, err := os.ReadFile("unitd.sample.yaml")
		Expect(err).NotTo(HaveOccurred())
		Eventually(launch(string(sample), "--check-config")).WithTimeout(patience).Should(gexec.Exit(0))
		token := filepath.Join(GinkgoT().TempDir(), "token")
		Expect(os.WriteFile(token, []byte("t0ken\n"), 0o600)).To(Succeed())
		Eventually(launch("listen: 0.0.0.0:21000\ntoken_file: "+token+"\n", "--check-config")).WithTimeout(patience).
			Should(gexec.Exit(0))
		session := launch("", "--print-sample")
		Eventually(session).WithTimeout(patience).Should(gexec.Exit(0))
		Expect(string(session.Out.Contents())).To(Equal(string(sample)))
	})

	It("stops all though its token is gone", func() {
		session := launch("state_dir: "+GinkgoT().TempDir()+"\ntoken_file: /nowhere/token\n", "stop-all")
		Eventually(session).WithTimeout(patience).Should(gexec.Exit(0))
	})

	DescribeTable("fails to start in one clear line",
		func(config func(dir string, taken int) string, message string) {
			listener, port := freePort()
			defer func() { _ = listener.Close() }()
			dir := GinkgoT().TempDir()
			Expect(os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600)).To(Succeed())
			Expect(os.MkdirAll(filepath.Join(dir, "damaged/units"), 0o700)).To(Succeed())
			Expect(os.WriteFile(filepath.Join(dir, "damaged/units/x.service.json"), []byte("{"), 0o600)).To(Succeed())
			session := launch(config(dir, port))
			Eventually(session).WithTimeout(patience).Should(gexec.Exit(1))
			lines := strings.Split(strings.TrimSpace(string(session.Err.Contents())), "\n")
			Expect(lines[len(lines)-1]).To(And(HavePrefix("unitd: "), ContainSubstring(message)))
		},
		Entry("the port is taken", func(dir string, taken int) string {
			return fmt.Sprintf("listen: 127.0.0.1:%d\nstate_dir: %s\n", taken, dir)
		}, "address already in use"),
		Entry("the state directory cannot be written", func(dir string, _ int) string {
			return fmt.Sprintf("listen: 127.0.0.1:0\nstate_dir: %s/file/state\n", dir)
		}, "state_dir cannot be used"),
		Entry("a stored unit is damaged", func(dir string, _ int) string {
			return fmt.Sprintf("listen: 127.0.0.1:0\nstate_dir: %s/damaged\n", dir)
		}, "x.service.json is damaged"),
	)

	It("lets only one unitd work on a state directory", func() {
		u := startUnitd()
		session := launch(fmt.Sprintf("listen: 127.0.0.1:0\nstate_dir: %s\n", u.path("state")))
		Eventually(session).WithTimeout(patience).Should(gexec.Exit(1))
		Expect(string(session.Err.Contents())).
			To(ContainSubstring(fmt.Sprintf("in use by another unitd (pid %d): stop it first", u.session.Command.Process.Pid)))
	})

	// A killed unitd may have been about to start a shim, which has a copy of the lock until it runs.
	It("waits for a state directory that is held for a moment", func() {
		u := startUnitd()
		u.kill()
		lock, err := os.OpenFile(u.path("state/lock"), os.O_RDWR, 0)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(lock.Close)
		Expect(syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)).To(Succeed())
		session := u.launch()
		Eventually(func() string { return string(session.Err.Contents()) }).WithTimeout(patience).
			Should(ContainSubstring("waiting for the state directory"))
		Expect(syscall.Flock(int(lock.Fd()), syscall.LOCK_UN)).To(Succeed())
		u.answers()
	})

	It("does not take a socket that another process serves", func() {
		u := startUnitd()
		session := launch(fmt.Sprintf("listen: 127.0.0.1:0\nstate_dir: %s\nsocket: %s\n", GinkgoT().TempDir(),
			u.path("socket")))
		Eventually(session).WithTimeout(patience).Should(gexec.Exit(1))
		Expect(string(session.Err.Contents())).To(ContainSubstring("another process serves this socket"))
		Expect(u.do("GET", "/fleet/v1/machines", "").status).To(Equal(200))
	})

	It("serves health and metrics to all, and the rest to those with the token", func() {
		listener, port := freePort()
		Expect(listener.Close()).To(Succeed())
		token := filepath.Join(GinkgoT().TempDir(), "token")
		Expect(os.WriteFile(token, []byte("secret\n"), 0o600)).To(Succeed())
		launch(fmt.Sprintf("listen: 127.0.0.1:%d\nstate_dir: %s\ntoken_file: %s\n", port, GinkgoT().TempDir(), token))
		get := func(path, authorization string) int {
			request, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
			Expect(err).NotTo(HaveOccurred())
			if authorization != "" {
				request.Header.Set("Authorization", authorization)
			}
			answer, err := http.DefaultClient.Do(request)
			if err != nil {
				return 0
			}
			defer func() { _ = answer.Body.Close() }()
			return answer.StatusCode
		}
		Eventually(get).WithArguments("/readyz", "").WithTimeout(10 * time.Second).Should(Equal(200))
		Expect(get("/healthz", "")).To(Equal(200))
		Expect(get("/metrics", "")).To(Equal(200))
		Expect(get("/fleet/v1/machines", "")).To(Equal(401))
		Expect(get("/fleet/v1/machines", "Bearer secret")).To(Equal(200))
		Expect(get("/openaperture/v1/units/x.service/logs", "")).To(Equal(401))
	})
})
