package stack_test

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

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
	DeferCleanup(func(ctx SpecContext) { Expect(s.Down(ctx)).To(Succeed()) })
	return s
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

	It("starts its servers, finds that they run, and leaves nothing", func(ctx SpecContext) {
		s := open(ctx)
		Expect(s.StartServers(ctx)).To(Succeed())
		before, err := proc.Under(s.Dir)
		Expect(err).NotTo(HaveOccurred())
		Expect(s.StartServers(ctx)).To(Succeed())
		Expect(proc.Under(s.Dir)).To(Equal(before))
		Expect(s.Down(ctx)).To(Succeed())
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
		Expect(s.Down(ctx)).To(Succeed())
		for _, p := range running {
			_, err := os.Stat(filepath.Join("/proc", strconv.Itoa(p.PID), "exe"))
			Expect(err).To(MatchError(fs.ErrNotExist))
		}
	}, NodeTimeout(3*time.Minute))

	DescribeTable("starts units again as they were upgraded since", func(ctx SpecContext, stop func(context.Context, *stack.Stack) error) {
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
