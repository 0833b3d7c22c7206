//go:build e2e

package skew_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/previousstack"
	"github.com/openaperture/openaperture/deploy/local/internal/soak"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/deploy/local/internal/witness"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/times"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

func TestSkew(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "skew")
}

// beside is a stack that the old release has begun, seen and changed by this one.
type beside struct {
	*stack.Stack
	see    witness.Witness
	hellos int // versions of hello
	built  int // releases of this source
}

// begin starts a stack of the old release. It is taken down when the enclosing container ends; with KEEP=1 it stays if
// the suite has failed by then.
func begin(ctx context.Context, failed func() bool) *beside {
	GinkgoHelper()
	root, err := filepath.Abs("../../..")
	Expect(err).NotTo(HaveOccurred())
	sources, err := previousstack.Sources(ctx, root)
	Expect(err).NotTo(HaveOccurred())
	occupied, err := stack.Occupy(previousstack.Dir(root)) // `make down` leaves it alone
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(occupied.Close)
	dir := filepath.Join(sources, ".run")
	DeferCleanup(func(ctx SpecContext) {
		if failed() && os.Getenv("KEEP") != "" {
			AddReportEntry("kept", "go run ./deploy/local down "+dir)
			return
		}
		s, err := stack.Open(ctx, root, dir, times.Fast)
		Expect(err).NotTo(HaveOccurred())
		Expect(s.Down(ctx, func(what string) { GinkgoWriter.Println(what) })).To(Succeed())
	}, NodeTimeout(3*time.Minute))
	_, err = previousstack.Up(ctx, sources, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	s, err := stack.Open(ctx, root, dir, times.Fast)
	Expect(err).NotTo(HaveOccurred())
	api, err := s.Client()
	Expect(err).NotTo(HaveOccurred())
	b := &beside{Stack: s, see: witness.Witness{Stack: s, API: api}, hellos: 1, built: 1}
	Expect(s.LaunchHello(ctx, api)).To(Succeed())
	return b
}

// newVersion builds the next release out of this source; broken is the service that is bad in it, if one is.
func (b *beside) newVersion(ctx context.Context, broken *stack.Service, mode stack.Mode) string {
	GinkgoHelper()
	b.built++
	ref := fmt.Sprintf("v%d", b.built)
	Expect(b.BuildRelease(ctx, ref, broken, mode)).To(Succeed())
	return ref
}

// want makes a version the gold standard of a type. The hourly check does the rest.
func (b *beside) want(ctx context.Context, t component.Type, ref string) {
	GinkgoHelper()
	Eventually(func() error { return stack.SetGoldStandard(ctx, b.see.API, t, b.SourceRepo(stack.Own[0]), ref) }).
		WithContext(ctx).WithTimeout(30 * time.Second).Should(Succeed())
}

// ends waits until the upgrade of a type to a version has ended, and wants it to have ended like this.
func (b *beside) ends(ctx context.Context, t component.Type, ref string, want upgrade.State) managerapi.Upgrade {
	GinkgoHelper()
	var found managerapi.Upgrade
	Eventually(func() (bool, error) {
		u, ok, err := b.see.Upgrade(ctx, t, ref)
		found = u
		return ok && !u.State.Open(), err
	}).WithContext(ctx).WithTimeout(4 * time.Minute).WithPolling(200 * time.Millisecond).Should(BeTrue())
	Expect(found.State).To(Equal(want), "%s, %s: %s", found.Cause, found.Verdict.Code, found.Verdict.Message)
	return found
}

// upgrades brings a type to a version by the hourly check.
func (b *beside) upgrades(ctx context.Context, t component.Type, ref string) {
	GinkgoHelper()
	b.want(ctx, t, ref)
	b.ends(ctx, t, ref, upgrade.Completed)
	Expect(b.see.Recorded(ctx, t, ref)).To(Succeed())
	b.right(ctx)
}

// takesBack tries a version in which one service is bad, and wants it to be taken back to what ran before and blamed.
func (b *beside) takesBack(ctx context.Context, broken stack.Service, mode stack.Mode) {
	GinkgoHelper()
	before, err := stack.FindComponent(ctx, b.see.API, broken.Type)
	Expect(err).NotTo(HaveOccurred())
	ref := b.newVersion(ctx, &broken, mode)
	b.want(ctx, broken.Type, ref)
	Expect(b.ends(ctx, broken.Type, ref, upgrade.RolledBack).Cause).To(Equal(upgrade.CauseVersion))
	_, found, err := b.see.Quarantine(ctx, broken.Type, ref)
	Expect(err).NotTo(HaveOccurred())
	Expect(found).To(BeTrue())
	Expect(b.see.Recorded(ctx, broken.Type, before.SourceRepoGitRef)).To(Succeed())
	b.right(ctx)
	b.want(ctx, broken.Type, before.SourceRepoGitRef)
}

// works upgrades the service that is no part of OpenAperture, which takes every service of it.
func (b *beside) works(ctx context.Context) {
	GinkgoHelper()
	b.hellos++
	ref := fmt.Sprintf("v%d", b.hellos)
	Expect(b.BuildHello(ctx, ref)).To(Succeed())
	Expect(stack.SetGoldStandard(ctx, b.see.API, stack.Hello.Type, b.SourceRepo(stack.Hello), ref)).To(Succeed())
	c, err := stack.FindComponent(ctx, b.see.API, stack.Hello.Type)
	Expect(err).NotTo(HaveOccurred())
	_, err = b.see.API.RequestUpgrade(ctx, managerapi.UpgradeRequest{ComponentID: c.ID, Reason: CurrentSpecReport().
		LeafNodeText})
	Expect(err).NotTo(HaveOccurred())
	b.ends(ctx, stack.Hello.Type, ref, upgrade.Completed)
	Expect(b.see.Recorded(ctx, stack.Hello.Type, ref)).To(Succeed())
	Expect(b.see.Runs(ctx, stack.Hello, ref)).To(HaveLen(stack.Hello.Instances))
}

// right waits until every service runs its recorded version and reports it, nothing is under way, and nothing waits to
// be sent.
func (b *beside) right(ctx context.Context) {
	GinkgoHelper()
	Eventually(func() error { return soak.Right(ctx, b.Stack) }).
		WithContext(ctx).WithTimeout(time.Minute).WithPolling(300 * time.Millisecond).Should(Succeed())
}
