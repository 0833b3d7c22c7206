//go:build e2e

package faults_test

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	oa "github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

func upgradePath(id oa.ID) string { return fmt.Sprintf("/system_components/%d/upgrade", id) }

// leader is the process of the overseer that leads.
func leader(ctx SpecContext) proc.Process {
	GinkgoHelper()
	snapshot, err := see.API.Snapshot(ctx, suite.ExchangeID())
	Expect(err).NotTo(HaveOccurred())
	overseers, err := see.Processes(stack.Own[1])
	Expect(err).NotTo(HaveOccurred())
	at := slices.IndexFunc(overseers, func(p proc.Process) bool { return p.Hostname == snapshot.Lease.Holder })
	Expect(at).NotTo(Equal(-1), "%s leads and does not run", snapshot.Lease.Holder)
	return overseers[at]
}

var _ = Describe("The leading overseer is killed", Label("faults"), func() {
	kill := func(p proc.Process) {
		GinkgoHelper()
		Expect(syscall.Kill(p.PID, syscall.SIGKILL)).To(Succeed())
	}

	It("right after an upgrade was requested", func(ctx SpecContext) {
		ref, first := newHello(ctx), leader(ctx)
		u := request(ctx, stack.Hello, ref)
		kill(first)
		completedOnce(ctx, u, stack.Hello, ref, "config completed", "deploy completed")
	}, SpecTimeout(2*time.Minute))

	It("right after one was started", func(ctx SpecContext) {
		ref, first := newHello(ctx), leader(ctx)
		u := request(ctx, stack.Hello, ref)
		Eventually(state(u.ID)).WithContext(ctx).WithTimeout(30 * time.Second).WithPolling(10 * time.Millisecond).
			Should(Equal(upgrade.InProgress))
		kill(first)
		completedOnce(ctx, u, stack.Hello, ref, "config completed", "deploy completed")
	}, SpecTimeout(2*time.Minute))

	It("while one is verified", func(ctx SpecContext) {
		const ref = "verified-twice"
		Expect(suite.Build(ctx, ref)).To(Succeed())
		u := request(ctx, manager, ref)
		Eventually(state(u.ID)).WithContext(ctx).WithTimeout(time.Minute).WithPolling(10 * time.Millisecond).
			Should(Equal(upgrade.Verifying))
		kill(leader(ctx))
		completedOnce(ctx, u, manager, ref, "config completed", "deploy_oa completed")
	}, SpecTimeout(3*time.Minute))
})
