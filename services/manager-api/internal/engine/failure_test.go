package engine_test

import (
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/lease"
	"github.com/openaperture/openaperture/pkg/times"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

var _ = Describe("A failing upgrade", func() {
	// failedIn ends the config or deploy milestone of a running upgrade.
	failedIn := func(w *world, u upgrade.ID, milestone string, with func(*messages.Result)) {
		GinkgoHelper()
		Expect(w.tell(result(w.claim(w.order(u, milestone), "exec-1"), with))).To(Equal(engine.AppliedDone))
	}

	It("that touched nothing has failed; the environment quarantines nothing", func() {
		w := newWorld()
		c := w.component(component.Builder)
		w.proven(c, 1)
		u := w.started(c)
		failedIn(w, u, "config", failed(messages.CauseEnvironment, "git_unreachable", false))
		Expect(w.state(u)).To(Equal(upgrade.Failed))
		Expect(w.recorded(c)).To(Equal("v1 upgrade_failed"))
		Expect(w.value(`SELECT upgrade_status->>'failure_reason' FROM system_components`)).
			To(Equal("it says git_unreachable"))
		Expect(w.value(`SELECT count(*) FROM quarantines`)).To(Equal("0"))
		Expect(w.events()).To(Equal([]string{"upgrade_failed error"}))
		Expect(w.outboxed()).To(HaveLen(3), "request, order, and the doorbell of the free slot")
		Expect(w.outboxed()[2]).To(Equal("overseer changed"))
		Expect(w.value(`SELECT workflow_completed::text || workflow_error || failure_reason
			FROM workflows`)).To(Equal("truetruegit_unreachable"))
	})

	It("R8 of a bad version is rolled back and quarantined, and the rollback is verified too", func() {
		w := newWorld()
		c := w.component(component.Builder)
		w.proven(c, 1)
		u := w.started(c)
		w.runConfig(u)
		failedIn(w, u, "deploy_oa", failed(messages.CauseVersion, "deploy_unhealthy", true))
		Expect(w.state(u)).To(Equal(upgrade.RollingBack))
		Expect(w.recorded(c)).To(Equal("v1 upgrade_in_progress"))
		Expect(w.value(`SELECT source_repo_git_ref || reason FROM quarantines`)).To(Equal("v2deploy_unhealthy"))
		Expect(w.value(`SELECT milestones::text || ' ' || source_repo_git_ref FROM workflows
			WHERE restoring`)).To(Equal(`["deploy_oa"] v1`))
		Expect(w.value(`SELECT string_agg(coalesce(body->>'replaced_known', '-'), ' ' ORDER BY created_at)
			FROM orders`)).To(Equal("- true true"))
		w.runDeploy(u, "deploy_oa")
		w.beat(component.Builder, "", "v1", "b1", "b2")
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
		Expect(w.state(u)).To(Equal(upgrade.RolledBack))
		Expect(w.recorded(c)).To(Equal("v1 upgrade_failed"))
		Expect(w.events()).To(Equal([]string{"upgrade_failed error", "upgrade_rolled_back warning"}))

		list, err := w.Quarantines(ctx(), w.exchange, "", 10)
		Expect(err).NotTo(HaveOccurred())
		Expect(w.ClearQuarantine(ctx(), list[0].ID, 0)).To(Succeed())
		Expect(w.ClearQuarantine(ctx(), list[0].ID, 0)).To(MatchError(ContainSubstring("there is no quarantine")))
	})

	It("stands in the audit journal in the order cause, then effect", func() {
		w := newWorld()
		c := w.component(component.Builder)
		w.exec(`UPDATE system_components SET source_repo_git_ref = 'v0'`)
		u := w.started(c)
		w.runConfig(u)
		before := w.lastSeq()
		failedIn(w, u, "deploy_oa", func(r *messages.Result) {
			deployed(r)
			failed(messages.CauseVersion, "deploy_unhealthy", true)(r)
		})
		Expect(w.state(u)).To(Equal(upgrade.RollingBack))
		Expect(w.auditedSince(before)).To(HaveExactElements("order_claimed", "deploy_unhealthy", "quarantined",
			"release_adopted"))
	})

	It("leaves a quarantine whose time is over out of the snapshot, though it is not removed yet", func() {
		w := newWorld()
		w.insert(`INSERT INTO quarantines (id, messaging_exchange_id, component_type, source_repo, source_repo_git_ref,
			reason, message, expires_at)
			VALUES (gen_random_uuid(), $1, 'builder', 'src', 'v2', 'old', 'of old', now() - interval '1 second'),
			(gen_random_uuid(), $1, 'builder', 'src', 'v3', 'new', 'of now', now() + interval '1 minute') RETURNING 1`,
			w.exchange)
		s, err := w.Snapshot(ctx(), w.exchange, false)
		Expect(err).NotTo(HaveOccurred())
		Expect(s.Quarantines).To(HaveExactElements(HaveField("SourceRepoGitRef", "v3")))
	})

	Describe("of a version that was in quarantine and is tried by force", func() {
		var w *world
		var c component.ID
		var u upgrade.ID
		BeforeEach(func() {
			w = newWorldWith(1, func(t *times.Times) { t.QuarantineExpiry = time.Hour })
			c = w.component(component.Builder)
			w.proven(c, 1)
			w.insert(`INSERT INTO quarantines (id, messaging_exchange_id, component_type, source_repo, source_repo_git_ref,
				reason, message, created_at, expires_at)
				VALUES (gen_random_uuid(), $1, 'builder', 'src', 'v2', 'old', 'of old', now() - interval '59 minutes',
				now() + interval '1 minute'),
				(gen_random_uuid(), $1, 'builder', 'src', 'v3', 'other', 'another', now(), NULL) RETURNING 1`, w.exchange)
			u = w.started(c)
			w.runConfig(u)
		})
		refused := func() string {
			GinkgoHelper()
			return w.value(`SELECT string_agg(concat_ws(' ', source_repo_git_ref, reason,
				expires_at > now() + interval '59 minutes', created_at > now() - interval '1 minute', upgrade_id), ', '
				ORDER BY source_repo_git_ref) FROM quarantines`)
		}

		It("begins that anew, for its own reason", func() {
			failedIn(w, u, "deploy_oa", failed(messages.CauseVersion, "deploy_unhealthy", true))
			Expect(refused()).To(Equal("v2 deploy_unhealthy t t " + string(u) + ", v3 other t"))
		})

		It("ends it where it does not fail, but is proven", func() {
			w.runDeploy(u, "deploy_oa")
			w.beat(component.Builder, "", "v2", "b1", "b2")
			Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
			Expect(refused()).To(Equal("v3 other t"))
			Expect(w.codes(fmt.Sprintf("exchange/%d", w.exchange))).To(ContainElement("quarantine_disproven"))
		})
	})

	It("D6 whose rollback fails too stops there", func() {
		w := newWorld()
		c := w.component(component.Builder)
		w.proven(c, 1)
		u := w.started(c)
		w.runConfig(u)
		failedIn(w, u, "deploy_oa", failed(messages.CauseVersion, "deploy_unhealthy", true))
		failedIn(w, u, "deploy_oa", failed(messages.CauseEnvironment, "restored_unhealthy", true))
		Expect(w.state(u)).To(Equal(upgrade.RollbackFailed))
		Expect(w.events()).To(Equal([]string{"upgrade_failed error", "upgrade_rollback_failed error"}))
		Expect(w.recorded(c)).To(Equal("v1 upgrade_failed"))
	})

	It("that cannot even begin its rollback ends as rollback_failed", func() {
		w := newWorld()
		c := w.component(component.Builder)
		w.proven(c, 1)
		u := w.started(c)
		w.runConfig(u)
		k := w.claim(w.order(u, "deploy_oa"), "exec-1")
		w.exec(`DELETE FROM etcd_clusters`)
		w.tell(result(k, failed(messages.CauseVersion, "deploy_unhealthy", true)))
		Expect(w.state(u)).To(Equal(upgrade.RollbackFailed))
		Expect(w.value(`SELECT failure_reason FROM workflows WHERE restoring`)).To(Equal("cluster_unknown"))
	})

	It("returns to what it replaced, even if nothing was proven before", func() {
		w := newWorld()
		c := w.component(component.Builder)
		u := w.started(c)
		w.runConfig(u)
		failedIn(w, u, "deploy_oa", func(r *messages.Result) {
			deployed(r)
			failed(messages.CauseVersion, "deploy_unhealthy", true)(r)
		})
		Expect(w.state(u)).To(Equal(upgrade.RollingBack))
		Expect(w.value(`SELECT adopted || source_repo_git_ref || instances || (units->0->>'name') FROM releases
			WHERE proven_at IS NOT NULL`)).To(Equal("truev12x@.service"))
	})

	It("keeps nothing to return to where the executor names no unit that it replaced, as one of a former release does",
		func() {
			w := newWorld()
			c := w.component(component.Builder)
			u := w.started(c)
			w.runConfig(u)
			failedIn(w, u, "deploy_oa", func(r *messages.Result) {
				failed(messages.CauseVersion, "deploy_unhealthy", true)(r)
				r.Replaced = []messages.Replaced{{Options: []messages.Option{{Section: "Service", Name: "ExecStart",
					Value: "/bin/x"}}}}
			})
			Expect(w.value(`SELECT count(*) FROM releases WHERE proven_at IS NOT NULL`)).To(Equal("0"))
			Expect(w.state(u)).To(Equal(upgrade.Failed))
		})

	It("returns to the version that was proven last, not to what that had replaced in the transaction of its proof",
		func() {
			w := newWorld()
			c := w.provenByUnits()
			back, err := w.RequestRollback(ctx(), engine.RollbackRequest{ComponentID: c})
			Expect(err).NotTo(HaveOccurred())
			Expect(back.To.SourceRepoGitRef).To(Equal("v1"))
			_, err = w.Cancel(ctx(), back.ID, 0)
			Expect(err).NotTo(HaveOccurred())

			next, j := w.request(c), w.judgement()
			j.Target.SourceRepoGitRef = "v3"
			Expect(w.Start(ctx(), next.ID, w.exchange, j)).To(Succeed())
			w.runConfig(next.ID)
			failedIn(w, next.ID, "deploy", failed(messages.CauseVersion, "deploy_unhealthy", true))
			Expect(w.value(`SELECT source_repo_git_ref FROM workflows WHERE restoring`)).To(Equal("v2"))
			w.runDeploy(next.ID, "deploy")
			Expect(w.state(next.ID)).To(Equal(upgrade.RolledBack))
			Expect(w.recorded(c)).To(Equal("v2 upgrade_failed"))
		})

	DescribeTable("whose executor touched nothing itself is rolled back if another one had the deploy before",
		func(milestone, next string, expires bool, want upgrade.State) {
			w := newWorld()
			c := w.component(component.Builder)
			w.proven(c, 1)
			u := w.started(c)
			if milestone != "config" {
				w.runConfig(u)
			}
			first := w.claim(w.order(u, milestone), "exec-1")
			if expires {
				w.exec(`UPDATE leases SET expires_at = now() - interval '1 second' WHERE name LIKE 'order/%'`)
				Expect(w.ExpireClaims(ctx(), []component.ExchangeID{w.exchange})).To(Succeed())
			} else {
				Expect(w.ReleaseClaim(ctx(), first.Order.OrderID, 0, first.Token)).To(Succeed())
			}
			k := w.claim(first.Order.OrderID, next)
			Expect(w.tell(result(k, failed(messages.CauseEnvironment, "runtime_unreachable", false)))).
				To(Equal(engine.AppliedDone))
			Expect(w.state(u)).To(Equal(want))
		},
		Entry("which went silent", "deploy_oa", "exec-2", true, upgrade.RollingBack),
		Entry("which gave it back", "deploy_oa", "exec-2", false, upgrade.RollingBack),
		Entry("but not if it was itself, which has its work file", "deploy_oa", "exec-1", true, upgrade.Failed),
		Entry("also where it gave it back, to restart", "deploy_oa", "exec-1", false, upgrade.Failed),
		Entry("nor if nothing was deployed yet", "config", "exec-2", true, upgrade.Failed),
	)

	It("R7 C9 whose workflow never ends fails at its deadline, by manager-api alone, and its renewals are superseded",
		func() {
			w := newWorld()
			c := w.component(component.Builder)
			w.proven(c, 1)
			u := w.started(c)
			w.runConfig(u)
			k := w.claim(w.order(u, "deploy_oa"), "exec-1")
			w.outOfTime(u)
			Expect(w.state(u)).To(Equal(upgrade.RollingBack))
			shown := w.shown(u)
			Expect([]any{shown.Cause, shown.Verdict.Code}).To(Equal([]any{upgrade.CauseEnvironment, "no_progress"}))
			_, err := w.Renew(ctx(), k.Order.OrderID, 0, k.Token)
			Expect(fault.CodeOf(err)).To(Equal(lease.CodeSuperseded))
			Expect(w.tell(result(k, deployed))).To(Equal(engine.AppliedIgnored))
			Expect(w.value(`SELECT count(*) FROM leases WHERE name LIKE 'order/%'`)).To(Equal("0"))
		})

	DescribeTable("of manager-api of which nothing is heard is judged by who runs",
		func(runs string, cause upgrade.Cause, reason string) {
			w := newWorld()
			c := w.component(component.Manager)
			w.proven(c, 1)
			u := w.started(c)
			w.runConfig(u)
			w.claim(w.order(u, "deploy_oa"), "exec-1")
			w.runs(runs)
			w.outOfTime(u)
			shown := w.shown(u)
			Expect([]any{shown.State, shown.Cause, shown.Verdict.Code}).To(Equal([]any{upgrade.RollingBack, cause, reason}))
		},
		Entry("the old one blames the executor", "v1", upgrade.CauseEnvironment, "no_progress"),
		Entry("the new one, which was started and did not hear of it, itself", "v2", upgrade.CauseVersion, "not_heard"),
	)

	DescribeTable("of manager-api whose executor claims the deploy again and again is judged by who runs",
		func(runs string, cause upgrade.Cause, reason string) {
			w := newWorld()
			c := w.component(component.Manager)
			w.proven(c, 1)
			u := w.started(c)
			w.runConfig(u)
			w.runs(runs)
			order := w.order(u, "deploy_oa")
			for range w.times.OrderAttempts {
				w.claim(order, "exec-1")
				w.exec(`UPDATE leases SET expires_at = now() - interval '1 second' WHERE name LIKE 'order/%'`)
				Expect(w.ExpireClaims(ctx(), []component.ExchangeID{w.exchange})).To(Succeed())
			}
			shown := w.shown(u)
			Expect([]any{shown.State, shown.Cause, shown.Verdict.Code}).To(Equal([]any{upgrade.RollingBack, cause, reason}))
			quarantined := map[upgrade.Cause]string{upgrade.CauseVersion: "1", upgrade.CauseEnvironment: "0"}[cause]
			Expect(w.value(`SELECT count(*) FROM quarantines`)).To(Equal(quarantined))
		},
		Entry("the old one blames the executor", "v1", upgrade.CauseEnvironment, "executor_lost"),
		Entry("the new one, which hears no result, itself", "v2", upgrade.CauseVersion, "not_heard"),
	)

	It("D5 that is not proven in time blames the version, with what was missing", func() {
		w := newWorld()
		c := w.component(component.Builder)
		w.proven(c, 1)
		u := w.verifying(c)
		w.beat(component.Builder, "", "v2", "b1")
		w.outOfTime(u)
		shown := w.shown(u)
		Expect([]any{shown.State, shown.Cause, shown.Verdict.Code}).
			To(Equal([]any{upgrade.RollingBack, upgrade.CauseVersion, "not_proven"}))
		Expect(shown.Verdict.Message).To(ContainSubstring("only 1 of 2"))
		Expect(w.value(`SELECT reason FROM quarantines`)).To(Equal("not_proven"))
	})

	It("whose order nobody claimed says so and touched nothing", func() {
		w := newWorld()
		c := w.component(component.Builder)
		w.proven(c, 1)
		u := w.started(c)
		w.outOfTime(u)
		Expect(w.state(u)).To(Equal(upgrade.Failed))
		Expect(w.value(`SELECT verdict_code FROM upgrades`)).To(Equal("order_unclaimed"))
	})

	It("stands still without a judge, and is abandoned in the end", func() {
		w := newWorld()
		c := w.component(component.Builder)
		w.proven(c, 1)
		u := w.verifying(c)
		Expect(w.Resign(ctx(), w.exchange, w.term)).To(Succeed())
		w.outOfTime(u)
		Expect(w.state(u)).To(Equal(upgrade.Verifying))
		w.exec(`UPDATE upgrades SET clock_stalled = 72 * 3600 * 1000, clock_ticked_at = now() - interval '1 second'`)
		Expect(w.TickUpgrades(ctx(), []component.ExchangeID{w.exchange})).To(Succeed())
		Expect(w.state(u)).To(Equal(upgrade.Failed))
		Expect(w.value(`SELECT cause || verdict_code FROM upgrades`)).To(Equal("environmentabandoned"))
	})

	It("stands still while its broker is not heard, and after an absence of manager-api", func() {
		w := newWorld()
		u := w.started(w.component(component.Builder))
		w.exec(`UPDATE upgrades SET clock_left = 1, clock_ticked_at = now() - interval '4 seconds'`)
		Expect(w.TickUpgrades(ctx(), nil)).To(Succeed())
		w.exec(`UPDATE upgrades SET clock_ticked_at = now() - interval '1 hour', clock_left = 5000`)
		w.exec(`UPDATE ticks SET ticked_at = now() - interval '1 hour'`)
		Expect(w.RecordPresence(ctx())).To(BeTrue())
		Expect(w.TickUpgrades(ctx(), []component.ExchangeID{w.exchange})).To(Succeed())
		Expect(w.state(u)).To(Equal(upgrade.InProgress))
		Expect(w.value(`SELECT (clock_left > 4000)::text FROM upgrades`)).To(Equal("true"))
	})

	It("of type overseer does not wait for a judge: the missing leader is the failure", func() {
		w := newWorld()
		c := w.component(component.Overseer)
		w.proven(c, 1)
		u := w.verifying(c)
		Expect(w.Resign(ctx(), w.exchange, w.term)).To(Succeed())
		w.outOfTime(u)
		Expect(w.value(`SELECT state || cause FROM upgrades`)).To(Equal("rolling_backversion"))
		Expect(w.state(u)).To(Equal(upgrade.RollingBack))
	})

	It("is undone by its executor while it waits for its proof, and only then", func() {
		w := newWorld()
		c := w.component(component.Manager)
		w.proven(c, 1)
		u := w.started(c)
		w.runConfig(u)
		k := w.runDeploy(u, "deploy_oa")
		view, _, err := w.OrderView(ctx(), k.Order.OrderID)
		Expect(err).NotTo(HaveOccurred())
		Expect([]any{view.State, view.Settled}).To(Equal([]any{"completed", false}))
		undone := result(k, func(r *messages.Result) {
			failed(messages.CauseVersion, "not_settled", true)(r)
			r.Undone = true
		})
		Expect(w.tell(undone)).To(Equal(engine.AppliedDone))
		Expect(w.state(u)).To(Equal(upgrade.RollingBack))
		Expect(w.tell(undone)).To(Equal(engine.AppliedIgnored))
		view, _, err = w.OrderView(ctx(), k.Order.OrderID)
		Expect(err).NotTo(HaveOccurred())
		Expect(view.Settled).To(BeTrue())
	})

	DescribeTable("is undone by its executor although nobody has learned of the deploy",
		func(cause messages.Cause, reason string, expired bool, quarantined string) {
			w := newWorld()
			c := w.component(component.Manager)
			w.proven(c, 1)
			u := w.started(c)
			w.runConfig(u)
			deploy := w.order(u, "deploy_oa")
			k := w.claim(deploy, "exec-1")
			if expired {
				w.exec(`UPDATE leases SET expires_at = now() - interval '1 second' WHERE name LIKE 'order/%'`)
				Expect(w.ExpireClaims(ctx(), []component.ExchangeID{w.exchange})).To(Succeed())
			}
			undone := result(k, func(r *messages.Result) {
				failed(cause, reason, true)(r)
				r.Undone, r.Restored = true, true
			})
			Expect(w.tell(undone)).To(Equal(engine.AppliedDone))
			Expect(w.value(`SELECT state FROM orders WHERE id = $1`, deploy)).To(Equal("failed"), "nobody deploys it again")
			Expect(w.value(`SELECT failure_cause || ' ' || failure_reason FROM workflows
				WHERE NOT restoring`)).To(Equal(string(cause) + " " + reason))
			Expect(w.value(`SELECT coalesce(string_agg(reason, ','), '') FROM quarantines`)).To(Equal(quarantined))
			Expect(w.state(u)).To(Equal(upgrade.RollingBack))
			Expect(w.value(`SELECT source_repo_git_ref FROM workflows WHERE restoring`)).To(Equal("v1"))
			Expect(w.tell(undone)).To(Equal(engine.AppliedIgnored))
		},
		Entry("while it holds the claim", messages.CauseVersion, "not_settled", false, "not_settled"),
		Entry("while the order waits for its next attempt", messages.CauseVersion, "not_settled", true, "not_settled"),
		Entry("and nobody can tell whose fault it was", messages.CauseEnvironment, "manager_silent", true, ""),
	)

	It("is not undone by an executor whose order another has taken over", func() {
		w := newWorld()
		c := w.component(component.Manager)
		w.proven(c, 1)
		u := w.started(c)
		w.runConfig(u)
		deploy := w.order(u, "deploy_oa")
		k := w.claim(deploy, "exec-1")
		w.exec(`UPDATE leases SET expires_at = now() - interval '1 second' WHERE name LIKE 'order/%'`)
		Expect(w.ExpireClaims(ctx(), []component.ExchangeID{w.exchange})).To(Succeed())
		w.claim(deploy, "exec-2")
		Expect(w.tell(result(k, func(r *messages.Result) {
			failed(messages.CauseVersion, "not_settled", true)(r)
			r.Undone = true
		}))).To(Equal(engine.AppliedSuperseded))
		Expect(w.state(u)).To(Equal(upgrade.InProgress))
	})

	It("canceled by an operator is a failure with that cause, rolled back if an executor may have touched something",
		func() {
			w := newWorld()
			c := w.component(component.Builder)
			w.proven(c, 1)
			u := w.started(c)
			w.runConfig(u)
			w.claim(w.order(u, "deploy_oa"), "exec-1")
			shown, err := w.Cancel(db.WithActor(ctx(), db.Actor{Name: "bob"}), u, 0)
			Expect(err).NotTo(HaveOccurred())
			Expect([]any{shown.State, shown.Cause, shown.Verdict.Message}).
				To(Equal([]any{upgrade.RollingBack, upgrade.CauseOperator, "canceled by an operator"}))
			Expect(w.value(`SELECT count(*) FROM quarantines`)).To(Equal("0"))
			Expect(w.value(`SELECT actor FROM journal WHERE code = 'canceled'`)).To(Equal("bob"))
		})

	It("a cluster of another exchange fails the workflow before anything is touched", func() {
		w := newWorld()
		u := w.started(w.component(component.Builder))
		w.exec(`UPDATE etcd_clusters SET messaging_exchange_id = NULL`)
		w.runConfig(u)
		Expect(w.value(`SELECT state || verdict_code FROM upgrades`)).To(Equal("failedcluster_not_here"))
		Expect(w.value(`SELECT verdict_message FROM upgrades`)).
			To(Equal(`the cluster "TOK" belongs to no exchange, not to exchange 1: ` +
				"correct etcd.json in the deployment repository, or messaging_exchange_id by PUT /clusters/TOK"))
		Expect(w.state(u)).To(Equal(upgrade.Failed))
	})

	It("whose config produces nothing says what is missing", func() {
		w := newWorld()
		u := w.started(w.component(component.Builder))
		w.tell(result(w.claim(w.order(u, "config"), "exec-1"), func(r *messages.Result) { r.EtcdToken = "TOK" }))
		Expect(w.value(`SELECT verdict_code || ': ' || verdict_message FROM upgrades`)).To(Equal(
			"no_units: config found no unit in the deployment repository: add a .service file to its root"))
	})
})
