package engine_test

import (
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

// commit is a full commit made of one digit.
func commit(digit string) string { return strings.Repeat(digit, 40) }

// startedAt starts an upgrade to a version.
func (w *world) startedAt(u managerapi.Upgrade, to upgrade.Version) upgrade.ID {
	GinkgoHelper()
	j := w.judgement()
	j.Target = to
	Expect(w.Start(ctx(), u.ID, w.exchange, j)).To(Succeed())
	return u.ID
}

// rendered completes config with these commits.
func (w *world) rendered(id upgrade.ID, source, deployment string) {
	GinkgoHelper()
	Expect(w.tell(result(w.claim(w.order(id, "config"), "exec-1"), func(r *messages.Result) {
		configured(r)
		r.SourceCommitHash, r.DeploymentCommitHash = source, deployment
		r.DeployableUnits[0].Name = unitOf(w.phase(id)) + "@.service"
	}))).To(Equal(engine.AppliedDone))
}

// provenAt is a billing whose v1 was proven at these commits.
func (w *world) provenAt(source, deployment string) component.ID {
	GinkgoHelper()
	c := w.component("billing")
	w.proven(c, 1)
	w.exec(`UPDATE releases SET source_commit_hash = $1, deployment_commit_hash = $2`, source, deployment)
	return c
}

// at is v1 or another ref of src, at two commits.
func at(ref, source, deployment string) upgrade.Version {
	return upgrade.Version{SourceRepo: "src", SourceRepoGitRef: ref, SourceCommitHash: source,
		DeploymentCommitHash: deployment}
}

var _ = Describe("The commits of an upgrade (fault 20)", func() {
	planned := func(w *world, u upgrade.ID) []string {
		o := order(w.value(`SELECT body FROM orders WHERE id = $1`, w.order(u, "config")))
		return []string{o.SourceCommitHash, o.DeploymentCommitHash}
	}
	recorded := func(w *world) []string {
		s, err := w.Snapshot(ctx(), w.exchange, false)
		Expect(err).NotTo(HaveOccurred())
		c := s.Components[0]
		return []string{c.SourceRepoGitRef, c.SourceCommitHash, c.DeploymentCommitHash}
	}

	It("do not tell a new manager-api from the one before: of a branch that moved on neither blames the version", func() {
		w := newWorld()
		c := w.component(component.Manager)
		w.proven(c, 1)
		w.exec(`UPDATE releases SET source_commit_hash = $1, deployment_commit_hash = $2`, commit("1"), commit("a"))
		u := w.startedAt(w.forced(c), at("v1", commit("2"), commit("a")))
		w.rendered(u, commit("2"), commit("a"))
		w.claim(w.order(u, "deploy_oa"), "exec-1")
		w.outOfTime(u)
		shown := w.shown(u)
		Expect([]any{shown.State, shown.Cause, shown.Verdict.Code}).
			To(Equal([]any{upgrade.RollingBack, upgrade.CauseEnvironment, "no_progress"}))
		Expect(w.value(`SELECT count(*) FROM quarantines`)).To(Equal("0"))
	})

	It("are planned by its start, rendered by config, and recorded with the proof", func() {
		w := newWorld()
		c := w.provenAt(commit("1"), commit("a"))
		u := w.startedAt(w.request(c), at("v2", commit("2"), commit("b")))
		Expect(planned(w, u)).To(Equal([]string{commit("2"), commit("b")}))
		w.rendered(u, commit("2"), commit("b"))
		Expect(recorded(w)).To(Equal([]string{"v1", commit("1"), commit("a")}))
		w.runDeploy(u, "deploy")
		Expect(recorded(w)).To(Equal([]string{"v2", commit("2"), commit("b")}))
		shown := w.shown(u)
		Expect([]any{shown.State, shown.From, shown.To}).To(Equal([]any{upgrade.Completed,
			at("v1", commit("1"), commit("a")), at("v2", commit("2"), commit("b"))}))
	})

	It("are those of config where none were planned", func() {
		w := newWorld()
		c := w.provenAt(commit("1"), commit("a"))
		u := w.startedAt(w.request(c), at("v2", "", ""))
		Expect(planned(w, u)).To(Equal([]string{"", ""}))
		w.rendered(u, commit("3"), commit("c"))
		Expect(w.shown(u).To).To(Equal(at("v2", commit("3"), commit("c"))))
	})

	It("of a deployer are those of both deployment repositories, and phase 2 renders the source of phase 1", func() {
		w := newWorld()
		c := w.component(component.Deployer)
		u := w.startedAt(w.request(c), at("v2", "", ""))
		w.rendered(u, commit("2"), commit("b"))
		Expect(w.shown(u).To).To(Equal(at("v2", commit("2"), "")), "one of two is not known yet")
		w.runDeploy(u, "deploy_oa")
		w.beat(component.Deployer, "deployer", "v2", "d1", "d2")
		w.tell(result(w.claim(w.order(u, "probe"), "exec-1"), completed))
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
		Expect(planned(w, u)).To(Equal([]string{commit("2"), ""}))
		w.rendered(u, commit("2"), commit("c"))
		Expect(w.shown(u).To).To(Equal(at("v2", commit("2"), commit("b")+","+commit("c"))))
	})

	It("of a deployer are planned for each phase", func() {
		w := newWorld()
		u := w.startedAt(w.request(w.component(component.Deployer)), at("v2", commit("2"), commit("b")+","+commit("c")))
		Expect(planned(w, u)).To(Equal([]string{commit("2"), commit("b")}))
	})

	DescribeTable("that an executor of the former release did not keep end the upgrade: never other code (D11)",
		func(source, deployment string) {
			w := newWorld()
			u := w.startedAt(w.request(w.provenAt(commit("1"), commit("a"))), at("v2", commit("2"), commit("b")))
			w.rendered(u, source, deployment)
			shown := w.shown(u)
			Expect([]any{shown.State, shown.Cause, shown.Verdict.Code}).
				To(Equal([]any{upgrade.Failed, upgrade.CauseEnvironment, "git_commit_gone"}))
			Expect(shown.Verdict.Message).To(ContainSubstring("stood for commit"))
			Expect(w.value(`SELECT count(*) FROM orders WHERE milestone = 'deploy'`)).To(Equal("0"))
		},
		Entry("of the source", commit("3"), commit("b")),
		Entry("of the deployment repository", commit("2"), commit("c")),
	)

	It("are bound by a quarantine, one for each ref, and shown", func() {
		w := newWorld()
		c := w.provenAt(commit("1"), commit("a"))
		fails := func(source, deployment string) managerapi.Quarantine {
			GinkgoHelper()
			u := w.startedAt(w.request(c), at("v2", source, deployment))
			w.rendered(u, source, deployment)
			w.tell(result(w.claim(w.order(u, "deploy"), "exec-1"), failed(messages.CauseVersion, "deploy_unhealthy", false)))
			list, err := w.Quarantines(ctx(), w.exchange, "", 9)
			Expect(err).NotTo(HaveOccurred())
			Expect(list).To(HaveLen(1))
			return list[0]
		}
		q := fails(commit("2"), commit("b"))
		Expect([]string{q.SourceRepoGitRef, q.SourceCommitHash, q.DeploymentCommitHash}).
			To(Equal([]string{"v2", commit("2"), commit("b")}))
		again := fails(commit("2"), commit("c"))
		Expect([]string{again.ID, again.DeploymentCommitHash}).To(Equal([]string{q.ID, commit("c")}))
		s, err := w.Snapshot(ctx(), w.exchange, false)
		Expect(err).NotTo(HaveOccurred())
		Expect(s.Refused("billing")).To(Equal([]upgrade.Version{at("v2", commit("2"), commit("c"))}))
	})

	DescribeTable("that are proven end their own quarantine",
		func(source, deployment string, left int) {
			w := newWorld()
			c := w.provenAt(commit("1"), commit("a"))
			w.exec(`INSERT INTO quarantines (id, messaging_exchange_id, component_type, source_repo, source_repo_git_ref, reason,
				message, source_commit_hash, deployment_commit_hash)
				VALUES (gen_random_uuid(), $1, 'billing', 'src', 'v2', 'r', 'm', $2, $3)`, w.exchange, source, deployment)
			u := w.startedAt(w.forced(c), at("v2", commit("2"), commit("b")))
			w.rendered(u, commit("2"), commit("b"))
			w.runDeploy(u, "deploy")
			Expect(w.state(u)).To(Equal(upgrade.Completed))
			list, err := w.Quarantines(ctx(), w.exchange, "", 9)
			Expect(err).NotTo(HaveOccurred())
			Expect(list).To(HaveLen(left))
		},
		Entry("both", commit("2"), commit("b"), 0),
		Entry("whatever stands behind the ref", "", "", 0),
		Entry("but not one of another source commit, which has failed", commit("9"), commit("b"), 1),
		Entry("nor one of another deployment commit", commit("2"), commit("9"), 1),
	)

	It("make another version: an operator returns to the commit before", func() {
		w := newWorld()
		c := w.provenAt(commit("1"), commit("a"))
		u := w.startedAt(w.request(c), at("v1", commit("2"), commit("a")))
		w.rendered(u, commit("2"), commit("a"))
		w.runDeploy(u, "deploy")
		Expect(recorded(w)).To(Equal([]string{"v1", commit("2"), commit("a")}))
		back, err := w.RequestRollback(ctx(), engine.RollbackRequest{ComponentID: c})
		Expect(err).NotTo(HaveOccurred())
		Expect(back.To).To(Equal(at("v1", commit("1"), commit("a"))))
	})

	It("of a deployer do not make a version of its own out of the half that a release has", func() {
		w := newWorld()
		c := w.component(component.Deployer)
		w.proven(c, 1)
		w.proven(c, 2)
		w.exec(`UPDATE releases SET source_commit_hash = 's', deployment_commit_hash = 'd' || phase`)
		Expect(recorded(w)).To(Equal([]string{"v1", "s", "d1,d2"}))
		_, err := w.RequestRollback(ctx(), engine.RollbackRequest{ComponentID: c})
		Expect(err).To(MatchError(ContainSubstring("no release of another version")))
	})
})

var _ = Describe("A repair", func() {
	milestones := func(w *world, u upgrade.ID) string {
		return w.value(`SELECT string_agg(milestones::text, ' ' ORDER BY phase) FROM workflows WHERE upgrade_id = $1`,
			string(u))
	}

	It("deploys the stored, proven release, without git (fault 17)", func() {
		w := newWorld()
		c := w.provenAt(commit("1"), commit("a"))
		u := w.startedAt(w.request(c), at("v1", commit("1"), commit("a")))
		Expect(milestones(w, u)).To(Equal(`["deploy"]`))
		o := order(w.value(`SELECT body FROM orders WHERE id = $1`, w.order(u, "deploy")))
		Expect([]any{o.SourceCommitHash, o.DeploymentCommitHash, o.DeployableUnits}).To(Equal([]any{commit("1"), commit("a"),
			[]messages.UnitDefinition{{Name: "x@.service"}}}))
		w.runDeploy(u, "deploy")
		Expect(w.state(u)).To(Equal(upgrade.Completed))
		Expect(w.recorded(c)).To(Equal("v1 upgrade_completed"))
		Expect(w.value(`SELECT count(*) FROM releases`)).To(Equal("1"))
	})

	It("deploys the stored release of each phase of a deployer", func() {
		w := newWorld()
		c := w.component(component.Deployer)
		w.proven(c, 1)
		w.proven(c, 2)
		u := w.startedAt(w.request(c), at("v1", "", ""))
		Expect(milestones(w, u)).To(Equal(`["deploy_oa"]`))
		w.runDeploy(u, "deploy_oa")
		w.beat(component.Deployer, "deployer", "v1", "d1", "d2")
		w.tell(result(w.claim(w.order(u, "probe"), "exec-1"), completed))
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
		Expect(milestones(w, u)).To(Equal(`["deploy_oa"] ["deploy"]`))
	})

	DescribeTable("is an upgrade to what is recorded, and nothing else",
		func(change func(*world, component.ID) (managerapi.Upgrade, upgrade.Version)) {
			w := newWorld()
			c := w.provenAt(commit("1"), commit("a"))
			u, to := change(w, c)
			Expect(milestones(w, w.startedAt(u, to))).To(Equal(`["config", "deploy"]`))
		},
		Entry("not with force: that renders anew", func(w *world, c component.ID) (managerapi.Upgrade, upgrade.Version) {
			return w.forced(c), at("v1", commit("1"), commit("a"))
		}),
		Entry("not to another source commit", func(w *world, c component.ID) (managerapi.Upgrade, upgrade.Version) {
			return w.request(c), at("v1", commit("2"), commit("a"))
		}),
		Entry("not to another deployment commit", func(w *world, c component.ID) (managerapi.Upgrade, upgrade.Version) {
			return w.request(c), at("v1", commit("1"), commit("b"))
		}),
		Entry("not to another ref at the same commits", func(w *world, c component.ID) (managerapi.Upgrade, upgrade.Version) {
			return w.request(c), at("v2", commit("1"), commit("a"))
		}),
		Entry("not of a version that was only stated", func(w *world, c component.ID) (managerapi.Upgrade, upgrade.Version) {
			w.exec(`DELETE FROM releases`)
			return w.request(c), at("v1", "", "")
		}),
	)
})
