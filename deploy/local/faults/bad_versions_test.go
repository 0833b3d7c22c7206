//go:build e2e

package faults_test

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// tryBad builds a bad release of a service and asks for the upgrade to it. What was the gold standard is so again when
// the spec ends.
func tryBad(ctx SpecContext, v stack.Service, mode stack.Mode, ref string) (u managerapi.Upgrade, before string) {
	GinkgoHelper()
	before = component(ctx, v).SourceRepoGitRef
	Expect(suite.BuildBroken(ctx, ref, v, mode)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) { setGoldStandard(ctx, v, before) }, NodeTimeout(30*time.Second))
	return request(ctx, v, ref), before
}

// takenBack wants an upgrade to be rolled back and its version to be blamed, with nobody having intervened.
func takenBack(ctx SpecContext, u managerapi.Upgrade, v stack.Service, before, ref string) {
	GinkgoHelper()
	u = ended(ctx, u.ID, upgrade.RolledBack)
	Expect(u.Cause).To(Equal(upgrade.CauseVersion), u.Verdict.Message)
	Expect(see.Recorded(ctx, v.Type, before)).To(Succeed())
	q, found, err := see.Quarantine(ctx, v.Type, ref)
	Expect(err).NotTo(HaveOccurred())
	Expect(found).To(BeTrue(), "no quarantine of %s", ref)
	Expect(q.Reason).NotTo(BeEmpty())
	Expect(q.UpgradeID).To(Equal(u.ID))
	said, _, _ := strings.Cut(q.Message, "\n") // what follows is the unit's log
	AddReportEntry("blamed", q.Reason+": "+said, ReportEntryVisibilityFailureOrVerbose)
}

func everyBadVersion() []any {
	entries := []any{}
	for _, v := range stack.Own {
		for _, mode := range stack.Modes {
			entries = append(entries, Entry(fmt.Sprintf("%s %s", v.Name, mode), SpecTimeout(4*time.Minute), v, mode))
		}
	}
	return entries
}

var _ = Describe("A bad version", Label("faults"), func() {
	DescribeTable("is taken back and quarantined", append([]any{
		func(ctx SpecContext, v stack.Service, mode stack.Mode) {
			ref := fmt.Sprintf("%s-%s", v.Name, mode)
			u, before := tryBad(ctx, v, mode, ref)
			takenBack(ctx, u, v, before, ref)
		},
	}, everyBadVersion()...)...)

	It("of manager-api that serves, but loses every result, is taken back", func(ctx SpecContext) {
		const ref = "manager-api-forgetful"
		u, before := tryBad(ctx, manager, stack.Forgetful, ref)
		takenBack(ctx, u, manager, before, ref)
	}, SpecTimeout(4*time.Minute))

	It("of manager-api is taken back by a deployer-oa that was killed between stop and restore", func(ctx SpecContext) {
		const ref = "manager-api-while-killed"
		u, before := tryBad(ctx, manager, stack.NeverReady, ref)
		Eventually(ofRef(manager, ref)).WithContext(ctx).WithTimeout(30 * time.Second).WithPolling(20 * time.Millisecond).
			ShouldNot(BeEmpty())
		executors, err := see.Processes(stack.Own[3])
		Expect(err).NotTo(HaveOccurred())
		Expect(executors).To(HaveLen(1))
		Expect(syscall.Kill(executors[0].PID, syscall.SIGKILL)).To(Succeed())
		takenBack(ctx, u, manager, before, ref)
	}, SpecTimeout(4*time.Minute))
})
