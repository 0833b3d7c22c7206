package engine_test

import (
	"fmt"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/times"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

var _ = Describe("An upgrade", func() {
	It("goes from the request to the recorded version, each step in one write", func() {
		w := newWorld()
		c := w.component(component.Builder)
		u := w.request(c)
		Expect(u.State).To(Equal(upgrade.Requested))
		Expect(w.outboxed()).To(Equal([]string{"overseer upgrade_request"}))

		Expect(w.Start(ctx(), u.ID, w.exchange, w.judgement())).To(Succeed())
		Expect(w.outboxed()).To(Equal([]string{"overseer upgrade_request", "deploy_oa milestone_order"}))
		Expect(w.recorded(c)).To(Equal("v1 upgrade_in_progress"))
		sent := order(w.value(`SELECT body FROM outbox WHERE queue = 'deploy_oa'`))
		Expect(sent.Validate()).To(Succeed())
		Expect([]any{sent.CurrentStep, sent.Milestones, sent.DeploymentRepo, sent.SourceRepoGitRef, sent.Cluster}).To(Equal(
			[]any{messages.MilestoneConfig, []messages.Milestone{"config", "deploy_oa"}, "https://git/deploy.git", "v2",
				(*messages.Cluster)(nil)}))

		w.runConfig(u.ID)
		deploy := order(w.value(`SELECT body FROM orders WHERE id = $1`, w.order(u.ID, "deploy_oa")))
		Expect(deploy.Cluster).To(Equal(&messages.Cluster{EtcdToken: "Tok", Runtime: "fleet", Endpoint: "http://unitd"}))
		Expect(deploy.DeployableUnits).To(HaveLen(1))
		w.runDeploy(u.ID, "deploy_oa")
		Expect(w.state(u.ID)).To(Equal(upgrade.Verifying))
		Expect(w.value(`SELECT workflow_completed::text || workflow_error::text || instances
			FROM workflows`)).To(Equal("truefalse2"))
		Expect(w.recorded(c)).To(Equal("v1 upgrade_in_progress"))

		w.beat(component.Builder, "", "v2", "b1", "b2")
		Expect(w.Prove(ctx(), u.ID, w.exchange, w.judgement())).To(Succeed())
		shown, err := w.Upgrade(ctx(), u.ID)
		Expect(err).NotTo(HaveOccurred())
		Expect([]any{shown.State, shown.From.SourceRepoGitRef, shown.To.AtRef(), shown.DeadlineAt == nil,
			shown.FinishedAt != nil}).
			To(Equal(
				[]any{upgrade.Completed, "v1", target, true, true}))
		Expect(w.recorded(c)).To(Equal("v2 upgrade_completed"))
		Expect(w.value(`SELECT upgrade_status FROM system_components`)).To(BeEmpty())
		Expect(w.events()).To(Equal([]string{"upgrade_completed info"}))
		Expect(w.codes(upgradeSubject(u.ID))).
			To(Equal([]string{"requested", "eligible", "workflow_completed", "release_adopted", "proven"}))
		Expect(w.value(`SELECT string_agg(code || ' ' || (inputs->>'term'), ', ' ORDER BY seq) FROM journal
			WHERE subject = $1 AND inputs->>'term' <> '0'`, upgradeSubject(u.ID))).
			To(Equal(fmt.Sprintf("eligible %d, proven %d", w.term, w.term)),
				"the journal names the term of each judgement (I14)")
	})

	It("is proven as its component demands when it starts, not when it was requested", func() {
		w := newWorld()
		c := w.component("billing")
		u := w.request(c)
		w.exec(`UPDATE system_components SET proof = 'modules' WHERE id = $1`, c)
		Expect(w.Start(ctx(), u.ID, w.exchange, w.judgement())).To(Succeed())
		w.runConfig(u.ID)
		w.runDeploy(u.ID, "deploy")
		Expect(w.state(u.ID)).To(Equal(upgrade.Verifying))
	})

	It("is not proven by modules that were steady and then fell silent", func() {
		w := newWorld()
		u := w.verifying(w.component(component.Builder))
		w.beat(component.Builder, "", "v2", "b1", "b2")
		w.exec(`UPDATE workflows SET ended_at = now() - interval '5 minutes'`)
		w.exec(`UPDATE messaging_exchange_modules SET updated_at = now() - interval '4 minutes',
			steady_since = now() - interval '4 minutes 30 seconds'`)
		Expect(fault.CodeOf(w.Prove(ctx(), u, w.exchange, w.judgement()))).To(Equal(engine.CodeNotProven))
		w.exec(`UPDATE messaging_exchange_modules SET updated_at = now()`)
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
	})

	It("is proven by a commit as well, and its release is the proven one from then on", func() {
		w := newWorld()
		c := w.component(component.Builder)
		u := w.verifying(c)
		w.beat(component.Builder, "", "abc123", "b1", "b2")
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
		Expect(w.value(`SELECT source_repo_git_ref FROM releases WHERE proven_at IS NOT NULL ORDER BY proven_at DESC
			LIMIT 1`)).To(Equal("v2"))
		s, err := w.Snapshot(ctx(), w.exchange, false)
		Expect(err).NotTo(HaveOccurred())
		Expect(s.Components[0].SourceCommitHash).To(Equal("abc123"))
	})

	It("of a deployer knows its commit where both phases were proven at one", func() {
		w := newWorld()
		c := w.component(component.Deployer)
		w.proven(c, 1)
		later := w.proven(c, 2)
		w.exec(`UPDATE releases SET source_commit_hash = 'abc123'`)
		commit := func() string {
			s, err := w.Snapshot(ctx(), w.exchange, false)
			Expect(err).NotTo(HaveOccurred())
			return s.Components[0].SourceCommitHash
		}
		Expect(commit()).To(Equal("abc123"))
		w.exec(`UPDATE releases SET source_commit_hash = 'def456' WHERE id = $1`, later.ID)
		Expect(commit()).To(BeEmpty(), "its branch moved between the phases, and either commit is right")
	})

	DescribeTable("R2 is not proven by words: manager-api looks at its own rows",
		func(host []string, ref, code, sentence string) {
			w := newWorld()
			c := w.component(component.Builder)
			u := w.verifying(c)
			w.beat(component.Builder, "", ref, host...)
			err := w.Prove(ctx(), u, w.exchange, w.judgement())
			Expect(fault.CodeOf(err)).To(Equal(code))
			Expect(err.Error()).To(ContainSubstring(sentence))
			Expect(w.state(u)).To(Equal(upgrade.Verifying))
			Expect(w.recorded(c)).To(Equal("v1 upgrade_in_progress"))
		},
		Entry("too few of them", []string{"b1"}, "v2", engine.CodeNotProven, "only 1 of 2"),
		Entry("another version", []string{"b1", "b2"}, "v1", engine.CodeNotProven, "b1 reports v1"),
		Entry("no beat at all", []string{"b1"}, "v1", engine.CodeNotProven, "others do not"),
	)

	It("refuses every judgement under a stale term, and changes nothing", func() {
		w := newWorld()
		c := w.component(component.Builder)
		u := w.request(c)
		old := w.judgement()
		Expect(w.Resign(ctx(), w.exchange, w.term)).To(Succeed())
		w.term = w.lead("overseer-2", 0).Term
		for _, judge := range []func() error{
			func() error { return w.Start(ctx(), u.ID, w.exchange, old) },
			func() error { return w.Refuse(ctx(), u.ID, w.exchange, old) },
			func() error { return w.Prove(ctx(), u.ID, w.exchange, old) },
			func() error { return w.Check(ctx(), c, w.exchange, managerapi.Check{Term: old.Term, Create: true}) },
			func() error { _, err := w.Expire(ctx(), w.exchange, managerapi.Expiry{Term: old.Term}); return err },
		} {
			Expect(fault.CodeOf(judge())).To(Equal(db.CodeStaleTerm))
		}
		Expect(w.state(u.ID)).To(Equal(upgrade.Requested))
	})

	It("R2 ends ineligible without touching the recorded version", func() {
		w := newWorld()
		c := w.component(component.Builder)
		u := w.request(c)
		j := w.judgement()
		j.Verdict = managerapi.Verdict{Code: "deployment_repo_blank", Message: "the component has no deployment repository"}
		Expect(w.Refuse(ctx(), u.ID, w.exchange, j)).To(Succeed())
		Expect(w.recorded(c)).To(Equal("v1 ineligible_for_upgrade"))
		Expect(w.value(`SELECT upgrade_status->>'failure_reason' FROM system_components`)).
			To(Equal("the component has no deployment repository"))
		Expect(w.state(u.ID)).To(Equal(upgrade.Ineligible))
	})

	It("terminal states absorb", func() {
		w := newWorld()
		u := w.request(w.component(component.Builder))
		_, err := w.Cancel(ctx(), u.ID, 0)
		Expect(err).NotTo(HaveOccurred())
		_, err = w.Cancel(ctx(), u.ID, 0)
		Expect(fault.CodeOf(err)).To(Equal(engine.CodeIllegalMove))
		Expect(fault.CodeOf(w.Start(ctx(), u.ID, w.exchange, w.judgement()))).To(Equal(engine.CodeIllegalMove))
		Expect(w.state(u.ID)).To(Equal(upgrade.Canceled))
	})

	It("R1 a repeated request answers the same upgrade and leaves a running one alone", func() {
		w := newWorld()
		c := w.component(component.Builder)
		u := w.started(c)
		again, created, err := w.RequestUpgrade(ctx(), managerapi.UpgradeRequest{ComponentID: c, Force: true})
		Expect(err).NotTo(HaveOccurred())
		Expect([]any{again.ID, created, again.State, again.Force}).To(Equal([]any{u, false, upgrade.InProgress, false}))
		Expect(w.recorded(c)).To(Equal("v1 upgrade_in_progress"))
	})

	It("R1 twenty requests at once make one upgrade", func() {
		w := newWorldWith(8, func(*times.Times) {})
		c := w.component(component.Builder)
		ids := make([]upgrade.ID, 20)
		var all sync.WaitGroup
		for i := range ids {
			all.Go(func() {
				defer GinkgoRecover()
				ids[i] = w.request(c).ID
			})
		}
		all.Wait()
		Expect(ids).To(HaveEach(ids[0]))
		Expect(w.value(`SELECT count(*) FROM upgrades`)).To(Equal("1"))
	})

	It("C3 two starts in one exchange: the slot goes to one", func() {
		w := newWorldWith(4, func(*times.Times) {})
		a, b := w.request(w.component(component.Builder)), w.request(w.component(component.Notifications))
		var errs [2]error
		var all sync.WaitGroup
		for i, id := range []upgrade.ID{a.ID, b.ID} {
			all.Go(func() { errs[i] = w.Start(ctx(), id, w.exchange, w.judgement()) })
		}
		all.Wait()
		codes := []string{fault.CodeOf(errs[0]), fault.CodeOf(errs[1])}
		Expect(codes).To(ConsistOf("", engine.CodeSlotTaken))
		Expect(w.value(`SELECT count(*) FROM workflows`)).To(Equal("1"), "R3: no orphan")
	})

	DescribeTable("C4 R3 whose start is killed in the middle has not started; the next start makes one workflow",
		func(event string) {
			w := newWorld()
			u := w.request(w.component(component.Builder)).ID
			messages := w.outboxed()
			w.exec(`CREATE FUNCTION kill() RETURNS trigger LANGUAGE plpgsql AS
				$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;
				CREATE TRIGGER kill ` + event + ` FOR EACH ROW EXECUTE FUNCTION kill()`)
			mend := func() { w.exec(`DROP FUNCTION IF EXISTS kill CASCADE`) }
			DeferCleanup(mend)
			made := func() string {
				return w.value(`SELECT (SELECT count(*) FROM workflows) || ' ' || (SELECT count(*) FROM orders)`)
			}
			Expect(fault.Is(w.Start(ctx(), u, w.exchange, w.judgement()), fault.Unavailable)).To(BeTrue())
			Expect(w.state(u)).To(Equal(upgrade.Requested))
			Expect(made()).To(Equal("0 0"))
			Expect(w.outboxed()).To(Equal(messages))
			mend()
			Expect(w.Start(ctx(), u, w.exchange, w.judgement())).To(Succeed())
			Expect(w.state(u)).To(Equal(upgrade.InProgress))
			Expect(made()).To(Equal("1 1"))
			Expect(w.outboxed()).To(HaveLen(len(messages) + 1))
		},
		Entry("when it has made the workflow", "AFTER INSERT ON workflows"),
		Entry("when it stores the state", "BEFORE UPDATE ON upgrades"),
		Entry("when it has put the order into the outbox", "AFTER INSERT ON outbox"),
	)

	It("an hourly check makes one upgrade and journals only what is new", func() {
		w := newWorld()
		c := w.component(component.Builder)
		k := managerapi.Check{Term: w.term, Verdict: managerapi.Verdict{Code: "eligible"}, Create: true}
		before := w.lastSeq()
		Expect(w.Check(ctx(), c, w.exchange, k)).To(Succeed())
		Expect(w.Check(ctx(), c, w.exchange, k)).To(Succeed())
		Expect(w.value(`SELECT string_agg(trigger, ',') FROM upgrades`)).To(Equal("hourly"))
		Expect(w.codes("component/1")).To(Equal([]string{"eligible"}))
		Expect(w.auditedSince(before)).To(HaveExactElements("eligible", "requested"))
	})

	DescribeTable("that an hourly check found and that waits is taken over by a request",
		func(force bool, codes ...string) {
			w := newWorld()
			c := w.component(component.Builder)
			Expect(w.Check(ctx(), c, w.exchange, managerapi.Check{Term: w.term, Verdict: managerapi.Verdict{Code: "eligible"},
				Create: true})).To(Succeed())
			Expect(w.outboxed()).To(BeEmpty())
			ask := func(by string) managerapi.Upgrade {
				u, created, err := w.RequestUpgrade(ctx(), managerapi.UpgradeRequest{ComponentID: c, RequestedBy: by, Reason: "now",
					Force: force})
				Expect(err).NotTo(HaveOccurred())
				Expect(created).To(BeFalse())
				return u
			}
			u := ask("alice")
			Expect([]any{u.State, u.Trigger, u.RequestedBy, u.Reason, u.Force}).
				To(Equal([]any{upgrade.Requested, upgrade.TriggerRequest, "alice", "now", force}))
			Expect(w.outboxed()).To(Equal([]string{"overseer upgrade_request"}))
			Expect(ask("bob").RequestedBy).To(Equal("alice"), "a repeat of a request says nothing new")
			Expect(w.codes(upgradeSubject(u.ID))).To(Equal(codes))
		},
		Entry("a plain one", false, "requested", "requested"),
		Entry("one with force", true, "requested", "forced"),
	)

	It("that is taken over waits from then on: it does not expire with the hourly one, and comes after what was "+
		"requested before", func() {
		w := newWorld()
		c := w.component(component.Builder)
		Expect(w.Check(ctx(), c, w.exchange, managerapi.Check{Term: w.term, Verdict: managerapi.Verdict{Code: "eligible"},
			Create: true})).To(Succeed())
		w.exec(`UPDATE upgrades SET created_at = now() - interval '25 hours'`)
		earlier := w.request(w.component("billing"))
		later := w.request(c)
		Expect(later.CreatedAt).To(BeTemporally(">", earlier.CreatedAt))
		s, err := w.Snapshot(ctx(), w.exchange, false)
		Expect(err).NotTo(HaveOccurred())
		Expect([]upgrade.ID{s.Upgrades[0].ID, s.Upgrades[1].ID}).To(Equal([]upgrade.ID{earlier.ID, later.ID}))
		Expect(w.ExpireRequests(ctx())).To(Succeed())
		Expect(w.state(later.ID)).To(Equal(upgrade.Requested))
		w.exec(`UPDATE upgrades SET created_at = now() - interval '25 hours'`)
		_, _, err = w.RequestUpgrade(ctx(), managerapi.UpgradeRequest{ComponentID: c, RequestedBy: "bob", Force: true})
		Expect(err).NotTo(HaveOccurred())
		Expect(w.ExpireRequests(ctx())).To(Succeed())
		Expect(w.state(later.ID)).To(Equal(upgrade.Requested), "somebody has just asked for it, with force (fault 6)")
		w.exec(`UPDATE upgrades SET asked_at = now() - interval '25 hours'`)
		Expect(w.ExpireRequests(ctx())).To(Succeed())
		Expect(w.state(later.ID)).To(Equal(upgrade.Expired))
	})

	It("that was requested stays so when the hourly check finds it due", func() {
		w := newWorld()
		c := w.component(component.Builder)
		u := w.request(c)
		_, _, err := w.RequestUpgrade(ctx(), managerapi.UpgradeRequest{ComponentID: c, ExchangeID: w.exchange, Term: w.term,
			Trigger: upgrade.TriggerHourly, RequestedBy: "overseer"})
		Expect(err).NotTo(HaveOccurred())
		Expect([]any{w.shown(u.ID).Trigger, w.shown(u.ID).RequestedBy}).To(Equal([]any{upgrade.TriggerRequest, "alice"}))
	})

	It("expires when nobody starts it", func() {
		w := newWorld()
		u := w.request(w.component(component.Builder))
		Expect(w.ExpireRequests(ctx())).To(Succeed())
		Expect(w.state(u.ID)).To(Equal(upgrade.Requested))
		w.exec(`UPDATE upgrades SET created_at = now() - interval '25 hours'`)
		Expect(w.ExpireRequests(ctx())).To(Succeed())
		Expect(w.state(u.ID)).To(Equal(upgrade.Expired))
		Expect(w.shown(u.ID).Verdict.Message).
			To(Equal("nobody started it within 24h0m0s, as no overseer led its exchange or other upgrades kept the slot: " +
				"look at the overseer's log and GET /upgrades, then request it again"))
	})

	It("an overseer is proven only if one of the proven modules leads", func() {
		w := newWorld()
		u := w.verifying(w.component(component.Overseer))
		w.beat(component.Overseer, "overseer", "v2", "o1", "o2")
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).
			To(MatchError(ContainSubstring("no proven overseer holds the lease")))
		Expect(w.Resign(ctx(), w.exchange, w.term)).To(Succeed())
		w.term = w.lead("o2", 0).Term
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
	})

	It("R4 D4 the deployer pair: the second phase begins only after the first is proven; both are recorded together",
		func() {
			w := newWorld()
			c := w.component(component.Deployer)
			u := w.verifying(c)
			w.beat(component.Deployer, "deployer", "v2", "d1", "d2")
			Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(MatchError(ContainSubstring("has not answered its probe")))
			Expect(w.value(`SELECT queue FROM orders WHERE milestone = 'probe'`)).To(Equal("deployer"))
			w.tell(result(w.claim(w.order(u, "probe"), "d1"), completed))
			Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
			Expect(w.state(u)).To(Equal(upgrade.InProgress))
			Expect(w.recorded(c)).To(Equal("v1 upgrade_in_progress"))
			Expect(w.value(`SELECT deployment_repo || ' ' || executor FROM workflows
				WHERE phase = 2`)).To(Equal("https://git/deploy_oa.git deploy"))
			w.runConfig(u)
			w.runDeploy(u, "deploy")
			w.tell(result(w.claim(w.order(u, "probe"), "d1"), completed))
			w.beat(component.Deployer, "deployer-oa", "v2", "a1", "a2")
			Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
			Expect(w.state(u)).To(Equal(upgrade.Completed))
			Expect(w.value(`SELECT count(*) FROM releases WHERE proven_at IS NOT NULL
				AND source_repo_git_ref = 'v2'`)).To(Equal("2"))
		})

	It("deploys every phase from the repository that it began with, whatever becomes of the component meanwhile", func() {
		w := newWorld()
		c := w.component(component.Deployer)
		u := w.verifying(c)
		w.beat(component.Deployer, "deployer", "v2", "d1", "d2")
		w.tell(result(w.claim(w.order(u, "probe"), "d1"), completed))
		w.exec(`UPDATE system_components SET deployment_repo = 'https://git/other.git', deployment_repo_git_ref = 'other'`)
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
		Expect(w.value(`SELECT deployment_repo || ' ' || deployment_repo_git_ref FROM workflows
			WHERE phase = 2`)).To(Equal("https://git/deploy_oa.git master"))
	})

	It("a type without heartbeats is proven by its healthy deploy", func() {
		w := newWorld()
		c := w.component("billing")
		u := w.started(c)
		w.runConfig(u)
		w.runDeploy(u, "deploy")
		Expect(w.state(u)).To(Equal(upgrade.Completed))
		Expect(w.recorded(c)).To(Equal("v2 upgrade_completed"))
	})
})
