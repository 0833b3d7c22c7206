package engine_test

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/upgrade"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

var _ = Describe("An operator's rollback", func() {
	It("deploys the proven release before the current one, without config, and records its version", func() {
		w := newWorld()
		c := w.component(component.Builder)
		first := w.proven(c, 1)
		u := w.verifying(c)
		w.beat(component.Builder, "", "v2", "b1", "b2")
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
		back, err := w.RequestRollback(ctx(), engine.RollbackRequest{ComponentID: c, RequestedBy: "alice"})
		Expect(err).NotTo(HaveOccurred())
		Expect([]any{back.Trigger, back.To.SourceRepoGitRef}).To(Equal([]any{upgrade.TriggerRollback, "v1"}))
		again, err := w.RequestRollback(ctx(), engine.RollbackRequest{ComponentID: c, ReleaseID: first.ID})
		Expect(err).NotTo(HaveOccurred())
		Expect(again.ID).To(Equal(back.ID))
		Expect(w.Start(ctx(), back.ID, w.exchange, w.judgement())).To(Succeed())
		Expect(w.order(back.ID, "config")).To(BeEmpty())
		w.runDeploy(back.ID, "deploy_oa")
		w.beat(component.Builder, "", "v1", "b1", "b2")
		Expect(w.Prove(ctx(), back.ID, w.exchange, w.judgement())).To(Succeed())
		Expect(w.recorded(c)).To(Equal("v1 upgrade_completed"))
		Expect(w.value(`SELECT id FROM releases ORDER BY proven_at DESC NULLS LAST LIMIT 1`)).To(Equal(first.ID))
		_, err = w.RequestRollback(ctx(), engine.RollbackRequest{ComponentID: c})
		Expect(fault.CodeOf(err)).To(Equal(engine.CodeNoRelease), "a repeat does not return to what was left")
		Expect(err).To(MatchError(ContainSubstring("proven before v1: name one of GET /system_components/1/releases")))
	})

	It("leads to what the first deploy replaced, which is kept at the instant of the proof, and not back", func() {
		w := newWorld()
		c := w.provenByUnits()
		back, err := w.RequestRollback(ctx(), engine.RollbackRequest{ComponentID: c})
		Expect(err).NotTo(HaveOccurred())
		Expect(back.To.SourceRepoGitRef).To(Equal("v1"))
		Expect(w.Start(ctx(), back.ID, w.exchange, w.judgement())).To(Succeed())
		w.runDeploy(back.ID, "deploy")
		Expect(w.recorded(c)).To(Equal("v1 upgrade_completed"))
		_, err = w.RequestRollback(ctx(), engine.RollbackRequest{ComponentID: c})
		Expect(fault.CodeOf(err)).To(Equal(engine.CodeNoRelease))
	})

	DescribeTable("leads by default to the other version that was proven last before the recorded one",
		func(recorded, want string, proofs ...string) {
			w := newWorld()
			c := w.component(component.Builder)
			w.exec(`UPDATE system_components SET source_repo_git_ref = $1`, recorded)
			released := map[string]bool{}
			for i, name := range proofs { // the version, and a letter where it has several releases
				at := fmt.Sprintf("%d hours", i-len(proofs))
				if released[name] {
					w.exec(`UPDATE releases SET first_proven_at = coalesce(first_proven_at, proven_at),
						proven_at = now() + $2::interval WHERE etcd_token = $1`, name, at)
					continue
				}
				released[name] = true
				r := w.proven(c, 1)
				w.exec(`UPDATE releases SET adopted = false, etcd_token = $2, source_repo_git_ref = $3,
					proven_at = now() + $4::interval WHERE id = $1`, r.ID, name, name[:2], at)
			}
			back, err := w.RequestRollback(ctx(), engine.RollbackRequest{ComponentID: c})
			if want == "" {
				Expect(fault.CodeOf(err)).To(Equal(engine.CodeNoRelease))
				return
			}
			Expect(err).NotTo(HaveOccurred())
			Expect(w.value(`SELECT etcd_token FROM releases JOIN upgrades ON release_id = releases.id
				WHERE upgrades.id = $1`, string(back.ID))).To(Equal(want))
		},
		Entry("two versions", "v2", "v1", "v1", "v2"),
		Entry("the recorded one was deployed anew", "v2", "v1", "v1", "v2", "v2b"),
		Entry("after a return there is nothing before", "v1", "", "v1", "v2", "v1"),
		Entry("nor if the version that was left had two releases", "v1", "", "v1", "v2", "v2b", "v1"),
		Entry("a return leads further back", "v2", "v1", "v1", "v2", "v3", "v2"),
		Entry("from what came after a return, to what was returned to", "v3", "v1", "v1", "v2", "v1", "v3"),
		Entry("an old version that was deployed anew came after the other", "v1", "v2", "v1", "v2", "v1b"),
		Entry("the recorded one has no release", "v3", "v2", "v1", "v2"),
		Entry("only the recorded one", "v1", "", "v1", "v1b"),
	)

	It("needs a release to return to, and no other open upgrade", func() {
		w := newWorld()
		c := w.component(component.Builder)
		_, err := w.RequestRollback(ctx(), engine.RollbackRequest{ComponentID: c})
		Expect(fault.CodeOf(err)).To(Equal(engine.CodeNoRelease))
		w.proven(c, 1)
		r := w.proven(c, 1)
		w.request(c)
		_, err = w.RequestRollback(ctx(), engine.RollbackRequest{ComponentID: c, ReleaseID: r.ID})
		Expect(fault.CodeOf(err)).To(Equal(engine.CodeUpgradeOpen))
	})
})
