//go:build e2e

package faults_test

import (
	"context"
	"fmt"
	"time"

	"github.com/lib/pq"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// component is what the API shows of a service's component.
func component(ctx context.Context, v stack.Service) stack.Component {
	GinkgoHelper()
	c, err := stack.FindComponent(ctx, see.API, v.Type)
	Expect(err).NotTo(HaveOccurred())
	return c
}

func setGoldStandard(ctx context.Context, v stack.Service, ref string) {
	GinkgoHelper()
	Expect(stack.SetGoldStandard(ctx, see.API, v.Type, suite.SourceRepo(v), ref)).To(Succeed())
}

// request makes ref the gold standard of a service's type and asks for the upgrade.
func request(ctx context.Context, v stack.Service, ref string) managerapi.Upgrade {
	GinkgoHelper()
	setGoldStandard(ctx, v, ref)
	u, err := see.API.RequestUpgrade(ctx, managerapi.UpgradeRequest{ComponentID: component(ctx, v).ID,
		Reason: CurrentSpecReport().LeafNodeText})
	Expect(err).NotTo(HaveOccurred())
	return u
}

var hellos = 1 // versions of hello

// newHello builds the next version of hello.
func newHello(ctx context.Context) string {
	GinkgoHelper()
	hellos++
	ref := fmt.Sprintf("v%d", hellos)
	Expect(suite.BuildHello(ctx, ref)).To(Succeed())
	return ref
}

// state asks for the state of an upgrade.
func state(id upgrade.ID) func(context.Context) (upgrade.State, error) {
	return func(ctx context.Context) (upgrade.State, error) {
		u, err := see.API.Upgrade(ctx, id)
		return u.State, err
	}
}

// ended waits until an upgrade has ended, and wants it to have ended like this.
func ended(ctx context.Context, id upgrade.ID, want upgrade.State) managerapi.Upgrade {
	GinkgoHelper()
	open := func(s upgrade.State) bool { return s.Open() }
	Eventually(state(id)).WithContext(ctx).WithTimeout(3 * time.Minute).WithPolling(100 * time.Millisecond).
		ShouldNot(Satisfy(open))
	u, err := see.API.Upgrade(ctx, id)
	Expect(err).NotTo(HaveOccurred())
	Expect(u.State).To(Equal(want), "%s, %s: %s", u.Cause, u.Verdict.Code, u.Verdict.Message)
	return u
}

// ofRef are the processes of a service out of one release.
func ofRef(v stack.Service, ref string) func() ([]proc.Process, error) {
	return func() ([]proc.Process, error) {
		all, err := see.Processes(v)
		var found []proc.Process
		for _, p := range all {
			if p.Ref == ref {
				found = append(found, p)
			}
		}
		return found, err
	}
}

// underWay waits until the first instance runs the new version and the last does not.
func underWay(ctx context.Context, v stack.Service, ref string) {
	GinkgoHelper()
	Eventually(ofRef(v, ref)).WithContext(ctx).WithTimeout(30 * time.Second).WithPolling(50 * time.Millisecond).
		Should(And(Not(BeEmpty()), WithTransform(func(found []proc.Process) int { return len(found) },
			BeNumerically("<", v.Instances))))
}

// completedOnce wants an upgrade to complete, with one run of each of its milestones, and no other to have been made
// since.
func completedOnce(ctx context.Context, u managerapi.Upgrade, v stack.Service, ref string, milestones ...string) {
	GinkgoHelper()
	u = ended(ctx, u.ID, upgrade.Completed)
	Expect(see.Recorded(ctx, v.Type, ref)).To(Succeed())
	Expect(see.Runs(ctx, v, ref)).NotTo(BeEmpty())
	all, err := see.Upgrades(ctx, v.Type)
	Expect(err).NotTo(HaveOccurred())
	Expect(all[len(all)-1].ID).To(Equal(u.ID), "a later upgrade was made")
	Eventually(orders).WithContext(ctx).WithArguments(u).Should(Equal(milestones))
	Eventually(unsent).WithContext(ctx).WithTimeout(20 * time.Second).Should(Succeed())
}

// orders are the orders of an upgrade with how they ended.
func orders(ctx context.Context, u managerapi.Upgrade) ([]string, error) {
	var found []string
	err := db.SelectContext(ctx, &found, `SELECT milestone || ' ' || state FROM orders WHERE workflow_id::text = ANY ($1)
		ORDER BY created_at, id`,
		pq.Array(u.WorkflowIDs))
	return found, err
}
