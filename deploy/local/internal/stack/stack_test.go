package stack_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/times"
)

// open describes a stack in a directory of its own, which is taken down when the spec ends.
func open(ctx context.Context) *stack.Stack {
	root, err := filepath.Abs("../../../..")
	Expect(err).NotTo(HaveOccurred())
	dir, err := os.MkdirTemp("/var/tmp", "openaperture-stack-")
	Expect(err).NotTo(HaveOccurred())
	s, err := stack.Open(ctx, root, dir, times.Fast)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func(ctx SpecContext) { Expect(s.Down(ctx, ignore)).To(Succeed()) })
	return s
}

func ignore(string) {}

// program puts a copy of sleep into a directory.
func program(dir string) string {
	GinkgoHelper()
	text, err := os.ReadFile("/bin/sleep")
	Expect(err).NotTo(HaveOccurred())
	path := filepath.Join(dir, "sleep")
	Expect(os.WriteFile(path, text, 0o755)).To(Succeed())
	return path
}

// asleep runs a program such as sleep in a working directory.
func asleep(dir, program string) *gexec.Session {
	GinkgoHelper()
	cmd := exec.Command(program, "600")
	cmd.Dir = dir
	session, err := gexec.Start(cmd, GinkgoWriter, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { session.Kill().Wait(10 * time.Second) })
	return session
}

var _ = Describe("Stack", Label("integration"), func() {
	It("is found again as it was described", func(ctx SpecContext) {
		s := open(ctx)
		again, err := stack.Open(ctx, s.Root, s.Dir, times.Default)
		Expect(err).NotTo(HaveOccurred())
		Expect(again).To(Equal(s))
	}, NodeTimeout(time.Minute))

	It("gives no port of a server to an instance of a service", func(ctx SpecContext) {
		for range 500 { // what is chosen by chance collides by chance
			s := &stack.Stack{}
			Expect(s.ChoosePorts(ctx)).To(Succeed())
			blocks := slices.Collect(maps.Values(s.Listen))
			Expect(blocks).NotTo(BeEmpty())
			servers := []int{s.Unitd, s.Postgres.Port, s.RabbitMQ.Port, s.RabbitMQ.Dist, s.RabbitMQ.Epmd}
			for i, port := range servers {
				Expect(blocks).NotTo(ContainElement(port/10*10), "port %d", port)
				Expect(servers[:i]).NotTo(ContainElement(port))
			}
		}
	}, NodeTimeout(time.Minute))

	It("keeps secrets in files that nobody else reads, and out of configurations and units", func(ctx SpecContext) {
		s := open(ctx)
		Expect(s.Configure()).To(Succeed())
		info, err := os.Stat(filepath.Join(s.Dir, "secrets"))
		Expect(err).NotTo(HaveOccurred())
		Expect(info.Mode().Perm()).To(Equal(fs.FileMode(0o700)))
		token, err := os.ReadFile(s.TokenFile())
		Expect(err).NotTo(HaveOccurred())
		secrets := []string{strings.TrimSpace(string(token)), s.Postgres.Password, s.RabbitMQ.Password}
		public := []string{s.UnitText(stack.Own[0]), s.UnitText(stack.Own[2])}
		files, err := filepath.Glob(filepath.Join(s.Dir, "config", "*.yaml"))
		Expect(err).NotTo(HaveOccurred())
		Expect(files).To(HaveLen(len(stack.Own)))
		for _, f := range files {
			text, err := os.ReadFile(f)
			Expect(err).NotTo(HaveOccurred())
			public = append(public, string(text))
		}
		for _, secret := range secrets {
			Expect(len(secret)).To(BeNumerically(">", 20))
			Expect(strings.Join(public, "\n")).NotTo(ContainSubstring(secret))
		}
	}, NodeTimeout(time.Minute))

	It("puts a link between every instance and every server that it uses, which can be cut, stalled and healed",
		func(ctx SpecContext) {
			s := open(ctx)
			Expect(s.Links()).To(BeEmpty())
			Expect(s.Separate(ctx)).To(Succeed())
			names, ports := []string{}, map[string]bool{}
			for _, l := range s.Links() {
				names, ports[l.Listen] = append(names, l.Name), true
			}
			Expect(ports).To(HaveLen(len(names)))
			Expect(names).To(ConsistOf("manager-api-1-to-database", "executors-1-to-unitd", "manager-api-1-to-broker",
				"overseer-1-to-broker", "overseer-1-to-manager", "overseer-2-to-broker", "overseer-2-to-manager",
				"deployer-1-to-broker", "deployer-1-to-manager", "deployer-oa-1-to-broker", "deployer-oa-1-to-manager"))
			Expect(s.UnitText(stack.Own[1])).To(And(
				ContainSubstring("OPENAPERTURE_AMQP_URL_FILE="+filepath.Join(s.Dir, "secrets", "overseer-to-broker-%i")),
				MatchRegexp(`OPENAPERTURE_MANAGER_URL=http://127\.0\.0\.1:\d+%i`)))
			server, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", s.Unitd)) // stands in for unitd
			Expect(err).NotTo(HaveOccurred())
			DeferCleanup(server.Close)
			go func() { _ = http.Serve(server, http.NotFoundHandler()) }()
			Expect(s.Configure()).To(Succeed())
			Expect(s.StartLinks(ctx)).To(Succeed())
			Expect(s.StartLinks(ctx)).To(Succeed())
			client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
			ask := func() error {
				res, err := client.Get("http://" + s.Links()[1].Listen)
				if err == nil {
					_ = res.Body.Close()
				}
				return err
			}
			Expect(ask()).To(Succeed())
			for _, fault := range []func(context.Context, string) error{s.Cut, s.Stall} {
				Expect(fault(ctx, "executors-1-to-unitd")).To(Succeed())
				Expect(ask()).NotTo(Succeed())
				Expect(s.Heal(ctx, "executors-1-to-unitd")).To(Succeed())
				Expect(ask()).To(Succeed())
			}
			Expect(s.Cut(ctx, "nobody")).To(MatchError(ContainSubstring("404")))
		}, NodeTimeout(time.Minute))

	It("starts its servers, finds that they run, and leaves nothing", func(ctx SpecContext) {
		s := open(ctx)
		Expect(s.StartServers(ctx)).To(Succeed())
		before, err := proc.WorkingIn(s.Dir)
		Expect(err).NotTo(HaveOccurred())
		Expect(s.StartServers(ctx)).To(Succeed())
		Expect(before).NotTo(BeEmpty())
		Expect(proc.WorkingIn(s.Dir)).To(Equal(before))
		Expect(s.Down(ctx, ignore)).To(Succeed())
		Expect(s.Dir).NotTo(BeADirectory())
		Expect(filepath.Dir(s.Postgres.Dir)).NotTo(BeADirectory())
	}, NodeTimeout(3*time.Minute))

	It("runs units out of releases by unitd, and leaves nothing", func(ctx SpecContext) {
		s := open(ctx)
		Expect(s.StartHello(ctx)).To(Succeed())
		Eventually(s.UnitStates).WithContext(ctx).WithTimeout(20 * time.Second).Should(Equal(
			map[string]string{"hello@1.service": "active", "hello@2.service": "active", "hello@3.service": "active"}))
		running, err := proc.Running(s.Releases())
		Expect(err).NotTo(HaveOccurred())
		host, err := os.Hostname()
		Expect(err).NotTo(HaveOccurred())
		Expect(running).To(HaveLen(3))
		Expect(running[2].Hostname).To(Equal(host + ".hello-3"))
		Expect(running[2].Ref).To(Equal(stack.First))
		Expect(s.Down(ctx, ignore)).To(Succeed())
		for _, p := range running {
			_, err := os.Stat(filepath.Join("/proc", strconv.Itoa(p.PID), "exe"))
			Expect(err).To(MatchError(fs.ErrNotExist))
		}
	}, NodeTimeout(3*time.Minute))

	It("kills what is its own when it goes down, and names who else works there", func(ctx SpecContext) {
		s := open(ctx)
		own := asleep("/", program(filepath.Join(s.Dir, "bin")))
		Expect(os.Mkdir(s.RabbitMQ.Dir, 0o755)).To(Succeed())
		guests := []*gexec.Session{asleep(filepath.Join(s.Dir, "log"), "sleep"), asleep(s.RabbitMQ.Dir, "sleep")}
		said := ""
		Expect(s.Down(ctx, func(what string) { said += what + "\n" })).To(Succeed())
		Eventually(own).WithContext(ctx).WithTimeout(10 * time.Second).Should(gexec.Exit())
		for _, g := range guests {
			Expect(g).NotTo(gexec.Exit())
			Expect(said).To(ContainSubstring("process %d ", g.Command.Process.Pid))
		}
		Expect(s.Dir).NotTo(BeADirectory())
	}, NodeTimeout(time.Minute))

	It("kills a PostgreSQL that does not stop before it removes its data, and says so", func(ctx SpecContext) {
		s := open(ctx)
		Expect(s.Postgres.Start(ctx)).To(Succeed())
		running, err := proc.WorkingIn(s.Postgres.Dir)
		Expect(err).NotTo(HaveOccurred())
		Expect(running).NotTo(BeEmpty())
		text, err := os.ReadFile(filepath.Join(s.Postgres.Dir, "postmaster.pid"))
		Expect(err).NotTo(HaveOccurred())
		first, _, _ := strings.Cut(string(text), "\n")
		postmaster, err := strconv.Atoi(first)
		Expect(err).NotTo(HaveOccurred())
		Expect(syscall.Kill(postmaster, syscall.SIGSTOP)).To(Succeed())
		Expect(s.Down(ctx, ignore)).To(MatchError(ContainSubstring("stop PostgreSQL")))
		for pid := range running {
			Expect(filepath.Join("/proc", strconv.Itoa(pid), "cwd")).NotTo(BeAnExistingFile())
		}
		Expect(s.Dir).NotTo(BeADirectory())
		Expect(s.Postgres.Dir).NotTo(BeADirectory())
	}, NodeTimeout(2*time.Minute))

	DescribeTable("starts units again as they were upgraded since", func(ctx SpecContext,
		stop func(context.Context, *stack.Stack) error) {
		s := open(ctx)
		releases := func() ([]string, error) {
			running, err := proc.Running(s.Releases())
			refs := []string{}
			for _, p := range running {
				refs = append(refs, p.Ref)
			}
			return refs, err
		}
		Expect(s.StartHello(ctx)).To(Succeed())
		Expect(s.UpgradeHello(ctx, "v2")).To(Succeed())
		Eventually(releases).WithContext(ctx).WithTimeout(20 * time.Second).Should(HaveExactElements("v2", "v2", "v2"))
		Expect(stop(ctx, s)).To(Succeed())
		Eventually(releases).WithContext(ctx).WithTimeout(20 * time.Second).Should(BeEmpty())
		Expect(s.StartHello(ctx)).To(Succeed())
		Eventually(releases).WithContext(ctx).WithTimeout(20 * time.Second).Should(HaveExactElements("v2", "v2", "v2"))
	},
		Entry("when the machine was rebooted", NodeTimeout(2*time.Minute), func(_ context.Context, s *stack.Stack) error {
			left, err := proc.Under(s.Dir)
			for pid := range left {
				err = errors.Join(err, syscall.Kill(pid, syscall.SIGKILL))
			}
			return err
		}),
		Entry("when they were set inactive", NodeTimeout(2*time.Minute), func(ctx context.Context, s *stack.Stack) error {
			var err error
			for i := 1; i <= stack.Hello.Instances; i++ {
				err = errors.Join(err, s.Deactivate(ctx, stack.Hello.Unit(i)))
			}
			return err
		}),
	)
})
