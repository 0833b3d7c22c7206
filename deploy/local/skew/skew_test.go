//go:build e2e

package skew_test

import (
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

var (
	manager, overseer, deployer = stack.Own[0], stack.Own[1], stack.Own[2]
	types                       = []component.Type{component.Manager, component.Overseer, component.Deployer}
)

var _ = Describe("A stack of the release before this one (H5)", Label("skew"), func() {
	var b *beside
	failed := false
	AfterEach(func() { failed = failed || CurrentSpecReport().Failed() })

	Context("whose parts are upgraded one by one, manager-api last,", Ordered, func() {
		BeforeAll(func(ctx SpecContext) { b = begin(ctx, func() bool { return failed }) }, NodeTimeout(10*time.Minute))

		It("takes a bad new deployer-oa back, with its old manager-api", func(ctx SpecContext) {
			b.takesBack(ctx, stack.Own[3], stack.NeverReady)
			b.works(ctx)
		}, SpecTimeout(6*time.Minute))

		It("works with new executors", func(ctx SpecContext) {
			b.upgrades(ctx, component.Deployer, b.newVersion(ctx, nil, ""))
			b.works(ctx)
		}, SpecTimeout(6*time.Minute))

		It("takes a bad new overseer back by new executors, with its old manager-api", func(ctx SpecContext) {
			b.takesBack(ctx, overseer, stack.CrashLoop)
			b.works(ctx)
		}, SpecTimeout(6*time.Minute))

		It("works with new executors and new overseers", func(ctx SpecContext) {
			b.upgrades(ctx, component.Overseer, b.newVersion(ctx, nil, ""))
			b.works(ctx)
		}, SpecTimeout(6*time.Minute))

		It("takes a new manager-api back that has expanded the schema: the old one works on the new schema (B8)",
			func(ctx SpecContext) {
				b.takesBack(ctx, manager, stack.Forgetful)
				b.works(ctx)
			}, SpecTimeout(6*time.Minute))

		It("is upgraded on the new schema by its old manager-api (B8)", func(ctx SpecContext) {
			b.upgrades(ctx, component.Deployer, b.newVersion(ctx, nil, ""))
		}, SpecTimeout(6*time.Minute))

		It("ends as a whole new one", func(ctx SpecContext) {
			b.upgrades(ctx, component.Manager, b.newVersion(ctx, nil, ""))
			b.works(ctx)
		}, SpecTimeout(6*time.Minute))
	})

	Context("whose manager-api is upgraded first,", Ordered, func() {
		BeforeAll(func(ctx SpecContext) { b = begin(ctx, func() bool { return failed }) }, NodeTimeout(10*time.Minute))

		It("works with a new manager-api and the new schema", func(ctx SpecContext) {
			b.upgrades(ctx, component.Manager, b.newVersion(ctx, nil, ""))
			b.works(ctx)
		}, SpecTimeout(6*time.Minute))

		It("takes a bad new overseer back by old executors, with its new manager-api", func(ctx SpecContext) {
			b.takesBack(ctx, overseer, stack.Deaf)
			b.works(ctx)
		}, SpecTimeout(6*time.Minute))

		It("goes back to the old manager-api on the new schema when an operator wants it to (B8)", func(ctx SpecContext) {
			c, err := stack.FindComponent(ctx, b.see.API, component.Manager)
			Expect(err).NotTo(HaveOccurred())
			path := fmt.Sprintf("/system_components/%d/rollback", c.ID)
			var u managerapi.Upgrade
			Expect(b.see.API.Do(ctx, "POST", path, map[string]any{"reason": "skew"}, &u)).To(Succeed())
			b.want(ctx, component.Manager, stack.First) // else the next check would bring the new one again
			b.ends(ctx, component.Manager, stack.First, upgrade.Completed)
			Expect(b.see.Recorded(ctx, component.Manager, stack.First)).To(Succeed())
			b.works(ctx)
		}, SpecTimeout(6*time.Minute))

		It("replaces itself by the new one, by the hourly checks alone", func(ctx SpecContext) {
			ref := b.newVersion(ctx, nil, "")
			for _, t := range types {
				b.want(ctx, t, ref)
			}
			for _, t := range types {
				b.ends(ctx, t, ref, upgrade.Completed)
			}
			b.right(ctx)
			b.works(ctx)
		}, SpecTimeout(8*time.Minute))

		It("takes a bad new deployer back", func(ctx SpecContext) {
			b.takesBack(ctx, deployer, stack.Deaf)
			b.works(ctx)
		}, SpecTimeout(6*time.Minute))
	})
})
