//go:build e2e

package e2e_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/demo"
	"github.com/openaperture/openaperture/deploy/local/internal/proc"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/deploy/local/internal/stacktest"
	"github.com/openaperture/openaperture/pkg/times"
)

// bad is one way in which a service can be bad. The seed chooses one of the twelve.
func bad(seed int64) (stack.Service, stack.Mode) {
	n := int(seed % int64(len(stack.Own)*len(stack.Modes)))
	return stack.Own[n%len(stack.Own)], stack.Modes[n/len(stack.Own)]
}

var _ = Describe("A stack from nothing", Label("e2e"), Ordered, func() {
	var s *stack.Stack
	var story *demo.Story

	BeforeAll(func(ctx SpecContext) {
		s = stacktest.Open(ctx, "../../..", "e2e", func() bool { return CurrentSpecReport().Failed() })
		story = &demo.Story{Stack: s, Out: GinkgoWriter}
	}, NodeTimeout(time.Minute))

	It("comes up, and coming up again changes nothing", func(ctx SpecContext) {
		Expect(s.Up(ctx, func(what string) { GinkgoWriter.Println("starting", what) })).To(Succeed())
		first, err := proc.Running(s.Releases())
		Expect(err).NotTo(HaveOccurred())
		again, err := stack.Open(ctx, s.Root, s.Dir, times.Default)
		Expect(err).NotTo(HaveOccurred())
		Expect(again.Up(ctx, func(string) {})).To(Succeed())
		Expect(proc.Running(s.Releases())).To(Equal(first))
	}, SpecTimeout(5*time.Minute))

	It("replaces itself by a new version that nobody requested", func(ctx SpecContext) {
		service, mode := bad(GinkgoRandomSeed())
		Expect(story.Prepare(ctx, service, mode)).To(Succeed())
		Expect(story.Upgrade(ctx)).To(Succeed())
	}, SpecTimeout(10*time.Minute))

	It("takes a bad version back and quarantines it", func(ctx SpecContext) {
		Expect(story.Fail(ctx)).To(Succeed())
	}, SpecTimeout(10*time.Minute))

	It("upgrades a service that is no part of it", func(ctx SpecContext) {
		Expect(story.Hello(ctx)).To(Succeed())
		story.Summary()
		Expect(story.InTime()).To(Succeed())
	}, SpecTimeout(5*time.Minute))

	DescribeTable("answers the commands of a page as they are written",
		func(ctx SpecContext, page string, wants ...string) {
			text, err := os.ReadFile(filepath.Join(s.Root, page))
			Expect(err).NotTo(HaveOccurred())
			blocks := regexp.MustCompile("(?s)<!-- spec: stack -->\n```sh\n(.*?)```").FindAllSubmatch(text, -1)
			Expect(blocks).NotTo(BeEmpty())
			var script bytes.Buffer
			for _, b := range blocks {
				script.Write(b[1])
			}
			here := GinkgoT().TempDir()
			Expect(os.Symlink(s.Dir, filepath.Join(here, ".run"))).To(Succeed())
			cmd := exec.CommandContext(ctx, "sh", "-euc", script.String())
			cmd.Dir, cmd.Env = here, append(os.Environ(), "TMPDIR="+here)
			out, err := cmd.CombinedOutput()
			Expect(err).NotTo(HaveOccurred(), string(out))
			for _, want := range wants {
				Expect(string(out)).To(ContainSubstring(want))
			}
		},
		Entry("README.md", SpecTimeout(time.Minute), "README.md", `"verdict":"healthy"`, `"hostname":`,
			`"trigger":"request"`),
		Entry("docs/install.md", SpecTimeout(2*time.Minute), "docs/install.md",
			`"source_repo_git_ref":"v2"`, `"status":"upgrade_completed"`),
	)
})
