//go:build e2e

package faults_test

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

var _ = Describe("An upgrade completes, once,", Label("faults"), func() {
	var u managerapi.Upgrade
	var ref string

	BeforeEach(func(ctx SpecContext) {
		ref = newHello(ctx)
		u = request(ctx, stack.Hello, ref)
	}, NodeTimeout(time.Minute))

	It("though manager-api is down for a minute in the midst of it", func(ctx SpecContext) {
		underWay(ctx, stack.Hello, ref)
		Expect(suite.Hold(ctx, manager.Unit(1))).To(Succeed())
		running := func() (int, error) {
			found, err := see.Processes(manager)
			return len(found), err
		}
		Eventually(running).WithContext(ctx).WithTimeout(30 * time.Second).Should(BeZero())
		Consistently(running).WithContext(ctx).WithTimeout(time.Minute).WithPolling(500 * time.Millisecond).Should(BeZero())
		Expect(see.Runs(ctx, stack.Hello, ref)).To(HaveLen(stack.Hello.Instances), "the executor goes on without manager-api")
		Expect(suite.Launch(ctx, manager.Unit(1))).To(Succeed())
		completedOnce(ctx, u, stack.Hello, ref, "config completed", "deploy completed")
	}, SpecTimeout(4*time.Minute))

	DescribeTable("though in the midst of it is restarted", func(ctx SpecContext, stop,
		start func(context.Context) error) {
		underWay(ctx, stack.Hello, ref)
		Expect(stop(ctx)).To(Succeed())
		Expect(start(ctx)).To(Succeed())
		completedOnce(ctx, u, stack.Hello, ref, "config completed", "deploy completed")
	},
		Entry("RabbitMQ", SpecTimeout(4*time.Minute),
			func(ctx context.Context) error { return suite.RabbitMQ.Stop(ctx) },
			func(ctx context.Context) error { return suite.RabbitMQ.Start(ctx) }),
		Entry("PostgreSQL", SpecTimeout(4*time.Minute),
			func(ctx context.Context) error { return suite.Postgres.Stop(ctx) },
			func(ctx context.Context) error { return suite.Postgres.Start(ctx) }),
	)

	It("though it is requested again while it is open: that answers the same upgrade", func(ctx SpecContext) {
		id := component(ctx, stack.Hello).ID
		Expect(see.API.RequestUpgrade(ctx, managerapi.UpgradeRequest{ComponentID: id})).To(HaveField("ID", u.ID))
		Eventually(state(u.ID)).WithContext(ctx).WithTimeout(30 * time.Second).Should(Equal(upgrade.InProgress))
		Expect(see.API.RequestUpgrade(ctx, managerapi.UpgradeRequest{ComponentID: id})).To(HaveField("ID", u.ID))
		Expect(see.API.Create(ctx, upgradePath(id), nil)).To(BeEquivalentTo(u.ID))
		completedOnce(ctx, u, stack.Hello, ref, "config completed", "deploy completed")
	}, SpecTimeout(2*time.Minute))
})
