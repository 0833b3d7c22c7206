package blame_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/blame"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

const (
	version     = upgrade.CauseVersion
	environment = upgrade.CauseEnvironment
	operator    = upgrade.CauseOperator
)

// unhealthy is an instance that missed its deadline of a minute, where another definition is back.
func unhealthy(change func(*blame.Facts)) blame.Facts {
	f := blame.Facts{Failure: blame.Unhealthy, Unit: "a@1.service", Limit: time.Minute, Before: blame.Another, Back: true}
	change(&f)
	return f
}

// undone is a deploy of manager-api that was taken back after ten minutes.
func undone(change func(*blame.Facts)) blame.Facts {
	f := blame.Facts{Failure: blame.Undone, Type: component.Manager, Limit: 10 * time.Minute, Back: true}
	change(&f)
	return f
}

// reported is what an executor has told about the upgrade of a builder.
func reported(cause upgrade.Cause, change func(*blame.Facts)) blame.Facts {
	f := blame.Facts{Failure: blame.Reported, Type: component.Builder, Cause: cause, Reason: blame.DeployUnhealthy,
		Told: "it says no", Upgrade: true}
	change(&f)
	return f
}

// unproven is a proof of a builder that did not come.
func unproven(change func(*blame.Facts)) blame.Facts {
	f := blame.Facts{Failure: blame.Unproven, Type: component.Builder, Upgrade: true, Proof: "only 1 of 2 beats",
		Touch: blame.Touch{Claimed: true}}
	change(&f)
	return f
}

// silent is an upgrade of manager-api of which nothing is heard.
func silent(change func(*blame.Facts)) blame.Facts {
	f := blame.Facts{Failure: blame.Silent, Type: component.Manager, Upgrade: true, Limit: 10 * time.Minute,
		Touch: blame.Touch{Claimed: true}}
	change(&f)
	return f
}

func asItIs(*blame.Facts) {}

// again has the recorded version deployed, which was proven before.
func again(f *blame.Facts) { f.Recorded, f.ProvenBefore = true, true }

var _ = Describe("Blame", func() {
	DescribeTable("finds cause and reason, and tells them in one sentence",
		func(cause upgrade.Cause, reason blame.Reason, advice string, f blame.Facts) {
			v := blame.Judge(f)
			Expect([]any{v.Cause, v.Reason}).To(Equal([]any{cause, reason}))
			Expect(v.Quarantine).To(Equal(cause == version))
			Expect(blame.Advice(v.Reason, v.Cause, f)).To(Equal(advice))
		},
		// an instance
		Entry("what ran before does: the version", version, blame.DeployUnhealthy,
			"a@1.service did not get healthy within 1m0s and what ran before is back: look at its log", unhealthy(asItIs)),
		Entry("nothing had run before: the version", version, blame.DeployUnhealthy,
			"a@1.service did not get healthy within 1m0s and nothing had run there before: look at its log",
			unhealthy(func(f *blame.Facts) { f.Before = blame.Nothing })),
		Entry("what ran before does not either: the environment", environment, blame.RestoredUnhealthy,
			"a@1.service did not get healthy within 1m0s, nor did what ran before: look at its host, broker and database",
			unhealthy(func(f *blame.Facts) { f.Back = false })),
		Entry("nothing had run before, and what was begun does not go away: the environment", environment,
			blame.RestoredUnhealthy,
			"a@1.service did not get healthy within 1m0s, nor did what ran before: look at its host, broker and database",
			unhealthy(func(f *blame.Facts) { f.Before, f.Back = blame.Nothing, false })),
		Entry("the definition ran here before: the environment", environment, blame.StillUnhealthy,
			"a@1.service did not get healthy within 1m0s, and this definition ran here before: "+
				"look at its log, host, broker and database",
			unhealthy(func(f *blame.Facts) { f.Before = blame.Same })),
		Entry("no machine takes it: the environment", environment, blame.Unplaced,
			"a@1.service demands role=x: change its demands in the deployment repository, or the machines; "+
				"the version is tried again",
			unhealthy(func(f *blame.Facts) { f.Unplaced = "a@1.service demands role=x" })),
		Entry("no machine takes it, nor what ran before", environment, blame.Unplaced,
			"a@1.service demands role=x: change its demands in the deployment repository, or the machines; "+
				"the version is tried again",
			unhealthy(func(f *blame.Facts) { f.Unplaced, f.Back = "a@1.service demands role=x", false })),
		Entry("the broker was away: the environment", environment, blame.Disturbed,
			"a@1.service did not get healthy within 1m0s, but the broker was away meanwhile: "+
				"see that it is back; the version is tried again",
			unhealthy(func(f *blame.Facts) { f.Away = "the broker" })),
		Entry("the broker was away, of a first install too", environment, blame.Disturbed,
			"a@1.service did not get healthy within 1m0s, but the broker was away meanwhile: "+
				"see that it is back; the version is tried again",
			unhealthy(func(f *blame.Facts) { f.Before, f.Away = blame.Nothing, "the broker" })),
		Entry("the broker was away, and what ran before is not healthy either", environment, blame.RestoredUnhealthy,
			"a@1.service did not get healthy within 1m0s, nor did what ran before: look at its host, broker and database",
			unhealthy(func(f *blame.Facts) { f.Back, f.Away = false, "the broker" })),
		Entry("the order's deadline: the environment", environment, blame.NoProgress,
			"the order's deadline passed at a@1.service: look whether its host is overloaded",
			unhealthy(func(f *blame.Facts) { f.Failure = blame.Expired })),
		// an undo
		Entry("manager-api answers and settles nothing: the version", version, blame.NotSettled,
			"manager-api answered, but did not settle the order of its own deploy within 10m0s, and it was undone: look at "+
				"its log",
			undone(asItIs)),
		Entry("only the one before answers: the version", version, blame.NotSettled,
			"manager-api did not answer for 10m0s after its deploy, and what ran before is back and does: look at its log",
			undone(func(f *blame.Facts) { f.ManagerSilent, f.ManagerBack = true, true })),
		Entry("none answers: the environment", environment, blame.ManagerSilent,
			"manager-api did not answer for 10m0s after its deploy, nor since that was undone: look at its log, host and "+
				"database",
			undone(func(f *blame.Facts) { f.ManagerSilent = true })),
		Entry("what was put back is not healthy: the environment", environment, blame.RestoredUnhealthy,
			"manager-api did not settle the order of its own deploy, and what was put back does not get healthy either: "+
				"look at its host, broker and database",
			undone(func(f *blame.Facts) { f.Back = false })),
		Entry("a deploy that failed half way: as it failed", environment, blame.Reason("runtime_refused"),
			"the cluster says no; what ran before is back", undone(func(f *blame.Facts) {
				f.Cause, f.Reason, f.Told = environment, "runtime_refused", "the cluster says no"
			})),
		Entry("a milestone that could not be performed: the environment", environment, blame.Reason("git_unreachable"),
			"no route",
			blame.Facts{Failure: blame.Refused, Reason: "git_unreachable", Told: "no route"}),
		// an executor's word
		Entry("the executor blames the version", version, blame.DeployUnhealthy, "it says no, then set another ref",
			reported(version, asItIs)),
		Entry("of a workflow without upgrade", version, blame.DeployUnhealthy, "it says no",
			reported(version, func(f *blame.Facts) { f.Upgrade = false })),
		Entry("the executor blames the environment", environment, blame.DeployUnhealthy, "it says no",
			reported(environment, asItIs)),
		Entry("the executor names a cause that is not known here", environment, blame.DeployUnhealthy, "it says no",
			reported("weather", asItIs)),
		Entry("an operator", operator, blame.DeployUnhealthy, "it says no", reported(operator, asItIs)),
		Entry("the version was proven here before: the environment", environment, blame.DeployUnhealthy,
			"it says no (this version was proven here before, so it is not blamed: look at what else has changed, its hosts "+
				"or its deployment repository)", reported(version, again)),
		Entry("the version was proven here before, and is not blamed by the executor either", environment,
			blame.DeployUnhealthy,
			"it says no", reported(environment, again)),
		Entry("the version is recorded, but was never proven", version, blame.DeployUnhealthy,
			"it says no, then set another ref",
			reported(version, func(f *blame.Facts) { f.Recorded = true })),
		Entry("another version is recorded", version, blame.DeployUnhealthy, "it says no, then set another ref",
			reported(version, func(f *blame.Facts) { f.ProvenBefore = true })),
		Entry("an overseer that was proven before: nobody would judge the next try", version, blame.DeployUnhealthy,
			"it says no, then set another ref",
			reported(version, func(f *blame.Facts) { again(f); f.Type = component.Overseer })),
		Entry("manager-api's database was restarted: the environment", environment, blame.DatabaseRestarted,
			"it says no (the database was restarted meanwhile, so the version is not blamed and is tried again)",
			reported(version, func(f *blame.Facts) { again(f); f.Type, f.DatabaseRestarted = component.Manager, true })),
		Entry("the database was restarted, which concerns no other type", version, blame.DeployUnhealthy,
			"it says no, then set another ref", reported(version, func(f *blame.Facts) { f.DatabaseRestarted = true })),
		// a proof
		Entry("the proof is not complete: the version", version, blame.NotProven,
			"only 1 of 2 beats: look at their logs, then set another ref", unproven(asItIs)),
		Entry("the proof of what was proven before: the environment", environment, blame.NotProven,
			"only 1 of 2 beats: look at their logs (this version was proven here before, so it is not blamed: look at what "+
				"else "+
				"has changed, its hosts or its deployment repository)", unproven(again)),
		Entry("the proof holds and nobody judged it: the environment", environment, blame.NotJudged,
			"nobody judged the proof (2 of 2): look at the overseer's log",
			unproven(func(f *blame.Facts) { again(f); f.ProofHolds, f.Proof = true, "2 of 2" })),
		Entry("the proof of an overseer holds and it does not judge: the version", version, blame.NotJudged,
			"the new overseer leads and judges nothing: look at its log, then set another ref",
			unproven(func(f *blame.Facts) { again(f); f.Type, f.ProofHolds = component.Overseer, true })),
		Entry("two hosts have the hostname of an instance: the environment (E11)", environment, blame.HostnameDisputed,
			"two hosts beat under h", unproven(func(f *blame.Facts) { f.Disputed, f.Proof = true, "two hosts beat under h" })),
		Entry("two hosts have the hostname of an instance of what was proven before", environment, blame.HostnameDisputed,
			"two hosts beat under h",
			unproven(func(f *blame.Facts) { again(f); f.Disputed, f.Proof = true, "two hosts beat under h" })),
		// silence
		Entry("an executor without news: the environment", environment, blame.NoProgress,
			"the executor reported no progress for 10m0s: look at its log", silent(asItIs)),
		Entry("nobody claimed the order: the environment", environment, blame.OrderUnclaimed,
			"no executor claimed the order within 10m0s: start one, or look at its log",
			silent(func(f *blame.Facts) { f.Unclaimed, f.Touch.Claimed = true, false })),
		Entry("nobody claimed the order of a workflow without upgrade", environment, blame.OrderUnclaimed,
			"no executor claimed milestone deploy until its deadline: start one for the queue deployer of exchange 7, "+
				"or look at its log", silent(func(f *blame.Facts) {
				f.Upgrade, f.Unclaimed, f.Milestone, f.Queue, f.Exchange = false, true, "deploy", "deployer", 7
			})),
		Entry("the new manager-api has not heard of its deploy: the version", version, blame.NotHeard,
			"the new manager-api runs and has heard nothing of its deploy for 10m0s: look at its log, then set another ref",
			silent(func(f *blame.Facts) { f.RunsTarget = true })),
		Entry("the new manager-api runs, in a rollback", environment, blame.NoProgress,
			"the executor reported no progress for 10m0s: look at its log",
			silent(func(f *blame.Facts) { f.RunsTarget, f.Restoring = true, true })),
		Entry("the new manager-api is the one before", environment, blame.NoProgress,
			"the executor reported no progress for 10m0s: look at its log",
			silent(func(f *blame.Facts) { f.RunsTarget, f.Recorded = true, true })),
		Entry("another type runs the target's version, as manager-api does", environment, blame.NoProgress,
			"the executor reported no progress for 10m0s: look at its log",
			silent(func(f *blame.Facts) { f.RunsTarget, f.Type = true, component.Builder })),
		Entry("executors were lost: the environment", environment, blame.ExecutorLost,
			"milestone deploy was claimed 5 times and given up in silence, the last time by box: look at its log, "+
				"and whether it reaches manager-api",
			blame.Facts{Failure: blame.Lost, Milestone: "deploy", Attempts: 5, Holder: "box"}),
		Entry("the new manager-api hears no result, again and again: the version", version, blame.NotHeard,
			"the new manager-api runs and has heard nothing of its deploy, which was claimed 5 times: look at its log, then "+
				"set another ref", blame.Facts{Failure: blame.Lost, Type: component.Manager, Milestone: "deploy_oa",
				Attempts: 5, Holder: "box", RunsTarget: true, Touch: blame.Touch{Deploys: true}}),
		Entry("executors were lost before the new manager-api was deployed", environment, blame.ExecutorLost,
			"milestone config was claimed 5 times and given up in silence, the last time by box: look at its log, "+
				"and whether it reaches manager-api", blame.Facts{Failure: blame.Lost, Type: component.Manager,
				Milestone: "config", Attempts: 5, Holder: "box", RunsTarget: true}),
		Entry("an exchange that was away: the environment", environment, blame.Abandoned,
			"the exchange could not be reached or judged for 72h0m0s: look at its broker and overseer, and at what runs there",
			blame.Facts{Failure: blame.Forsaken, Upgrade: true, Limit: 72 * time.Hour}),
		Entry("a workflow without upgrade in which nothing moved: the environment", environment, blame.Abandoned,
			"nothing has moved for 72h0m0s: look at the broker of the workflow's exchange, and start an executor there",
			blame.Facts{Failure: blame.Forsaken, Limit: 72 * time.Hour}),
		Entry("a deploy whose instances nobody knows: the environment", environment, blame.InstancesUnnamed,
			"the result of the deploy names no instance, although its executor can: look at the executor's log, then try again",
			blame.Facts{Failure: blame.Unnamed, Upgrade: true}),
		Entry("a build without a result: the environment", environment, blame.BuildUnanswered,
			"no result of the milestone build came until its deadline: start a module for the queue builder of exchange 7, "+
				"or look at its log",
			blame.Facts{Failure: blame.Silent, Unclaimed: true, Outside: true, Milestone: "build", Queue: "builder",
				Exchange: 7}),
		Entry("a cancel: the operator", operator, blame.Canceled, "canceled by an operator",
			blame.Facts{Failure: blame.Withdrawn}),
		Entry("nothing went wrong", upgrade.Cause(""), blame.Reason(""), "", blame.Facts{}),
	)

	It("quarantines no version to which an operator rolled back", func() {
		v := blame.Judge(reported(version, func(f *blame.Facts) { f.Rollback = true }))
		Expect([]any{v.Cause, v.Quarantine}).To(Equal([]any{version, false}))
	})

	DescribeTable("tells what followed from a failure",
		func(want string, u upgrade.Upgrade, e upgrade.Event) {
			u.Message = "it did not get healthy"
			Expect(blame.Outcome(u, e)).To(Equal(want))
		},
		Entry("nothing", "it did not get healthy", upgrade.Upgrade{State: upgrade.Failed},
			upgrade.Event{Message: "it did not get healthy"}),
		Entry("the rollback goes on", "it did not get healthy", upgrade.Upgrade{State: upgrade.RolledBack},
			upgrade.Event{Message: "2 of 2"}),
		Entry("the rollback failed too", "it did not get healthy; the rollback failed: no executor",
			upgrade.Upgrade{State: upgrade.RollbackFailed}, upgrade.Event{Message: "no executor"}),
		Entry("the rollback failed, and nobody says why", "it did not get healthy",
			upgrade.Upgrade{State: upgrade.RollbackFailed}, upgrade.Event{}),
		Entry("a phase stays", "it did not get healthy; what phase 2 has changed stays, as it has no release to return to",
			upgrade.Upgrade{State: upgrade.RollingBack, Left: 2}, upgrade.Event{}),
	)

	DescribeTable("knows whether instances may have been changed",
		func(want bool, failure blame.Failure, touch blame.Touch) {
			Expect(blame.Touched(blame.Facts{Failure: failure, Touch: touch})).To(Equal(want))
		},
		Entry("a deploy that changed nothing", false, blame.None, blame.Touch{}),
		Entry("a deploy that sent a change", true, blame.None, blame.Touch{Acted: true}),
		Entry("a deploy after which something differs", true, blame.None, blame.Touch{Differs: true}),
		Entry("an instance that fails, perhaps by another attempt's change", true, blame.Unhealthy,
			blame.Touch{Failing: true}),
		Entry("an order that expired before the first change", false, blame.Expired, blame.Touch{}),
		Entry("a cluster that refused half way", true, blame.Refused, blame.Touch{Acted: true}),
		Entry("a refusal before the first change", false, blame.Refused, blame.Touch{}),
		Entry("a panic in a deploy that had begun", true, blame.Refused, blame.Touch{Unknown: true}),
		Entry("an undo", true, blame.Undone, blame.Touch{}),
		Entry("an executor that says so", true, blame.Reported, blame.Touch{Told: true}),
		Entry("an executor that has completed a deploy and says so", true, blame.None, blame.Touch{Told: true}),
		Entry("an executor that takes a complete deploy back", true, blame.Reported, blame.Touch{Undone: true}),
		Entry("a complete deploy whose instances nobody knows", true, blame.Unnamed, blame.Touch{}),
		Entry("an executor that says no", false, blame.Reported, blame.Touch{Deploys: true}),
		Entry("an executor that says no, after another host had the deploy", true, blame.Reported,
			blame.Touch{Deploys: true, TakenOver: true}),
		Entry("a config milestone that another host had before", false, blame.Reported, blame.Touch{TakenOver: true}),
		Entry("a deploy whose executors were lost", true, blame.Lost, blame.Touch{Deploys: true}),
		Entry("a config milestone whose executors were lost", false, blame.Lost, blame.Touch{}),
		Entry("silence after a claim", true, blame.Silent, blame.Touch{Claimed: true}),
		Entry("silence without a claim", false, blame.Silent, blame.Touch{}),
		Entry("a proof that did not come", true, blame.Unproven, blame.Touch{Claimed: true}),
		Entry("a cancel after a claim", true, blame.Withdrawn, blame.Touch{Claimed: true}),
		Entry("an exchange that is given up", false, blame.Forsaken, blame.Touch{Claimed: true}),
	)

	It("names every failure", func() {
		Expect([]string{blame.None.String(), blame.Withdrawn.String(), (blame.Withdrawn + 1).String()}).
			To(Equal([]string{"none", "withdrawn", "unknown"}))
	})
})
