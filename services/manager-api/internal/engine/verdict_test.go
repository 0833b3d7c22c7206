package engine_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/times"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

var _ = Describe("A proof that nobody judged", func() {
	It("is not held against the version: what proves itself is not quarantined", func() {
		w := newWorld()
		c := w.component(component.Builder)
		w.proven(c, 1)
		u := w.verifying(c)
		w.beat(component.Builder, "", "v2", "b1", "b2")
		w.outOfTime(u)
		shown := w.shown(u)
		Expect([]any{shown.State, shown.Cause, shown.Verdict.Code}).
			To(Equal([]any{upgrade.RollingBack, upgrade.CauseEnvironment, "not_judged"}))
		Expect(w.value(`SELECT count(*) FROM quarantines`)).To(Equal("0"))
	})

	It("is held against an overseer, whose work it is", func() {
		w := newWorld()
		c := w.component(component.Overseer)
		w.proven(c, 1)
		u := w.verifying(c)
		w.beat(component.Overseer, "overseer", "v2", "o1", "overseer-1")
		w.outOfTime(u)
		Expect(w.value(`SELECT state || cause || verdict_code FROM upgrades`)).To(Equal("rolling_backversionnot_judged"))
	})
})

var _ = Describe("A version that is deployed again and does not prove itself", func() {
	// again starts an upgrade from v1 to a version, of which config finds the commit abc123.
	again := func(w *world, c component.ID, to string) upgrade.ID {
		GinkgoHelper()
		u, j := w.forced(c), w.judgement()
		j.Target.SourceRepoGitRef = to
		Expect(w.Start(ctx(), u.ID, w.exchange, j)).To(Succeed())
		w.runConfig(u.ID)
		return u.ID
	}
	provenAt := func(commit string) func(*world, component.ID) {
		return func(w *world, c component.ID) {
			w.proven(c, 1)
			w.exec(`UPDATE releases SET source_commit_hash = $1`, commit)
		}
	}
	deployedFrom := func(commit string) func(*world, component.ID) {
		return func(w *world, c component.ID) {
			provenAt("abc123")(w, c)
			w.exec(`UPDATE releases SET deployment_commit_hash = $1`, commit)
		}
	}
	stated := func(*world, component.ID) {}

	DescribeTable("is not quarantined: it was proven here before",
		func(t component.Type, before func(*world, component.ID), to string, cause upgrade.Cause, quarantined string) {
			w := newWorld()
			c := w.component(t)
			before(w, c)
			u := again(w, c, to)
			w.runDeploy(u, "deploy_oa")
			w.outOfTime(u)
			shown := w.shown(u)
			Expect([]any{shown.State, shown.Cause, shown.Verdict.Code}).
				To(Equal([]any{upgrade.RollingBack, cause, "not_proven"}))
			Expect(w.value(`SELECT string_agg(source_repo_git_ref, '') FROM quarantines`)).To(Equal(quarantined))
		},
		Entry("at the same commit", component.Builder, provenAt("abc123"), "v1", upgrade.CauseEnvironment, ""),
		Entry("at a commit that was not stated", component.Builder, provenAt(""), "v1", upgrade.CauseEnvironment, ""),
		Entry("but at another commit it is: its branch has moved on", component.Builder, provenAt("older"), "v1",
			upgrade.CauseVersion, "v1"),
		Entry("at the same commit of the deployment repository", component.Builder, deployedFrom("def456"), "v1",
			upgrade.CauseEnvironment, ""),
		Entry("but at another commit of the deployment repository it is (fault 20)", component.Builder, deployedFrom("older"),
			"v1", upgrade.CauseVersion, "v1"),
		Entry("and where it was only stated to run, whatever this upgrade has found", component.Builder, stated, "v1",
			upgrade.CauseVersion, "v1"),
		Entry("and another version", component.Builder, provenAt("abc123"), "v2", upgrade.CauseVersion, "v2"),
		Entry("and an overseer, which nobody would judge at the next try either", component.Overseer, provenAt("abc123"),
			"v1", upgrade.CauseVersion, "v1"),
	)

	DescribeTable("is not blamed by its executor's word either",
		func(commit string, completes, undone bool, cause upgrade.Cause) {
			w := newWorld()
			c := w.component(component.Manager)
			provenAt(commit)(w, c)
			u := again(w, c, "v1")
			k := w.claim(w.order(u, "deploy_oa"), "exec-1")
			if completes {
				w.tell(result(k, deployed))
			}
			Expect(w.tell(result(k, func(r *messages.Result) {
				failed(messages.CauseVersion, "why", true)(r)
				r.Undone = undone
			}))).To(Equal(engine.AppliedDone))
			shown := w.shown(u)
			Expect([]any{shown.State, shown.Cause, shown.Verdict.Code}).To(Equal([]any{upgrade.RollingBack, cause, "why"}))
			if cause == upgrade.CauseEnvironment {
				Expect(w.value(`SELECT count(*) FROM quarantines`)).To(Equal("0"))
				Expect(shown.Verdict.Message).To(HavePrefix("it says why (this version was proven here before"))
				return
			}
			Expect(shown.Verdict.Message).To(Equal("it says why, then set another ref"))
		},
		Entry("that it did not get healthy", "abc123", false, false, upgrade.CauseEnvironment),
		Entry("that it was undone, of which nothing had been heard", "abc123", false, true, upgrade.CauseEnvironment),
		Entry("that it was undone while it waited for its proof", "abc123", true, true, upgrade.CauseEnvironment),
		Entry("but is at another commit", "older", false, false, upgrade.CauseVersion),
		Entry("and there where it was undone", "older", true, true, upgrade.CauseVersion),
	)

	It("nor is a manager-api of which nothing is heard: it says nothing that the one before it runs as well", func() {
		w := newWorld()
		c := w.component(component.Manager)
		w.proven(c, 1)
		u, j := w.forced(c), w.judgement()
		j.Target.SourceRepoGitRef = "v1"
		Expect(w.Start(ctx(), u.ID, w.exchange, j)).To(Succeed())
		w.runConfig(u.ID)
		w.claim(w.order(u.ID, "deploy_oa"), "exec-1")
		w.outOfTime(u.ID)
		Expect(w.shown(u.ID).Verdict.Code).To(Equal("no_progress"))
	})
})

var _ = Describe("The order of a deploy that waits for its proof", func() {
	watched := func(w *world, k managerapi.Claim) bool {
		GinkgoHelper()
		view, _, err := w.OrderView(ctx(), k.Order.OrderID)
		Expect(err).NotTo(HaveOccurred())
		Expect([]any{view.State, view.Settled}).To(Equal([]any{"completed", false}))
		return view.Watched
	}

	It("is watched over while its clock is kept, also when it stands still without a judge", func() {
		w := newWorld()
		c := w.component(component.Manager)
		w.proven(c, 1)
		u := w.started(c)
		w.runConfig(u)
		k := w.runDeploy(u, "deploy_oa")
		Expect(watched(w, k)).To(BeTrue())
		w.exec(`UPDATE upgrades SET clock_ticked_at = now() - interval '1 minute'`)
		Expect(watched(w, k)).To(BeFalse(), "nobody ticks")
		w.exec(`UPDATE upgrades SET clock_ticked_at = now(), clock_stalled = 1`)
		Expect(watched(w, k)).To(BeFalse(), "there is a judge, so it is manager-api that does not hear")
		Expect(w.Resign(ctx(), w.exchange, w.term)).To(Succeed())
		Expect(watched(w, k)).To(BeTrue())
	})

	// The view reads the facts of upgrade.Work: this table holds them together.
	DescribeTable("is shown as the rule of pkg/upgrade says",
		func(state upgrade.State, phase int, step upgrade.Step, restoring, judge bool, stalled int, ago time.Duration) {
			w := newWorld()
			c := w.component(component.Manager)
			w.proven(c, 1)
			u := w.started(c)
			w.runConfig(u)
			k := w.runDeploy(u, "deploy_oa")
			w.exec(`UPDATE upgrades SET state = $1, phase = $2, step = $3, clock_stalled = $4,
				clock_ticked_at = now() - $5 * interval '1 millisecond'`, string(state), phase, string(step), stalled,
				ago.Milliseconds())
			w.exec(`UPDATE workflows SET restoring = $1, phase = 2`, restoring)
			if !judge { // the leader is there, and has not covered for longer than live_within
				w.exec(`UPDATE coverage SET covered_until = now() - $1 * interval '1 millisecond'`,
					(w.times.LiveWithin + time.Second).Milliseconds())
			}
			now := time.Now()
			work := upgrade.Work{Ended: true, Phase: 2, Restoring: restoring, HasUpgrade: true, State: state, At: phase,
				Step: step, Judge: judge, Clock: upgrade.Clock{TickedAt: now.Add(-ago), Stalled: time.Duration(stalled)}}
			view, _, err := w.OrderView(ctx(), k.Order.OrderID)
			Expect(err).NotTo(HaveOccurred())
			Expect([]bool{view.Settled, view.Watched}).
				To(Equal([]bool{work.Settled(), work.Watched(now, 3*w.times.TickGap)}))
		},
		Entry("verified", upgrade.Verifying, 2, upgrade.StepVerify, false, true, 0, time.Second),
		Entry("verified, the clock not moved for long", upgrade.Verifying, 2, upgrade.StepVerify, false, true, 0,
			time.Minute),
		Entry("verified, the clock still with a judge", upgrade.Verifying, 2, upgrade.StepVerify, false, true, 1,
			time.Second),
		Entry("verified, the clock still without a judge", upgrade.Verifying, 2, upgrade.StepVerify, false, false, 1,
			time.Second),
		Entry("the next phase", upgrade.InProgress, 3, upgrade.StepDeploy, false, true, 0, time.Second),
		Entry("rolled back", upgrade.RollingBack, 2, upgrade.StepDeploy, false, true, 0, time.Second),
		Entry("restored", upgrade.RollingBack, 2, upgrade.StepVerify, true, true, 0, time.Second),
		Entry("restored, and the one before is restored", upgrade.RollingBack, 1, upgrade.StepVerify, true, true, 0,
			time.Second),
		Entry("ended", upgrade.Completed, 2, upgrade.StepNone, false, true, 0, time.Second),
	)
})

var _ = Describe("A deploy of manager-api that did not get healthy", func() {
	DescribeTable("is not held against the version if the database was restarted meanwhile", func(began, want string) {
		w := newWorld()
		c := w.component(component.Manager)
		w.proven(c, 1)
		u := w.started(c)
		w.runConfig(u)
		k := w.claim(w.order(u, "deploy_oa"), "exec-1")
		w.exec(`UPDATE orders SET created_at = pg_postmaster_start_time() + interval '1 minute' * $1::int`, began)
		w.tell(result(k, failed(messages.CauseVersion, "deploy_unhealthy", true)))
		Expect(w.value(`SELECT state || ' ' || cause || ' ' || verdict_code || ' ' || (SELECT count(*) FROM quarantines)
			FROM upgrades`)).To(Equal(want))
	},
		Entry("it was", "-1", "rolling_back environment database_restarted 0"),
		Entry("it was not", "1", "rolling_back version deploy_unhealthy 1"),
	)
})

var _ = Describe("An upgrade that ends while its deploy is being claimed", func() {
	DescribeTable("is undone: the executor may have touched something", func(end func(*world, upgrade.ID) error) {
		w := newWorldWith(4, func(*times.Times) {})
		c := w.component(component.Builder)
		w.proven(c, 1)
		u := w.started(c)
		w.runConfig(u)
		claim, err := w.db.Beginx()
		Expect(err).NotTo(HaveOccurred())
		defer func() { _ = claim.Rollback() }()
		_, err = claim.Exec(`UPDATE orders SET state = 'claimed', token = nextval('lease_tokens') WHERE id = $1`,
			w.order(u, "deploy_oa"))
		Expect(err).NotTo(HaveOccurred())
		ended := make(chan error, 1)
		go func() { ended <- end(w, u) }()
		Eventually(func() string {
			return w.value(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
				AND wait_event_type = 'Lock'`)
		}).Should(Equal("1"))
		Expect(claim.Commit()).To(Succeed())
		Eventually(ended).Should(Receive(BeNil()))
		Expect(w.state(u)).To(Equal(upgrade.RollingBack))
	},
		Entry("by a cancel", func(w *world, u upgrade.ID) error { _, err := w.Cancel(ctx(), u, 0); return err }),
		Entry("by its deadline", func(w *world, u upgrade.ID) error {
			_, err := w.db.Exec(`UPDATE upgrades SET clock_left = 1, clock_ticked_at = now() - interval '1 second'
				WHERE id = $1`, string(u))
			if err != nil {
				return err
			}
			return w.TickUpgrades(ctx(), []component.ExchangeID{w.exchange})
		}),
	)
})

var _ = Describe("The first upgrade of a deployer pair whose second phase cannot even be rendered", func() {
	It("returns the first to what it replaced", func() {
		w := newWorld()
		u := w.verifying(w.component(component.Deployer))
		w.tell(result(w.claim(w.order(u, "probe"), "d1"), completed))
		w.beat(component.Deployer, "deployer", "v2", "d1", "d2")
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
		w.tell(result(w.claim(w.order(u, "config"), "d1"), failed(messages.CauseEnvironment, "git_unreachable", false)))
		Expect(w.value(`SELECT state || ' ' || phase || ' ' || cause FROM upgrades`)).To(Equal("rolling_back 1 environment"))
		w.runDeploy(u, "deploy_oa")
		w.tell(result(w.claim(w.order(u, "probe"), "d1"), completed))
		w.beat(component.Deployer, "deployer", "v1", "d1", "d2")
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
		Expect(w.state(u)).To(Equal(upgrade.RolledBack))
	})
})

var _ = Describe("What a second attempt finds", func() {
	It("is not taken for what ran before, where the first attempt had put it", func() {
		w := newWorld()
		u := w.started(w.component(component.Builder))
		w.runConfig(u)
		w.tell(result(w.claim(w.order(u, "deploy_oa"), "exec-2"), func(r *messages.Result) {
			var c messages.Result
			configured(&c)
			failed(messages.CauseVersion, "deploy_unhealthy", true)(r)
			r.Replaced = messages.Distinct([]messages.UnitDefinition{{Name: "x@1.service",
				Options: c.DeployableUnits[0].Options},
				{Name: "x@2.service", Options: []messages.Option{{Section: "Service", Name: "ExecStart", Value: "/bin/old"}}}})
		}))
		Expect(w.value(`SELECT instances || (units->0->'options'->0->>'value') FROM releases
			WHERE adopted`)).To(Equal("2/bin/old"))
		Expect(w.value(`SELECT string_agg(coalesce(body->>'replaced_known', '-'), ' ' ORDER BY created_at)
			FROM orders`)).To(Equal("- - true"))
	})

	It("is not taken for it by another executor that finds nothing else", func() {
		w := newWorld()
		u := w.started(w.component(component.Builder))
		w.runConfig(u)
		order := w.order(u, "deploy_oa")
		gone := w.claim(order, "exec-1")
		Expect(w.ReleaseClaim(ctx(), order, w.exchange, gone.Token)).To(Succeed())
		w.tell(result(w.claim(order, "exec-2"), func(r *messages.Result) {
			var c messages.Result
			configured(&c)
			failed(messages.CauseVersion, "deploy_unhealthy", true)(r)
			r.Replaced = messages.Distinct([]messages.UnitDefinition{{Name: "x@1.service",
				Options: c.DeployableUnits[0].Options}})
		}))
		Expect(w.value(`SELECT count(*) FROM releases WHERE adopted`)).To(Equal("0"))
		Expect(w.state(u)).To(Equal(upgrade.Failed))
	})
})

var _ = Describe("A request while its component is being moved", func() {
	It("is made where the component is then", func() {
		w := newWorldWith(4, func(*times.Times) {})
		c := w.component(component.Builder)
		there := w.insert(`INSERT INTO messaging_exchanges (name, routing_key_fragment, routing_key, root_exchange_name)
			VALUES ('there', 'there', 'there', 'there') RETURNING id`)
		move, err := w.db.Beginx()
		Expect(err).NotTo(HaveOccurred())
		defer func() { _ = move.Rollback() }()
		_, err = move.Exec(`SELECT 1 FROM system_components WHERE id = $1 FOR UPDATE`, c)
		Expect(err).NotTo(HaveOccurred())
		_, err = move.Exec(`UPDATE system_components SET messaging_exchange_id = $2 WHERE id = $1`, c, there)
		Expect(err).NotTo(HaveOccurred())
		made := make(chan managerapi.Upgrade, 1)
		go func() { defer GinkgoRecover(); made <- w.request(c) }()
		Eventually(func() string {
			return w.value(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
				AND wait_event_type = 'Lock'`)
		}).Should(Equal("1"))
		Expect(move.Commit()).To(Succeed())
		var u managerapi.Upgrade
		Eventually(made).Should(Receive(&u))
		Expect(u.ExchangeID).To(Equal(component.ExchangeID(there)))
	})
})

var _ = Describe("A forced request while an operator's rollback waits", func() {
	It("does not turn it into an upgrade", func() {
		w := newWorld()
		c := w.component(component.Builder)
		r := w.proven(c, 1)
		back, err := w.RequestRollback(ctx(), engine.RollbackRequest{ComponentID: c, ReleaseID: r.ID, RequestedBy: "bob"})
		Expect(err).NotTo(HaveOccurred())
		again, created, err := w.RequestUpgrade(ctx(), managerapi.UpgradeRequest{ComponentID: c, RequestedBy: "alice",
			Force: true})
		Expect(err).NotTo(HaveOccurred())
		Expect([]any{again.ID, created, again.Trigger, again.RequestedBy}).
			To(Equal([]any{back.ID, false, upgrade.TriggerRollback, "bob"}))
	})
})

var _ = Describe("A rollback of the deployer pair without a release for its second phase", func() {
	It("is refused at the request, instead of being stuck between the phases", func() {
		w := newWorld()
		c := w.component(component.Deployer)
		first := w.proven(c, 1)
		_, err := w.RequestRollback(ctx(), engine.RollbackRequest{ComponentID: c, ReleaseID: first.ID})
		Expect(fault.CodeOf(err)).To(Equal(engine.CodeNoRelease))
		Expect(err).To(MatchError(ContainSubstring("phase 2 has no proven release")))
		Expect(w.value(`SELECT count(*) FROM upgrades`)).To(Equal("0"))
		w.proven(c, 2)
		_, err = w.RequestRollback(ctx(), engine.RollbackRequest{ComponentID: c, ReleaseID: first.ID})
		Expect(err).NotTo(HaveOccurred())
	})
})

var _ = Describe("A verdict", func() {
	DescribeTable("is one sentence; the failing instance's log is kept with the decision and with the workflow",
		func(message, log string) {
			w := newWorld()
			c := w.component(component.Builder)
			w.proven(c, 1)
			u := w.started(c)
			w.runConfig(u)
			w.tell(result(w.claim(w.order(u, "deploy_oa"), "exec-1"), func(r *messages.Result) {
				failed(messages.CauseVersion, "deploy_unhealthy", true)(r)
				r.Message, r.Log = message, log
			}))
			shown := w.shown(u)
			Expect(shown.Verdict.Message).To(Equal("b@1 did not get healthy: look at its log, then set another ref"))
			Expect(w.value(`SELECT message FROM quarantines`)).To(Equal(shown.Verdict.Message))
			Expect(w.value(`SELECT upgrade_status->>'failure_reason' FROM system_components`)).To(Equal(shown.Verdict.Message))
			Expect(w.value(`SELECT inputs->'inputs'->>'log' FROM journal WHERE subject = $1
				AND code = 'deploy_unhealthy'`, upgradeSubject(u))).To(Equal("starting\npanic: no luck"))
			Expect(w.value(`SELECT event_log->>-2 FROM workflows WHERE NOT restoring`)).
				To(HaveSuffix("b@1 did not get healthy: look at its log, then set another ref"))
			Expect(w.value(`SELECT event_log->>-1 FROM workflows WHERE NOT restoring`)).
				To(HaveSuffix("\nstarting\npanic: no luck"))
		},
		Entry("in a field of its own", "b@1 did not get healthy: look at its log", "starting\npanic: no luck"),
		Entry("behind the message, from an executor of the former release",
			"b@1 did not get healthy: look at its log\nstarting\npanic: no luck", ""),
	)
})
