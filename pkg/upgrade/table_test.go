package upgrade_test

import (
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

type change func(*upgrade.Upgrade)

// in is an upgrade of an overseer in a state, with a proven release to return to.
func in(state upgrade.State, step upgrade.Step, changes ...change) upgrade.Upgrade {
	u := upgrade.Upgrade{ID: "u1", Type: component.Overseer, Proof: component.ProofModules, Trigger: upgrade.TriggerHourly,
		State: state, Step: step, Proven: true}
	if state.Running() {
		u.Phase = 1
	}
	for _, c := range changes {
		c(&u)
	}
	return u
}

func touched(u *upgrade.Upgrade)  { u.Touched = true }
func unproven(u *upgrade.Upgrade) { u.Proven = false }
func before(u *upgrade.Upgrade)   { u.ProvenBefore = true }
func units(u *upgrade.Upgrade)    { u.Proof = component.ProofUnits }
func hello(u *upgrade.Upgrade)    { u.Type = "hello" }
func rollback(u *upgrade.Upgrade) { u.Trigger = upgrade.TriggerRollback }
func deployer(u *upgrade.Upgrade) { u.Type = component.Deployer }
func phase(n int) change          { return func(u *upgrade.Upgrade) { u.Phase = n } }
func blamed(text string) change {
	return func(u *upgrade.Upgrade) { u.Cause, u.Message = upgrade.CauseVersion, text }
}
func kind(k upgrade.EventKind) upgrade.Event {
	return upgrade.Event{Kind: k, Reason: "r", Message: "m"}
}

func because(k upgrade.EventKind, c upgrade.Cause) upgrade.Event {
	e := kind(k)
	e.Cause = c
	return e
}

func touching(e upgrade.Event) upgrade.Event { e.Touched = true; return e }

func quarantining(e upgrade.Event) upgrade.Event { e.Quarantine = true; return e }

// told is where an upgrade came to and what is to be done, in one line.
func told(u upgrade.Upgrade, effects []upgrade.Effect) string {
	parts := []string{fmt.Sprintf("%s %d%s:", u.State, u.Phase,
		map[upgrade.Step]string{"": "", "deploy": " deploying", "verify": " verifying"}[u.Step])}
	for _, e := range effects {
		text := string(e.Kind)
		if e.Phase > 0 {
			text += fmt.Sprintf("(%d)", e.Phase)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " ")
}

const (
	ended      = "close_workflow system_event free_slot"
	goingBack  = "rolling_back 1 deploying: close_workflow system_event restore_workflow(1) reset_clock"
	goingBackQ = "rolling_back 1 deploying: quarantine close_workflow system_event restore_workflow(1) reset_clock"
)

var positions = []upgrade.Upgrade{
	in(upgrade.Requested, upgrade.StepNone), in(upgrade.InProgress, upgrade.StepDeploy),
	in(upgrade.Verifying, upgrade.StepVerify, touched),
	in(upgrade.RollingBack, upgrade.StepDeploy, touched), in(upgrade.RollingBack, upgrade.StepVerify, touched),
	in(upgrade.Completed, upgrade.StepNone), in(upgrade.Ineligible, upgrade.StepNone),
	in(upgrade.Canceled, upgrade.StepNone), in(upgrade.Expired, upgrade.StepNone),
	in(upgrade.Failed, upgrade.StepNone), in(upgrade.RolledBack, upgrade.StepNone),
	in(upgrade.RollbackFailed, upgrade.StepNone),
}

// matrix holds every legal pair of position and event; all others are refused.
var matrix = map[string]map[upgrade.EventKind]string{
	"requested": {
		upgrade.EventStart:  "in_progress 1 deploying: start_workflow(1) reset_clock",
		upgrade.EventRefuse: "ineligible 0:", upgrade.EventCancel: "canceled 0:", upgrade.EventExpire: "expired 0:",
	},
	"in_progress deploy": {
		upgrade.EventWorkflowCompleted: "verifying 1 verifying: reset_clock",
		upgrade.EventWorkflowFailed:    "failed 1: " + ended, upgrade.EventCancel: "failed 1: " + ended,
		upgrade.EventDeadline: "failed 1: " + ended, upgrade.EventAbandon: "failed 1: " + ended,
	},
	"verifying verify": {
		upgrade.EventProven: "completed 1: record_version system_event free_slot",
		upgrade.EventCancel: goingBack, upgrade.EventDeadline: goingBack, upgrade.EventUndone: goingBack,
		upgrade.EventAbandon: "failed 1: " + ended,
	},
	"rolling_back deploy": {
		upgrade.EventWorkflowCompleted: "rolling_back 1 verifying: reset_clock",
		upgrade.EventWorkflowFailed:    "rollback_failed 1: " + ended,
		upgrade.EventDeadline:          "rollback_failed 1: " + ended, upgrade.EventAbandon: "rollback_failed 1: " + ended,
	},
	"rolling_back verify": {
		upgrade.EventProven: "rolled_back 1: system_event free_slot", upgrade.EventUndone: "rollback_failed 1: " + ended,
		upgrade.EventDeadline: "rollback_failed 1: " + ended, upgrade.EventAbandon: "rollback_failed 1: " + ended,
	},
}

var _ = Describe("The table", func() {
	for _, u := range positions {
		name := strings.TrimSpace(string(u.State) + " " + string(u.Step))
		for _, k := range upgrade.Events {
			want, legal := matrix[name][k]
			if !legal {
				It(fmt.Sprintf("refuses %s to an upgrade that is %s", k, name), func() {
					after, effects, err := u.Apply(kind(k))
					Expect(err).To(Equal(upgrade.ErrIllegal{State: u.State, Event: k}))
					Expect(err.Error()).To(ContainSubstring(string(k)))
					Expect(after).To(Equal(u), "nothing has changed")
					Expect(effects).To(BeEmpty())
				})
				continue
			}
			It(fmt.Sprintf("moves an upgrade that is %s by %s", name, k), func() {
				after, effects, err := u.Apply(kind(k))
				Expect(err).NotTo(HaveOccurred())
				Expect(told(after, effects)).To(Equal(want))
			})
		}
	}

	It("lets terminal states absorb, and no other (I4)", func() {
		for _, s := range upgrade.States {
			Expect(s.Open()).To(Equal(len(matrix[string(s)])+len(matrix[string(s)+" deploy"])+len(
				matrix[string(s)+" verify"]) > 0), string(s))
		}
	})

	DescribeTable("tells apart",
		func(u upgrade.Upgrade, e upgrade.Event, want string) {
			after, effects, err := u.Apply(e)
			Expect(err).NotTo(HaveOccurred())
			Expect(told(after, effects)).To(Equal(want))
		},
		Entry("a failure that touched nothing", in(upgrade.InProgress, upgrade.StepDeploy),
			because(upgrade.EventWorkflowFailed, upgrade.CauseEnvironment),
			"failed 1: "+ended),
		Entry("one that touched something: back to the proven release", in(upgrade.InProgress, upgrade.StepDeploy),
			touching(because(upgrade.EventWorkflowFailed, upgrade.CauseEnvironment)), goingBack),
		Entry("one that touched something and has nothing to return to", in(upgrade.InProgress, upgrade.StepDeploy, unproven),
			touching(because(upgrade.EventWorkflowFailed, upgrade.CauseEnvironment)), "failed 1: "+ended),
		Entry("one that quarantines (C10)", in(upgrade.InProgress, upgrade.StepDeploy),
			quarantining(touching(because(upgrade.EventWorkflowFailed, upgrade.CauseVersion))), goingBackQ),
		Entry("one that quarantines and has nothing to return to", in(upgrade.InProgress, upgrade.StepDeploy, unproven),
			quarantining(touching(because(upgrade.EventWorkflowFailed, upgrade.CauseVersion))), "failed 1: quarantine "+ended),
		Entry("the version's fault that does not quarantine", in(upgrade.InProgress, upgrade.StepDeploy, rollback),
			touching(because(upgrade.EventWorkflowFailed, upgrade.CauseVersion)), goingBack),
		Entry("an operator's cancel of a touched one", in(upgrade.Verifying, upgrade.StepVerify, touched),
			because(upgrade.EventCancel, upgrade.CauseOperator), goingBack),
		Entry("a deploy that changed nothing and is not proven", in(upgrade.Verifying, upgrade.StepVerify),
			quarantining(because(upgrade.EventDeadline, upgrade.CauseVersion)),
			"failed 1: quarantine "+ended),
		Entry("a silence that is not proven in time (R7)", in(upgrade.Verifying, upgrade.StepVerify, touched),
			quarantining(because(upgrade.EventDeadline, upgrade.CauseVersion)), goingBackQ),
		Entry("an abandoned one, which is left as it is", in(upgrade.Verifying, upgrade.StepVerify, touched),
			because(upgrade.EventAbandon, upgrade.CauseEnvironment),
			"failed 1: "+ended),
		Entry("a type without heartbeats, proven by its deploy", in(upgrade.InProgress, upgrade.StepDeploy, hello, units),
			kind(upgrade.EventWorkflowCompleted),
			"completed 1: record_version system_event free_slot"),
		Entry("a type without heartbeats, restored by its deploy",
			in(upgrade.RollingBack, upgrade.StepDeploy, hello, units, touched), kind(upgrade.EventWorkflowCompleted),
			"rolled_back 1: system_event free_slot"),
		Entry("an overseer that was once given that proof: it must lead all the same",
			in(upgrade.InProgress, upgrade.StepDeploy, units), kind(upgrade.EventWorkflowCompleted),
			"verifying 1 verifying: reset_clock"),
		Entry("deployers that were: they must answer", in(upgrade.InProgress, upgrade.StepDeploy, deployer, units),
			kind(upgrade.EventWorkflowCompleted),
			"verifying 1 verifying: probe(1) reset_clock"),
		Entry("one of them, restored", in(upgrade.RollingBack, upgrade.StepDeploy, deployer, units, touched),
			kind(upgrade.EventWorkflowCompleted),
			"rolling_back 1 verifying: probe(1) reset_clock"),
	)

	DescribeTable("takes the deployers' pair through both phases and back",
		func(u upgrade.Upgrade, e upgrade.Event, want string) {
			after, effects, err := u.Apply(e)
			Expect(err).NotTo(HaveOccurred())
			Expect(told(after, effects)).To(Equal(want))
		},
		Entry("phase 1 deployed: the new deployer is probed", in(upgrade.InProgress, upgrade.StepDeploy, deployer),
			kind(upgrade.EventWorkflowCompleted),
			"verifying 1 verifying: probe(1) reset_clock"),
		Entry("phase 1 proven: only now phase 2 begins (I7)", in(upgrade.Verifying, upgrade.StepVerify, deployer, touched),
			kind(upgrade.EventProven),
			"in_progress 2 deploying: start_workflow(2) reset_clock"),
		Entry("phase 2 deployed: the new deployer-oa is probed", in(upgrade.InProgress, upgrade.StepDeploy, deployer, touched,
			phase(2)), kind(upgrade.EventWorkflowCompleted),
			"verifying 2 verifying: probe(2) reset_clock"),
		Entry("phase 2 proven: completed", in(upgrade.Verifying, upgrade.StepVerify, deployer, touched, phase(2)),
			kind(upgrade.EventProven),
			"completed 2: record_version system_event free_slot"),
		Entry("phase 2 fails untouched: phase 1 was touched, so both go back, the last first (R4)",
			in(upgrade.InProgress, upgrade.StepDeploy, deployer, phase(2)),
			because(upgrade.EventWorkflowFailed, upgrade.CauseEnvironment),
			"rolling_back 2 deploying: close_workflow system_event restore_workflow(2) reset_clock"),
		Entry("phase 2 fails untouched and has no release to return to, as in the first upgrade ever: phase 1 goes back",
			in(upgrade.InProgress, upgrade.StepDeploy, deployer, unproven, before, phase(2)),
			because(upgrade.EventWorkflowFailed, upgrade.CauseEnvironment), goingBack),
		Entry("phase 2 fails perhaps touched, by an executor that is lost, and has no release to return to: phase 1 goes "+
			"back all the same",
			in(upgrade.InProgress, upgrade.StepDeploy, deployer, unproven, before, phase(2)),
			touching(because(upgrade.EventWorkflowFailed, upgrade.CauseEnvironment)), goingBack),
		Entry("phase 2 is not proven and has no release to return to: who would restore phase 1 is what failed",
			in(upgrade.Verifying, upgrade.StepVerify, deployer, touched, unproven, before, phase(2)),
			because(upgrade.EventDeadline, upgrade.CauseEnvironment), "failed 2: "+ended),
		Entry("phase 2 redeployed: probed as well", in(upgrade.RollingBack, upgrade.StepDeploy, deployer, touched, phase(2)),
			kind(upgrade.EventWorkflowCompleted),
			"rolling_back 2 verifying: probe(2) reset_clock"),
		Entry("phase 2 restored: phase 1 follows", in(upgrade.RollingBack, upgrade.StepVerify, deployer, touched, phase(2)),
			kind(upgrade.EventProven),
			"rolling_back 1 deploying: restore_workflow(1) reset_clock"),
		Entry("phase 1 restored: rolled back", in(upgrade.RollingBack, upgrade.StepVerify, deployer, touched),
			kind(upgrade.EventProven),
			"rolled_back 1: system_event free_slot"),
		Entry("phase 2 cannot be restored: it ends there (D6)", in(upgrade.RollingBack, upgrade.StepDeploy, deployer, touched,
			phase(2)), kind(upgrade.EventWorkflowFailed),
			"rollback_failed 2: "+ended),
	)

	It("remembers the first blame when the rollback fails too", func() {
		u, _, err := in(upgrade.RollingBack, upgrade.StepDeploy, touched,
			blamed("unhealthy")).Apply(because(upgrade.EventWorkflowFailed, upgrade.CauseEnvironment))
		Expect(err).NotTo(HaveOccurred())
		Expect(u.Cause).To(Equal(upgrade.CauseVersion))
		Expect(u.Message).To(Equal("unhealthy"))
	})

	It("tells which phase is left as it is, although it may be changed", func() {
		u := in(upgrade.InProgress, upgrade.StepDeploy, deployer, unproven, before, phase(2))
		after, _, err := u.Apply(touching(because(upgrade.EventWorkflowFailed, upgrade.CauseEnvironment)))
		Expect(err).NotTo(HaveOccurred())
		Expect([]any{after.Message, after.Left}).To(Equal([]any{"m", 2}))
		after, _, err = u.Apply(because(upgrade.EventWorkflowFailed, upgrade.CauseEnvironment))
		Expect(err).NotTo(HaveOccurred())
		Expect([]any{after.Message, after.Left}).To(Equal([]any{"m", 0}))
	})

	It("keeps cause, reason and message of a failure", func() {
		u, _, err := in(upgrade.InProgress, upgrade.StepDeploy).
			Apply(because(upgrade.EventWorkflowFailed, upgrade.CauseEnvironment))
		Expect(err).NotTo(HaveOccurred())
		Expect([]any{u.Cause, u.Reason, u.Message}).To(Equal([]any{upgrade.CauseEnvironment, "r", "m"}))
	})

	// Every sequence of events of this length, from a request on, for each kind of upgrade.
	It("keeps its invariants along every path", func() {
		starts := []upgrade.Upgrade{in(upgrade.Requested, ""), in(upgrade.Requested, "", deployer),
			in(upgrade.Requested, "", hello, units), in(upgrade.Requested, "", unproven)}
		events := []upgrade.Event{}
		for _, k := range upgrade.Events {
			events = append(events, quarantining(because(k, upgrade.CauseVersion)),
				touching(because(k, upgrade.CauseEnvironment)))
		}
		seen := map[upgrade.State]int{}
		visited := map[string]bool{}
		var walk func(u upgrade.Upgrade)
		walk = func(u upgrade.Upgrade) {
			for _, e := range events {
				after, effects, err := u.Apply(e)
				if err != nil {
					continue
				}
				check(u, after, effects)
				after.Message, after.Reason = "", ""
				key := fmt.Sprintf("%+v", after)
				if !visited[key] {
					visited[key] = true
					seen[after.State]++
					walk(after)
				}
			}
		}
		for _, u := range starts {
			walk(u)
		}
		Expect(seen).To(HaveLen(len(upgrade.States)-1), "every state but requested is reached")
	})
})

// check is what holds for every single move.
func check(before, after upgrade.Upgrade, effects []upgrade.Effect) {
	GinkgoHelper()
	has := map[upgrade.EffectKind]int{}
	for _, e := range effects {
		has[e.Kind]++
	}
	text := told(before, nil) + " -> " + told(after, effects)
	same := func(a, b bool) { GinkgoHelper(); Expect(a).To(Equal(b), text) }
	Expect(before.State.Open()).To(BeTrue(), text)
	same(has[upgrade.EffectRecordVersion] == 1, after.State == upgrade.Completed) // P4, I5
	same(has[upgrade.EffectFreeSlot] == 1, before.State.Running() && !after.State.Running())
	same(after.Step == upgrade.StepNone, !after.State.Running())
	Expect(has[upgrade.EffectStartWorkflow]+has[upgrade.EffectRestoreWorkflow]).To(BeNumerically("<=", 1), text)
	same(has[upgrade.EffectStartWorkflow]+has[upgrade.EffectRestoreWorkflow] == 1, after.Step == upgrade.StepDeploy)
	same(has[upgrade.EffectResetClock] == 1, after.State.Running())
	Expect(!after.State.Running() || (after.Phase >= 1 && after.Phase <= len(after.Phases()))).To(BeTrue(), text)
	Expect(has[upgrade.EffectQuarantine] == 0 || after.Cause == upgrade.CauseVersion).To(BeTrue(), text)
	Expect(after.State != upgrade.RollingBack || after.Touched).To(BeTrue(), text)
}

var _ = Describe("Phases", func() {
	DescribeTable("of a type",
		func(t component.Type, want ...upgrade.Phase) { Expect(upgrade.PhasesOf(t)).To(Equal(want)) },
		Entry("one of OpenAperture's own goes through deployer-oa", component.Manager,
			upgrade.Phase{Milestone: upgrade.ExecDeployOA}),
		Entry("a user's own goes through deployer", component.Type("billing"), upgrade.Phase{Milestone: upgrade.ExecDeploy}),
		Entry("the deployers replace each other", component.Deployer,
			upgrade.Phase{Milestone: upgrade.ExecDeployOA, Service: "deployer", ProbeQueue: upgrade.ExecDeploy},
			upgrade.Phase{Milestone: upgrade.ExecDeploy, Service: "deployer-oa", RepoSuffix: "_oa",
				ProbeQueue: upgrade.ExecDeployOA}),
	)
})
