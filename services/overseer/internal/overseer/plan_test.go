package overseer_test

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/module"
	"github.com/openaperture/openaperture/pkg/upgrade"
	"github.com/openaperture/openaperture/services/overseer/internal/overseer"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

type change func(*overseer.Situation)

// given is a covered exchange under our own term 5, in which nothing is due: overseer and manager, hourly, at v1 of a
// gold standard v2, and both executors. Changes make things due.
func given(changes ...change) overseer.Situation {
	next := now.Add(20 * time.Minute)
	of := func(id component.ID, t component.Type) component.Component {
		return component.Component{ID: id, Type: t, SourceRepo: "repo", SourceRepoGitRef: "v1", DeploymentRepo: "deploy",
			DeploymentRepoGitRef: "main",
			Strategy:             component.Hourly, NextCheckAt: &next}
	}
	ref := func(t component.Type) component.Ref {
		return component.Ref{Type: t, SourceRepo: "repo", SourceRepoGitRef: "v2", AutoUpgradeEnabled: true}
	}
	live := func(t component.Type, service string) module.Count {
		return module.Count{Type: t, Service: service, SourceRepoGitRef: "v1", Status: module.Active, Live: 1, Total: 1}
	}
	covered := now.Add(-time.Hour)
	s := overseer.Situation{Term: 5, CheckInterval: time.Hour, StarveAfter: 4 * time.Hour,
		Jitter: func() time.Duration { return 7 * time.Minute },
		Contain: func(item string, judgement func()) error {
			return loop.Contain(context.Background(), "spec", item, func() error { judgement(); return nil })
		},
		Snapshot: managerapi.Snapshot{DatabaseTime: now, LiveWithinMS: 90_000,
			Lease:      &managerapi.Lease{Holder: "me", Term: 5, Covering: true, CoveredSince: &covered},
			Components: []component.Component{of(1, component.Overseer), of(2, component.Manager)},
			Refs:       []component.Ref{ref(component.Overseer), ref(component.Manager)},
			Counts: []module.Count{live(component.Overseer, "overseer"), live(component.Manager, "manager-api"),
				live(component.Deployer, "deployer"), live(component.Deployer, "deployer-oa")}}}
	for _, c := range changes {
		c(&s)
	}
	return s
}

func open(id string, c component.ID, t component.Type, state upgrade.State,
	trigger upgrade.Trigger) managerapi.OpenUpgrade {
	return managerapi.OpenUpgrade{Upgrade: managerapi.Upgrade{ID: upgrade.ID(id), ComponentID: c, ComponentType: t,
		State: state, Trigger: trigger,
		CreatedAt: now, To: upgrade.Version{SourceRepo: "repo", SourceRepoGitRef: "v0"}}}
}

func withUpgrades(list ...managerapi.OpenUpgrade) change {
	return func(s *overseer.Situation) { s.Snapshot.Upgrades = list }
}

func withDue(at time.Duration) change {
	return func(s *overseer.Situation) { t := now.Add(at); s.Snapshot.Components[0].NextCheckAt = &t }
}

func unscheduled(s *overseer.Situation) { s.Snapshot.Components[0].NextCheckAt = nil }
func manual(s *overseer.Situation)      { s.Snapshot.Components[0].Strategy = component.Manual }
func sweepDue(s *overseer.Situation)    { s.SweepDue = true }
func uncovered(s *overseer.Situation)   { s.Snapshot.Lease.Covering = false }
func coveredFor(d time.Duration) change {
	return func(s *overseer.Situation) { t := now.Add(-d); s.Snapshot.Lease.CoveredSince = &t }
}
func current(s *overseer.Situation) {
	for i := range s.Snapshot.Components {
		s.Snapshot.Components[i].SourceRepoGitRef = "v2"
	}
	s.Snapshot.Counts = s.Snapshot.Counts[2:]
}

// gone says that nothing has been heard of component 1, at the gold standard, for so long, and that the component was
// checked so long ago.
func gone(silent, checked time.Duration) change {
	return func(s *overseer.Situation) {
		last, check := now.Add(-silent), now.Add(-checked)
		s.Snapshot.MissingAfterMS, s.Snapshot.Lease.CoveredUntil = 600_000, &now
		s.Snapshot.Components[0].SourceRepoGitRef = "v2"
		s.Snapshot.Counts = s.Snapshot.Counts[1:]
		s.Snapshot.Heard = []component.Heard{{ComponentID: 1, LastAt: &last, CheckedAt: &check}}
	}
}
func frozen(s *overseer.Situation) {
	s.Snapshot.Freeze = &managerapi.Freeze{Reason: "the database moves"}
}
func otherTerm(s *overseer.Situation)    { s.Snapshot.Lease.Term = 6 }
func noLease(s *overseer.Situation)      { s.Snapshot.Lease = nil }
func noRefs(s *overseer.Situation)       { s.Snapshot.Refs = nil }
func noExecutors(s *overseer.Situation)  { s.Snapshot.Counts = s.Snapshot.Counts[:2] }
func noComponents(s *overseer.Situation) { s.Snapshot.Components = nil }
func autoOff(s *overseer.Situation)      { s.Snapshot.Refs[0].AutoUpgradeEnabled = false }
func quarantined(s *overseer.Situation) {
	s.Snapshot.Quarantines = []managerapi.Quarantine{{ComponentType: component.Overseer, SourceRepo: "repo",
		SourceRepoGitRef: "v2"}}
}

// failed says that so many upgrades of component 1 to a version failed by the environment, the last one so long ago.
func failed(ref string, count int, ago time.Duration) change {
	return func(s *overseer.Situation) {
		s.Snapshot.Failures = []managerapi.EnvironmentFailures{{ComponentID: 1, Count: count, Last: now.Add(-ago),
			Target: upgrade.Version{SourceRepo: "repo", SourceRepoGitRef: ref}}}
	}
}

func forced(u managerapi.OpenUpgrade) managerapi.OpenUpgrade { u.Force = true; return u }

// verifying is an upgrade of the overseer that waits for its proof, of one module that is proven since `steady`.
func verifying(state upgrade.State, steady time.Duration) change {
	u := open("u1", 1, component.Overseer, state, upgrade.TriggerHourly)
	u.Phase, u.Step = 1, upgrade.StepVerify
	u.Need = &upgrade.Need{Type: component.Overseer, Count: 1, Ref: "v2", WorkflowBegan: now.Add(-5 * time.Minute),
		WorkflowEnded: now.Add(-time.Minute),
		MinHealthy:    10 * time.Second, LeaderHostname: "o2", At: now, LiveWithin: 90 * time.Second}
	return func(s *overseer.Situation) {
		s.Snapshot.Upgrades = []managerapi.OpenUpgrade{u}
		s.Snapshot.Modules = []module.Module{{Hostname: "o2", Type: component.Overseer, Status: module.Active,
			SourceRepoGitRef: "v2",
			LastSeen:         now, BootSince: now.Add(-steady), SteadySince: now.Add(-steady)}}
	}
}

// told is a plan as one line per action.
func told(plan []overseer.Action) []string {
	lines := []string{}
	for _, a := range plan {
		subject := string(a.Upgrade)
		if a.Kind == overseer.Check {
			subject = fmt.Sprintf("component %d, next %s", a.Component, a.NextCheck.Sub(now))
			if a.Create {
				subject += ", create"
			}
		}
		lines = append(lines, fmt.Sprintf("%s %s: %s", a.Kind, subject, a.Verdict.Code))
	}
	return lines
}

// plan is the plan of a situation in which everything can be judged.
func plan(s overseer.Situation) []overseer.Action {
	GinkgoHelper()
	actions, leftAlone := overseer.Plan(s)
	Expect(leftAlone).To(BeEmpty())
	return actions
}

const requested = upgrade.Requested

var _ = Describe("A plan", func() {
	DescribeTable("of automatic checks",
		func(s overseer.Situation, want ...string) {
			Expect(told(plan(s))).To(Equal(append([]string{}, want...)))
		},
		Entry("nothing is due", given()),
		Entry("a check is due and finds another version wanted", given(withDue(0)),
			"check component 1, next 1h0m0s, create: eligible"),
		Entry("missed checks are one, in the old phase", given(withDue(-130*time.Minute)),
			"check component 1, next 50m0s, create: eligible"),
		Entry("a check that lies further ahead than one interval is drawn nearer (fault 11)",
			given(withDue(50*time.Hour+20*time.Minute)),
			"check component 1, next 20m0s, create: eligible"),
		Entry("a check makes an upgrade again one interval after a failure by the environment (C10)",
			given(withDue(0), failed("v2", 1, 58*time.Minute)), "check component 1, next 1h0m0s, create: eligible"),
		Entry("not yet one interval after the second such failure (fault 13)",
			given(withDue(0), failed("v2", 2, 58*time.Minute)), "check component 1, next 1h0m0s: backing_off"),
		Entry("but two intervals after it (fault 13)",
			given(withDue(0), failed("v2", 2, 118*time.Minute)), "check component 1, next 1h0m0s, create: eligible"),
		Entry("and at once for another target (fault 13)",
			given(withDue(0), failed("v1.9", 5, time.Minute)), "check component 1, next 1h0m0s, create: eligible"),
		Entry("what refuses it anyway is said rather than the back-off",
			given(withDue(0), failed("v2", 5, time.Minute), quarantined), "check component 1, next 1h0m0s: quarantined"),
		Entry("a component that was never scheduled gets its phase and no upgrade yet (C11)", given(unscheduled),
			"check component 1, next 7m0s: eligible"),
		Entry("a manual component is not checked", given(unscheduled, manual)),
		Entry("a manual component is not checked though it once was hourly", given(withDue(-time.Hour), manual)),
		Entry("a refusal makes no upgrade", given(withDue(0), noRefs), "check component 1, next 1h0m0s: no_ref"),
		Entry("a quarantined target makes no upgrade (C10)", given(withDue(0), quarantined),
			"check component 1, next 1h0m0s: quarantined"),
		Entry("a check stays due while silence says nothing", given(withDue(0), noExecutors, coveredFor(time.Second))),
		Entry("an open upgrade is left alone (R1)",
			given(withDue(0), withUpgrades(open("u1", 1, component.Overseer, upgrade.InProgress, upgrade.TriggerHourly))),
			"check component 1, next 1h0m0s: upgrade_open"),
		Entry("a component whose instances are all gone is checked before its time (fault 17)",
			given(gone(10*time.Minute, 40*time.Minute)), "check component 1, next 20m0s, create: eligible"),
		Entry("not before missing_after", given(gone(10*time.Minute-time.Second, 40*time.Minute))),
		Entry("then a check in its time finds nothing to do", given(gone(time.Minute, 40*time.Minute), withDue(0)),
			"check component 1, next 1h0m0s: already_latest"),
		Entry("once for each disappearance", given(gone(15*time.Minute, 4*time.Minute))),
		Entry("then again in its time", given(gone(15*time.Minute, 4*time.Minute), withDue(0)),
			"check component 1, next 1h0m0s, create: eligible"),
		Entry("not in an exchange that is not covered", given(gone(time.Hour, 2*time.Hour), uncovered)),
		Entry("not of a manual component", given(gone(15*time.Minute, 40*time.Minute), manual)),
		Entry("its repair waits while automatic upgrades are disabled",
			given(gone(15*time.Minute, 40*time.Minute), autoOff), "check component 1, next 20m0s: auto_upgrade_disabled"),
		Entry("its repair waits while a freeze holds", given(gone(15*time.Minute, 40*time.Minute), frozen),
			"check component 1, next 20m0s: frozen"),
		Entry("its repair is refused if the version has failed here", given(gone(15*time.Minute, 40*time.Minute),
			quarantined),
			"check component 1, next 20m0s: quarantined"),
		Entry("its repair is held back after failures by the environment",
			given(gone(15*time.Minute, 40*time.Minute), failed("v2", 2, 58*time.Minute)),
			"check component 1, next 20m0s: backing_off"),
		Entry("another leader's snapshot plans nothing (I14)", given(withDue(0), sweepDue, otherTerm)),
		Entry("nobody's snapshot plans nothing", given(withDue(0), sweepDue, noLease)),
	)

	DescribeTable("of the slot",
		func(s overseer.Situation, want ...string) {
			Expect(told(plan(s))).To(Equal(append([]string{}, want...)))
		},
		Entry("an eligible request starts",
			given(withUpgrades(open("u1", 1, component.Overseer, requested, upgrade.TriggerRequest))), "start u1: eligible"),
		Entry("a request of a manual component starts", given(manual,
			withUpgrades(open("u1", 1, component.Overseer, requested, upgrade.TriggerRequest))),
			"start u1: eligible"),
		Entry("an automatic one of a component that has become manual is refused",
			given(manual, withUpgrades(open("u1", 1, component.Overseer, requested, upgrade.TriggerHourly))),
			"refuse u1: strategy_manual"),
		Entry("one that is no longer eligible is refused (judged again)",
			given(autoOff, withUpgrades(open("u1", 1, component.Overseer, requested, upgrade.TriggerHourly))),
			"refuse u1: auto_upgrade_disabled"),
		Entry("force starts it nevertheless",
			given(autoOff, withUpgrades(forced(open("u1", 1, component.Overseer, requested, upgrade.TriggerRequest)))),
			"start u1: eligible"),
		Entry("nobody is there to execute it",
			given(noExecutors, withUpgrades(open("u1", 1, component.Overseer, requested, upgrade.TriggerRequest))),
			"refuse u1: no_executor"),
		Entry("a refused one makes room for the next in the same pass",
			given(autoOff, withUpgrades(open("u1", 1, component.Overseer, requested, upgrade.TriggerRequest),
				open("u2", 2, component.Manager, requested, upgrade.TriggerHourly))),
			"refuse u1: auto_upgrade_disabled", "start u2: eligible"),
		Entry("a request waits while nobody is heard: that an executor is silent says nothing",
			given(noExecutors, uncovered, withUpgrades(open("u1", 1, component.Overseer, requested, upgrade.TriggerRequest)))),
		Entry("and until everybody has had the time to be heard again",
			given(noExecutors, coveredFor(89*time.Second), withUpgrades(open("u1", 1, component.Overseer, requested,
				upgrade.TriggerRequest)))),
		Entry("after that, silence counts",
			given(noExecutors, coveredFor(90*time.Second), withUpgrades(open("u1", 1, component.Overseer, requested,
				upgrade.TriggerRequest))), "refuse u1: no_executor"),
		Entry("nor is one refused as the latest while those who run another version may not have been heard",
			given(current, coveredFor(time.Second), withUpgrades(open("u1", 1, component.Overseer, requested,
				upgrade.TriggerRequest)))),
		Entry("what is known without hearing is refused at once", given(autoOff, uncovered,
			withUpgrades(open("u1", 1, component.Overseer, requested, upgrade.TriggerRequest))),
			"refuse u1: auto_upgrade_disabled"),
		Entry("who was heard lets a request start at once",
			given(coveredFor(time.Second), withUpgrades(open("u1", 1, component.Overseer, requested, upgrade.TriggerRequest))),
			"start u1: eligible"),
		Entry("the explicit one starts first, the other if that one cannot be started",
			given(withUpgrades(open("u2", 2, component.Manager, requested, upgrade.TriggerHourly),
				open("u1", 1, component.Overseer, requested, upgrade.TriggerRequest))),
			"start u1: eligible", "start u2: eligible"),
		Entry("an explicit one starts whatever failed before (fault 13)",
			given(failed("v2", 5, time.Minute), withUpgrades(open("u1", 1, component.Overseer, requested,
				upgrade.TriggerRequest))),
			"start u1: eligible"),
		Entry("of two automatic ones the manager starts first",
			given(withUpgrades(open("u1", 1, component.Overseer, requested, upgrade.TriggerHourly),
				open("u2", 2, component.Manager, requested, upgrade.TriggerHourly))),
			"start u2: eligible", "start u1: eligible"),
		Entry("one behind it that is not eligible is judged when the slot is free",
			given(autoOff, withUpgrades(open("u1", 1, component.Overseer, requested, upgrade.TriggerHourly),
				open("u2", 2, component.Manager, requested, upgrade.TriggerHourly))),
			"start u2: eligible"),
		Entry("nothing starts, and nothing is refused, while one is in progress",
			given(autoOff, withUpgrades(open("u2", 2, component.Manager, upgrade.InProgress, upgrade.TriggerHourly),
				open("u1", 1, component.Overseer, requested, upgrade.TriggerRequest)))),
		Entry("nothing starts while one rolls back",
			given(withUpgrades(open("u2", 2, component.Manager, upgrade.RollingBack, upgrade.TriggerHourly),
				open("u1", 1, component.Overseer, requested, upgrade.TriggerRequest)))),
		Entry("an operator's rollback starts, whatever the gold standard says",
			given(autoOff, manual, withUpgrades(open("u1", 1, component.Overseer, requested, upgrade.TriggerRollback))),
			"start u1: eligible"),
		Entry("one without its component is left alone (C15)", given(noComponents,
			withUpgrades(open("u1", 1, component.Overseer, requested, upgrade.TriggerRequest)))),
	)

	It("starts a repair with the recorded version, and says since when nothing is heard (fault 17)", func() {
		actions := plan(given(gone(15*time.Minute, 40*time.Minute),
			withUpgrades(open("u1", 1, component.Overseer, requested, upgrade.TriggerHourly))))
		Expect(told(actions)).To(Equal([]string{"start u1: eligible", "check component 1, next 20m0s: upgrade_open"}))
		Expect(actions[0].Target.SourceRepoGitRef).To(Equal("v2"))
		Expect(*actions[0].Inputs.(overseer.Evidence).LastHeard).To(Equal(now.Add(-15 * time.Minute)))
	})

	DescribeTable("of proofs",
		func(s overseer.Situation, want ...string) {
			Expect(told(plan(s))).To(Equal(append([]string{}, want...)))
		},
		Entry("a steady module at the target proves", given(verifying(upgrade.Verifying, 15*time.Second)),
			"prove u1: proven"),
		Entry("one that is not steady for long enough does not yet", given(verifying(upgrade.Verifying, 9*time.Second))),
		Entry("what was restored is proven alike", given(verifying(upgrade.RollingBack, 15*time.Second)), "prove u1: proven"),
		Entry("one whose workflow still runs is not judged", given(verifying(upgrade.InProgress, 15*time.Second),
			func(s *overseer.Situation) {
				s.Snapshot.Upgrades[0].Step, s.Snapshot.Upgrades[0].Need = upgrade.StepDeploy, nil
			})),
	)

	DescribeTable("of sweeps",
		func(s overseer.Situation, want ...string) {
			Expect(told(plan(s))).To(Equal(append([]string{}, want...)))
		},
		Entry("a sweep is due", given(sweepDue), "sweep : sweep_due"),
		Entry("nobody is swept while the exchange is not covered (E2, E3)", given(sweepDue, uncovered)),
	)

	DescribeTable("of a snapshot of a newer manager-api leaves alone what it does not know, and judges the rest (fault 9)",
		func(strange change, item, why string, want ...string) {
			s := given(withDue(0), withUpgrades(open("u2", 2, component.Manager, requested, upgrade.TriggerRequest),
				open("u3", 1, component.Overseer, requested, upgrade.TriggerRequest)), strange)
			actions, leftAlone := overseer.Plan(s)
			Expect(told(actions)).To(Equal(want))
			Expect(leftAlone).NotTo(BeEmpty())
			Expect(leftAlone).To(HaveEach(overseer.LeftAlone{Item: item, Why: why}))
		},
		Entry("a state", func(s *overseer.Situation) { s.Snapshot.Upgrades[0].State = "paused" },
			"upgrade/u2", `state "paused" is not known to this overseer: it is left to a newer one`,
			"start u3: eligible", "check component 1, next 1h0m0s: upgrade_open"),
		Entry("a trigger", func(s *overseer.Situation) { s.Snapshot.Upgrades[0].Trigger = "repair" },
			"upgrade/u2", `trigger "repair" is not known to this overseer: it is left to a newer one`,
			"start u3: eligible", "check component 1, next 1h0m0s: upgrade_open"),
		Entry("a step", func(s *overseer.Situation) {
			s.Snapshot.Upgrades[0].State, s.Snapshot.Upgrades[0].Step = upgrade.Verifying, "soak"
		},
			"upgrade/u2", `step "soak" is not known to this overseer: it is left to a newer one`,
			"check component 1, next 1h0m0s: upgrade_open"),
		Entry("a phase", func(s *overseer.Situation) { s.Snapshot.Upgrades[0].Phase = 7 },
			"upgrade/u2", `phase 7 of type manager is not known to this overseer: it is left to a newer one`,
			"start u3: eligible", "check component 1, next 1h0m0s: upgrade_open"),
		Entry("an upgrade strategy", func(s *overseer.Situation) { s.Snapshot.Components[0].Strategy = "weekly" },
			"component/1", `upgrade_strategy "weekly" is not known to this overseer: it is left to a newer one`,
			"start u2: eligible", "start u3: eligible"),
	)

	It("starts nothing while a freeze holds but an operator's rollback, and refuses nobody for it", func() {
		requests := withUpgrades(open("r", 1, component.Overseer, upgrade.Requested, upgrade.TriggerRequest),
			open("b", 2, component.Manager, upgrade.Requested, upgrade.TriggerRollback))
		plan, _ := overseer.Plan(given(frozen, requests))
		Expect(plan).To(HaveLen(1))
		Expect(plan[0].Kind).To(Equal(overseer.Start))
		Expect(plan[0].Upgrade).To(Equal(upgrade.ID("b")))
		plan, _ = overseer.Plan(given(frozen, withDue(-time.Second)))
		Expect(plan).To(HaveLen(1))
		Expect(plan[0].Verdict.Code).To(Equal("frozen"))
		Expect(plan[0].Create).To(BeFalse())
	})

	It("goes on when one judgement breaks (fault 9)", func() {
		actions, leftAlone := overseer.Plan(given(unscheduled, func(s *overseer.Situation) {
			t := now
			s.Snapshot.Components[1].NextCheckAt = &t
			s.Jitter = func() time.Duration { panic("out of luck") }
		}))
		Expect(told(actions)).To(Equal([]string{"check component 2, next 1h0m0s, create: eligible"}))
		Expect(leftAlone).To(Equal([]overseer.LeftAlone{{Item: "component/1",
			Why: "its judgement failed: panicked: out of luck"}}))
	})

	It("holds its actions in the order in which they help each other", func() {
		s := given(verifying(upgrade.Verifying, 15*time.Second), sweepDue, func(s *overseer.Situation) {
			t := now
			s.Snapshot.Components[1].NextCheckAt = &t
		})
		Expect(told(plan(s))).To(Equal([]string{"prove u1: proven", "sweep : sweep_due",
			"check component 2, next 1h0m0s, create: eligible"}))
	})

	It("starts with the ref of this moment, and an operator's rollback with its release", func() {
		s := given(withUpgrades(open("u1", 1, component.Overseer, requested, upgrade.TriggerRequest)))
		Expect(plan(s)[0].Target.SourceRepoGitRef).To(Equal("v2"))
		s = given(withUpgrades(open("u1", 1, component.Overseer, requested, upgrade.TriggerRollback)))
		Expect(plan(s)[0].Target.SourceRepoGitRef).To(Equal("v0"))
	})

	It("says of a start and a refusal what they rest on (fault 6)", func() {
		s := given(withUpgrades(forced(open("u1", 1, component.Overseer, requested, upgrade.TriggerRequest))), quarantined)
		s.Snapshot.Quarantines = append(s.Snapshot.Quarantines, managerapi.Quarantine{ID: "q2",
			ComponentType: component.Overseer},
			managerapi.Quarantine{ID: "q3", ComponentType: component.Manager},
			managerapi.Quarantine{ID: "q1", ComponentType: component.Overseer})
		s.Snapshot.Quarantines[0].ID = "q4"
		Expect(plan(s)[0].Kind).To(Equal(overseer.Start))
		Expect(plan(s)[0].Saw).To(Equal(&managerapi.Saw{Ref: &s.Snapshot.Refs[0], Component: s.Snapshot.Components[0],
			Trigger: upgrade.TriggerRequest, Force: true, Quarantines: []string{"q1", "q2", "q4"}}))
		s = given(withUpgrades(open("u1", 1, component.Overseer, requested, upgrade.TriggerRequest)), noRefs)
		Expect(plan(s)[0].Kind).To(Equal(overseer.Refuse))
		Expect(plan(s)[0].Saw).To(Equal(&managerapi.Saw{Component: s.Snapshot.Components[0], Trigger: upgrade.TriggerRequest,
			Quarantines: []string{}}))
	})

	It("gives every action a sentence, and every judgement what it looked at", func() {
		for _, a := range plan(given(withDue(0), sweepDue, withUpgrades(open("u2", 2, component.Manager, requested,
			upgrade.TriggerRequest)))) {
			Expect(len(a.Verdict.Message)).To(BeNumerically(">", 15), string(a.Kind))
			if a.Kind != overseer.Sweep {
				e := a.Inputs.(overseer.Evidence)
				Expect(e.Ref.SourceRepoGitRef).To(Equal("v2"))
				Expect(e.Running).To(HaveLen(3), "the type's own and both executors")
			}
		}
	})
})
