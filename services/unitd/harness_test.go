package main_test

import (
	"cmp"
	"context"
	"encoding/json"
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
	"github.com/onsi/gomega/gexec"
)

const (
	patience = 15 * time.Second
	noLinger = "GORACE=atexit_sleep_ms=0" // else every process waits for a second at its exit
)

// backend runs the units of every spec. The same specs hold for both backends; those with
// Label("direct") are about shims.
var backend = cmp.Or(os.Getenv("UNITD_SPEC_BACKEND"), "direct")

// by picks what differs between the backends.
func by[T any](direct, systemd T) T {
	if backend == "systemd" {
		return systemd
	}
	return direct
}

// unitd is one unitd over one state directory; it may be killed and started again.
type unitd struct {
	dir     string
	program string // the binary, for every start
	config  string
	client  *http.Client
	session *gexec.Session
}

// state is what the specs look at.
type state struct {
	Name        string
	Hash        string
	Active      string `json:"systemdActiveState"`
	Sub         string `json:"systemdSubState"`
	ActiveSince string
	Restarts    int
	MainPID     int
	Result      string
	StatusText  string
}

func startUnitd() *unitd {
	GinkgoHelper()
	return startUnitdOn(func(string) {})
}

// startUnitdOn starts unitd over a state directory that prepare has made, such as a small file system.
func startUnitdOn(prepare func(stateDir string)) *unitd {
	GinkgoHelper()
	dir, err := os.MkdirTemp("", "unitd-spec-")
	Expect(err).NotTo(HaveOccurred())
	u := &unitd{dir: dir, program: program, config: filepath.Join(dir, "unitd.yaml")}
	u.client = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", u.path("socket"))
		},
	}}
	text := fmt.Sprintf("listen: 127.0.0.1:0\nsocket: %s\nstate_dir: %s\nmachine_metadata: {role: app}\nbackend: %s\n",
		u.path("socket"), u.path("state"), backend)
	Expect(os.WriteFile(u.config, []byte(text), 0o600)).To(Succeed())
	prepare(u.path("state"))
	DeferCleanup(u.cleanUp)
	u.start()
	return u
}

func (u *unitd) path(name string) string { return filepath.Join(u.dir, name) }

func (u *unitd) start() {
	GinkgoHelper()
	u.launch()
	u.answers()
}

// launch starts the process, and does not wait until it serves.
func (u *unitd) launch() *gexec.Session {
	GinkgoHelper()
	command := exec.Command(u.program, "--config", u.config)
	command.Env = append(os.Environ(), "OPENAPERTURE_SECRET_OF_UNITD=hidden", noLinger)
	session, err := gexec.Start(command, GinkgoWriter, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	u.session = session
	return session
}

// answers returns when the API is served.
func (u *unitd) answers() {
	GinkgoHelper()
	Eventually(func() error { _, err := u.request("GET", "/fleet/v1/machines", "", ""); return err }).
		WithTimeout(patience).Should(Succeed())
}

// kill ends unitd as a power switch would, and only unitd.
func (u *unitd) kill() {
	GinkgoHelper()
	u.session.Kill().Wait(patience)
	u.noRaces()
}

func (u *unitd) restart() {
	GinkgoHelper()
	u.kill()
	u.start()
}

// stopAll runs the subcommand.
func (u *unitd) stopAll(args ...string) {
	GinkgoHelper()
	command := exec.Command(u.program, append([]string{"--config", u.config, "stop-all"}, args...)...)
	command.Env = append(os.Environ(), noLinger)
	session, err := gexec.Start(command, GinkgoWriter, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	Eventually(session).WithTimeout(30 * time.Second).Should(gexec.Exit(0))
}

func (u *unitd) cleanUp() {
	u.session.Terminate().Wait(patience)
	u.noRaces()
	u.stopAll()
	complaints, err := filepath.Glob(u.path("state/run/*/shim.err"))
	Expect(err).NotTo(HaveOccurred())
	for _, file := range complaints {
		Expect(os.ReadFile(file)).To(BeEmpty(), file)
	}
	Expect(u.processes()).To(BeEmpty())
	if backend == "systemd" {
		removeUnitFiles()
	}
	_ = syscall.Unmount(u.path("state"), syscall.MNT_DETACH) // most are no file systems of their own
	Expect(os.RemoveAll(u.dir)).To(Succeed())
}

const unitDir = "/run/systemd/system"

// removeUnitFiles makes names free for the next spec, whose unitd is another one.
func removeUnitFiles() {
	files, err := filepath.Glob(unitDir + "/*.service")
	Expect(err).NotTo(HaveOccurred())
	for _, file := range files {
		Expect(os.Remove(file)).To(Succeed())
	}
	systemctl("daemon-reload")
	systemctl("reset-failed")
}

func systemctl(args ...string) string {
	GinkgoHelper()
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
	return string(out)
}

func (u *unitd) noRaces() {
	GinkgoHelper()
	Expect(string(u.session.Err.Contents())).NotTo(ContainSubstring("DATA RACE"))
}

// processes are the living processes that have the spec's directory in their command line or
// environment, without unitd itself.
func (u *unitd) processes() []int {
	var found []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		command, _ := os.ReadFile(dir + "/cmdline") // empty for a zombie
		environment, _ := os.ReadFile(dir + "/environ")
		text := string(command) + string(environment)
		if len(command) == 0 || !strings.Contains(text, u.dir) || strings.Contains(string(command), u.config) {
			continue
		}
		var pid int
		_, _ = fmt.Sscanf(filepath.Base(dir), "%d", &pid)
		found = append(found, pid)
	}
	return found
}

type response struct {
	status int
	body   string
	index  string
}

func (u *unitd) request(method, path, body, token string) (response, error) {
	request, err := http.NewRequestWithContext(context.Background(), method, "http://unitd"+path, strings.NewReader(body))
	if err != nil {
		return response{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("X-OpenAperture-Token", token)
	}
	answer, err := u.client.Do(request)
	if err != nil {
		return response{}, err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	return response{answer.StatusCode, string(text), answer.Header.Get("X-OpenAperture-Index")}, err
}

func (u *unitd) do(method, path, body string) response {
	GinkgoHelper()
	answer, err := u.request(method, path, body, "")
	Expect(err).NotTo(HaveOccurred())
	return answer
}

// body of a PUT: service lines such as `ExecStart=/bin/true`, or `Section.Name=Value`.
func body(desired string, lines ...string) string {
	var options []map[string]string
	for _, line := range lines {
		key, value, _ := strings.Cut(line, "=")
		section, name, ok := strings.Cut(key, ".")
		if !ok {
			section, name = "Service", key
		}
		options = append(options, map[string]string{"section": section, "name": name, "value": value})
	}
	text, err := json.Marshal(map[string]any{"desiredState": desired, "options": options})
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}

func (u *unitd) put(name, desired string, lines ...string) {
	GinkgoHelper()
	if len(lines) > 0 {
		lines = append(lines, "Environment=UNITD_SPEC="+u.dir) // by which processes finds them
	}
	answer := u.do("PUT", "/fleet/v1/units/"+name, body(desired, lines...))
	Expect(answer.status).To(BeElementOf(201, 204), answer.body)
}

func (u *unitd) state(name string) state {
	GinkgoHelper()
	var page struct{ States []state }
	Expect(json.Unmarshal([]byte(u.do("GET", "/fleet/v1/state?unitName="+name, "").body), &page)).To(Succeed())
	if len(page.States) == 0 {
		return state{}
	}
	return page.States[0]
}

func (u *unitd) logs(name string) string {
	GinkgoHelper()
	return u.do("GET", "/openaperture/v1/units/"+name+"/logs", "").body
}

// becomes waits for `active/sub` and returns the state.
func (u *unitd) becomes(name, what string) state {
	GinkgoHelper()
	var last state
	Eventually(func() string {
		last = u.state(name)
		return last.Active + "/" + last.Sub
	}).WithTimeout(patience).WithPolling(10 * time.Millisecond).Should(Equal(what))
	return last
}

// alive tells whether a process runs; a zombie does not.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// shim is the process above a unit's main process.
func shim(pid int) int {
	GinkgoHelper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	Expect(err).NotTo(HaveOccurred())
	_, rest, _ := strings.Cut(string(text), ") ")
	var status string
	var parent int
	_, err = fmt.Sscanf(rest, "%s %d", &status, &parent)
	Expect(err).NotTo(HaveOccurred())
	return parent
}

// pidIn reads a pid that a unit wrote into a file.
func pidIn(file string) int {
	GinkgoHelper()
	var pid int
	Eventually(func() error {
		text, err := os.ReadFile(file)
		if err == nil {
			_, err = fmt.Sscanf(string(text), "%d\n", &pid)
		}
		return err
	}).WithTimeout(patience).Should(Succeed())
	return pid
}

// gate makes the fifo of a notifying service; open lets it become ready.
func (u *unitd) gate(name string) (lines []string, open func()) {
	GinkgoHelper()
	fifo := u.path(name)
	Expect(syscall.Mkfifo(fifo, 0o600)).To(Succeed())
	self, err := os.Executable()
	Expect(err).NotTo(HaveOccurred())
	return []string{"Type=notify", "ExecStart=" + self, "Environment=UNITD_SPEC_GATE=" + fifo, "Environment=" + noLinger},
		func() { Expect(os.WriteFile(fifo, []byte("go"), 0)).To(Succeed()) }
}

// role are the lines of a unit that runs this test binary in a role of TestMain.
func (u *unitd) role(role string, lines ...string) []string {
	GinkgoHelper()
	self, err := os.Executable()
	Expect(err).NotTo(HaveOccurred())
	return append(lines, "ExecStart="+self, "Environment=UNITD_SPEC_ROLE="+role, "Environment="+noLinger)
}
