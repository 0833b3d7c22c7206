package soak_test

import (
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
	"github.com/openaperture/openaperture/deploy/local/internal/soak"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return noon.Add(-d) }

// sound is a stack that has upgraded its overseers from v1 to v2, and is just upgrading its deployers.
func sound() soak.Observation {
	finished := ago(time.Minute)
	o := soak.Observation{
		Now: noon,
		Components: []soak.Component{{ID: 1, Type: component.Manager, Recorded: "v1"},
			{ID: 2, Type: component.Overseer, Recorded: "v2"},
			{ID: 3, Type: component.Deployer, Recorded: "v1"}},
		Upgrades: []soak.Upgrade{
			{ID: "a", ComponentID: 2, Type: component.Overseer, State: upgrade.Completed, Phase: 1, From: "v1", To: "v2",
				Created: ago(2 * time.Minute), Finished: &finished},
			{ID: "b", ComponentID: 3, Type: component.Deployer, State: upgrade.Verifying, Phase: 1, Step: upgrade.StepVerify,
				From: "v1", To: "v2", Created: ago(time.Minute)},
		},
		Workflows: []soak.Workflow{{ID: "wa", UpgradeID: "a", Phase: 1, Completed: true, Ended: &finished},
			{ID: "wb", UpgradeID: "b", Phase: 1}},
		Orders: []soak.Order{
			{ID: "oa", WorkflowID: "wa", Milestone: messages.MilestoneDeployOA, State: "completed", Token: 7, ResultToken: 7},
			{ID: "ob", WorkflowID: "wb", Milestone: messages.MilestoneDeployOA, State: "claimed", Token: 9},
			{ID: "or", WorkflowID: "wr", Milestone: messages.MilestoneResolve, State: "claimed", Token: 10}},
		Leases: []soak.Lease{{Name: "overseer/1", Holder: "h.overseer-1", Token: 8}},
		Modules: []soak.Module{{Hostname: "simulated-0001", Service: "simulated", Status: "active",
			LastSeen: ago(time.Second)}},
		Events: []soak.SystemEvent{{Type: "upgrade_completed", UpgradeID: "a"}},
		Journal: []soak.Entry{
			{Seq: 1, At: ago(3 * time.Minute), Subject: "exchange/1", Code: "leader_changed", Term: 5},
			{Seq: 2, Subject: "upgrade/a", Code: "requested"},
			{Seq: 3, Subject: "upgrade/a", Code: "eligible", Event: upgrade.EventStart, From: upgrade.Requested,
				To: upgrade.InProgress, Term: 5},
			{Seq: 4, Subject: "workflow/wa", Code: "order_claimed", OrderID: "oa", Token: 6},
			{Seq: 5, Subject: "workflow/wa", Code: "order_claimed", OrderID: "oa", Token: 7},
			{Seq: 6, Subject: "upgrade/a", Code: "workflow_completed", Event: upgrade.EventWorkflowCompleted,
				From: upgrade.InProgress, To: upgrade.Verifying},
			{Seq: 7, Subject: "exchange/1", Code: "leader_resigned", Term: 5},
			{Seq: 8, At: ago(70 * time.Second), Subject: "exchange/1", Code: "leader_changed", Term: 8},
			{Seq: 9, Subject: "upgrade/a", Code: "proven", Event: upgrade.EventProven, From: upgrade.Verifying,
				To: upgrade.Completed, Term: 8},
			{Seq: 10, Subject: "upgrade/b", Code: "requested"},
			{Seq: 11, Subject: "upgrade/b", Code: "eligible", Event: upgrade.EventStart, From: upgrade.Requested,
				To: upgrade.InProgress, Term: 8},
			{Seq: 12, Subject: "workflow/wb", Code: "order_claimed", OrderID: "ob", Token: 9},
			{Seq: 13, Subject: "upgrade/b", Code: "workflow_completed", Event: upgrade.EventWorkflowCompleted,
				From: upgrade.InProgress, To: upgrade.Verifying},
		},
		DeadLetters: map[string]int{"local.overseer_error": 0},
		Units:       map[string]string{},
		Told: soak.Told{Bad: map[string]component.Type{"v3": component.Deployer},
			Beating: map[string]time.Time{"simulated-0001": noon},
			Silent:  map[string]bool{"simulated-0000": true},
			Struck:  map[string]time.Time{}, Inactive: 20 * time.Second, Delete: 40 * time.Second},
	}
	for _, v := range stack.Own {
		ref := map[component.Type]string{component.Manager: "v1", component.Overseer: "v2", component.Deployer: "v1"}[v.Type]
		for i := 1; i <= v.Instances; i++ {
			o.Units[v.Unit(i)] = "active"
			o.Processes = append(o.Processes, proc.Process{PID: 100 + i, Binary: v.Name, Ref: ref,
				Hostname: "h." + v.Name + "-1"})
			o.Modules = append(o.Modules, soak.Module{Hostname: v.Unit(i), Service: v.Name, Status: "active", Ref: ref,
				LastSeen: noon})
		}
	}
	return o
}

// broken are the ids of the invariants that two observations break.
func broken(before, now soak.Observation) []string {
	var ids []string
	for _, v := range soak.Check(before, now) {
		ids = append(ids, v.Invariant.ID)
	}
	return slices.Compact(ids)
}

func entry(e soak.Entry) func(_, now *soak.Observation) {
	return func(_, now *soak.Observation) {
		e.Seq, e.At = now.Journal[len(now.Journal)-1].Seq+1, noon
		now.Journal = append(now.Journal, e)
	}
}

func both(changes ...func(_, now *soak.Observation)) func(before, now *soak.Observation) {
	return func(before, now *soak.Observation) {
		for _, change := range changes {
			change(before, now)
		}
	}
}

var _ = DescribeTable("An observation", func(change func(before, now *soak.Observation), want ...string) {
	before, now := sound(), sound()
	change(&before, &now)
	Expect(broken(before, now)).To(ConsistOf(want))
},
	Entry("of a sound stack breaks nothing", func(_, _ *soak.Observation) {}),

	Entry("shows two open upgrades of a component (I1)", func(_, now *soak.Observation) {
		now.Upgrades = append(now.Upgrades, soak.Upgrade{ID: "c", ComponentID: 3, Type: component.Deployer,
			State: upgrade.Requested, Created: noon})
		now.Journal = append(now.Journal, soak.Entry{Seq: 14, Subject: "upgrade/c", Code: "requested"})
	}, "I1"),
	Entry("shows two running upgrades of an exchange (I1)", func(_, now *soak.Observation) {
		now.Upgrades = append(now.Upgrades, soak.Upgrade{ID: "c", ComponentID: 1, Type: component.Manager,
			State: upgrade.InProgress,
			From:  "v1", To: "v2", Created: noon})
		now.Journal = append(now.Journal, soak.Entry{Seq: 14, Subject: "upgrade/c", Code: "requested"},
			soak.Entry{Seq: 15, Subject: "upgrade/c", Code: "eligible", Event: upgrade.EventStart, From: upgrade.Requested,
				To: upgrade.InProgress})
	}, "I1"),

	Entry("misses an upgrade that was accepted (I2)", func(_, now *soak.Observation) {
		now.Upgrades = now.Upgrades[:1]
	}, "I2"),
	Entry("shows an upgrade that is open for too long (I2)", func(_, now *soak.Observation) {
		now.Upgrades[1].Created = ago(11 * time.Minute)
	}, "I2"),
	Entry("shows an upgrade that is open for long, and people were told (I2)", func(_, now *soak.Observation) {
		now.Upgrades[1].Created = ago(11 * time.Minute)
		now.Events = append(now.Events, soak.SystemEvent{Type: "upgrade_failed", UpgradeID: "b"})
	}),
	Entry("shows a workflow that outlives its upgrade (I2)", func(_, now *soak.Observation) {
		now.Workflows[0].Ended = nil
	}, "I2"),
	Entry("shows an order that outlives its upgrade (I2)", func(_, now *soak.Observation) {
		now.Orders = append(now.Orders, soak.Order{ID: "oc", WorkflowID: "wa", Milestone: messages.MilestoneConfig,
			State: "open"})
	}, "I2"),

	Entry("shows a lease whose token fell (I3)", func(_, now *soak.Observation) { now.Leases[0].Token = 7 }, "I3"),
	Entry("shows an order whose token fell (I3)", func(before, _ *soak.Observation) { before.Orders[1].Token = 10 }, "I3"),
	Entry("shows an order that was completed under an old token (I3)", func(_, now *soak.Observation) {
		now.Orders[0].ResultToken = 6
	}, "I3"),
	Entry("shows a claim under a token that was given before (I3)", both(
		entry(soak.Entry{Subject: "workflow/wb", Code: "order_claimed", OrderID: "ob", Token: 9})), "I3"),

	Entry("shows an upgrade that has left its terminal state (I4)", func(before, now *soak.Observation) {
		before.Upgrades[1].State, before.Upgrades[1].Finished = upgrade.Failed, &noon
	}, "I4"),
	Entry("shows an order that has left its terminal state (I4)", func(before, _ *soak.Observation) {
		before.Orders[1].State = "failed"
	}, "I4"),

	Entry("shows a recorded version that nobody has proven (I5)", func(_, now *soak.Observation) {
		now.Components[0].Recorded = "v2"
		now.Processes[0].Ref = "v2"
	}, "I5"),
	Entry("shows an old version recorded after a newer one was proven (I5)", func(_, now *soak.Observation) {
		now.Components[1].Recorded = "v1"
		now.Upgrades[0].Finished = &noon // both may still be seen as processes
	}, "I4", "I5"),
	Entry("shows a process of a version that no upgrade brings (I5)", func(_, now *soak.Observation) {
		now.Processes[0].Ref = "v2"
	}, "I5"),
	Entry("shows a process of the version that an upgrade brings (I5)", func(_, now *soak.Observation) {
		now.Processes[3].Ref = "v2"
	}),
	Entry("shows the service behind a forgetful one (I5)",
		func(_, now *soak.Observation) { now.Processes[0].Ref = "v1/real" }),

	Entry("misses a module that beats (I6)", func(_, now *soak.Observation) { now.Modules = now.Modules[1:] }, "I6"),
	Entry("misses a module that was told to be silent (I6)", func(before, _ *soak.Observation) {
		before.Modules = append(before.Modules, soak.Module{Hostname: "simulated-0000", Status: "inactive"})
	}),
	Entry("shows a module inactive that beats (I6)", func(_, now *soak.Observation) { now.Modules[0].Status = "inactive" },
		"I6"),
	Entry("shows that a silent module was deleted in covered time (I6)", both(
		entry(soak.Entry{Subject: "exchange/1", Code: "module_deleted", Hostnames: []string{"simulated-0000"}}))),
	Entry("shows that a module of ours was deleted (I6)", both(
		entry(soak.Entry{Subject: "exchange/1", Code: "module_deleted", Hostnames: []string{"h.overseer-1"}})), "I6"),
	Entry("shows that a module was deleted by a leader that had not listened for so long (I6)", both(
		entry(soak.Entry{Subject: "exchange/1", Code: "leader_resigned", Term: 8}),
		entry(soak.Entry{Subject: "exchange/1", Code: "leader_changed", Term: 10}),
		entry(soak.Entry{Subject: "exchange/1", Code: "module_deleted", Hostnames: []string{"simulated-0000"}})), "I6"),

	Entry("shows deployer-oa in a version that the deployer has not proven (I7)", func(_, now *soak.Observation) {
		now.Processes[4].Ref = "v2"
	}, "I7"),
	Entry("shows deployer-oa in a version that the deployer has proven (I7)", func(_, now *soak.Observation) {
		now.Processes[4].Ref, now.Upgrades[1].Phase = "v2", 2
	}),
	Entry("shows both executors down (I7)", func(_, now *soak.Observation) {
		now.Units["deployer@1.service"], now.Units["deployer-oa@1.service"] = "inactive", "failed"
	}, "I7"),
	Entry("shows both executors down, one of which was killed (I7)", func(_, now *soak.Observation) {
		now.Units["deployer@1.service"], now.Units["deployer-oa@1.service"] = "inactive", "failed"
		now.Told.Struck["deployer-oa@1.service"] = ago(time.Second)
	}),
	Entry("shows no units, as unitd is stopped (I7)", func(_, now *soak.Observation) { now.Units = nil }),

	Entry("shows two workflows of a phase (I8)", func(_, now *soak.Observation) {
		now.Workflows = append(now.Workflows, soak.Workflow{ID: "wc", UpgradeID: "b", Phase: 1})
	}, "I8"),
	Entry("shows the workflow of a phase and that of its way back (I8)", func(_, now *soak.Observation) {
		now.Workflows = append(now.Workflows, soak.Workflow{ID: "wc", UpgradeID: "b", Phase: 1, Restoring: true})
	}),
	Entry("shows two events of one end (I8)", func(_, now *soak.Observation) {
		now.Events = append(now.Events, now.Events[0])
	}, "I8"),
	Entry("shows two answers to a probe (I8)", both(
		entry(soak.Entry{Subject: "upgrade/b", Code: "probe_answered", OrderID: "op"}),
		entry(soak.Entry{Subject: "upgrade/b", Code: "probe_answered", OrderID: "op"})), "I8"),
	Entry("shows two completed upgrades to one version (I8)", func(_, now *soak.Observation) {
		now.Upgrades[1].State, now.Upgrades[1].ComponentID, now.Upgrades[1].Finished = upgrade.Completed, 2, &noon
		now.Journal = append(now.Journal, soak.Entry{Seq: 14, Subject: "upgrade/b", Event: upgrade.EventProven,
			From: upgrade.Verifying,
			To:   upgrade.Completed, Term: 8})
		now.Orders[1].State, now.Workflows[1].Ended = "completed", &noon
	}, "I8"),

	Entry("shows a state that the journal does not explain (I9)", func(_, now *soak.Observation) {
		now.Upgrades[1].State = upgrade.InProgress
	}, "I9"),
	Entry("shows a move from another state than the upgrade had (I9)", both(entry(soak.Entry{Subject: "upgrade/b",
		Event: upgrade.EventProven, From: upgrade.InProgress, To: upgrade.Verifying, Term: 8})), "I9"),
	Entry("shows an upgrade without an entry of its request (I9)", func(_, now *soak.Observation) {
		now.Journal = slices.Delete(now.Journal, 9, 10)
	}, "I9"),
	Entry("shows a claim without its entry (I9)", func(_, now *soak.Observation) { now.Orders[1].Token = 10 }, "I9"),
	Entry("misses entries of the journal that were there (I9)", func(before, _ *soak.Observation) {
		before.Journal = append(before.Journal, soak.Entry{Seq: 14, Subject: "component/1"})
	}, "I9"),

	Entry("shows a secret (I10)", func(_, now *soak.Observation) { now.Leaked = []string{"a log contains the secret x"} },
		"I10"),
	Entry("shows many more goroutines at rest than before (I11)", func(before, now *soak.Observation) {
		before.Resources = []soak.Resources{{Name: "unitd", Goroutines: 10, Files: 10}}
		now.Resources = []soak.Resources{{Name: "unitd", Goroutines: 41, Files: 10}}
	}, "I11"),
	Entry("shows many more open files at rest than before (I11)", func(before, now *soak.Observation) {
		before.Resources = []soak.Resources{{Name: "unitd", Goroutines: 10, Files: 10}}
		now.Resources = []soak.Resources{{Name: "unitd", Goroutines: 10, Files: 41}}
	}, "I11"),
	Entry("shows a few more (I11)", func(before, now *soak.Observation) {
		before.Resources = []soak.Resources{{Name: "unitd", Goroutines: 10, Files: 10}}
		now.Resources = []soak.Resources{{Name: "unitd", Goroutines: 40, Files: 40}}
	}),

	Entry("shows messages published without a confirm (I12)", func(_, now *soak.Observation) { now.Outbox.Unproven = 1 },
		"I12"),
	Entry("shows messages published that were never sent (I12)",
		func(_, now *soak.Observation) { now.Outbox.Forgotten = 1 }, "I12"),
	Entry("shows a dead letter (I12)", func(_, now *soak.Observation) { now.DeadLetters["local.overseer_error"] = 1 },
		"I12"),

	Entry("shows a message that waits for too long (I13)", func(_, now *soak.Observation) {
		now.Outbox = soak.Outbox{Waiting: 1, Oldest: 2 * time.Minute}
	}, "I13"),
	Entry("shows a message that waits since a server was away (I13)", func(_, now *soak.Observation) {
		now.Outbox, now.Told.Disturbed = soak.Outbox{Waiting: 1, Oldest: 2 * time.Minute}, ago(time.Minute)
	}),
	Entry("shows a message that still waits after the faults (I13)", func(_, now *soak.Observation) {
		now.Outbox, now.Told.Ended = soak.Outbox{Waiting: 1, Oldest: 40 * time.Second}, ago(35*time.Second)
	}, "I13"),
	Entry("shows a message that was just written after the faults (I13)", func(_, now *soak.Observation) {
		now.Outbox, now.Told.Ended = soak.Outbox{Waiting: 1, Oldest: time.Second}, ago(time.Minute)
	}),

	Entry("shows a judgement while nobody led (I14)", both(
		entry(soak.Entry{Subject: "exchange/1", Code: "leader_resigned", Term: 8}),
		entry(soak.Entry{Subject: "exchange/1", Code: "module_inactive", Hostnames: []string{"simulated-0000"}})), "I14"),
	Entry("shows a judgement under an old term (I14)", func(_, now *soak.Observation) { now.Journal[10].Term = 5 }, "I14"),
	Entry("shows a term that fell (I14)", both(entry(soak.Entry{Subject: "exchange/1", Code: "leader_changed", Term: 7})),
		"I14"),

	Entry("shows a good version in quarantine (P4)", func(_, now *soak.Observation) {
		now.Quarantines = []soak.Quarantine{{Type: component.Overseer, Ref: "v3"}}
	}, "P4"),
	Entry("shows a bad version in quarantine (P4)", func(_, now *soak.Observation) {
		now.Quarantines = []soak.Quarantine{{Type: component.Deployer, Ref: "v3"}}
	}),
	Entry("shows a bad version that is proven (P4)", func(_, now *soak.Observation) {
		now.Told.Bad["v2"] = component.Overseer
	}, "P4"),
	Entry("shows a good version that was blamed (P4)", func(_, now *soak.Observation) {
		now.Upgrades[1].Cause = upgrade.CauseVersion
	}, "P4"),
	Entry("shows a way back that failed (P4)", func(before, now *soak.Observation) {
		before.Upgrades, now.Orders[1].State, now.Workflows[1].Ended = before.Upgrades[:1], "closed", &noon
		now.Upgrades[1].State = upgrade.RollbackFailed
		now.Journal = append(now.Journal, soak.Entry{Seq: 14, Subject: "upgrade/b", Event: upgrade.EventWorkflowFailed,
			From: upgrade.Verifying,
			To:   upgrade.RollbackFailed})
	}, "P4"),
)

var _ = Describe("The invariants", func() {
	It("are I1 to I14, and P4", func() {
		var ids []string
		for _, i := range soak.Invariants {
			ids = append(ids, i.ID)
		}
		Expect(ids).To(Equal([]string{"I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10", "I11", "I12", "I13", "I14",
			"P4"}))
	})
})

var _ = DescribeTable("At rest", func(change func(*soak.Observation), want string) {
	o := sound()
	o.Upgrades[1].State, o.Upgrades[1].To = upgrade.Completed, "v1" // nothing is under way
	change(&o)
	if want == "" {
		Expect(soak.Amiss(o)).To(Succeed())
		return
	}
	Expect(soak.Amiss(o)).To(MatchError(ContainSubstring(want)))
},
	Entry("all is right", func(*soak.Observation) {}, ""),
	Entry("an upgrade is open", func(o *soak.Observation) { o.Upgrades[1].State = upgrade.Verifying },
		"1 upgrades are open"),
	Entry("a message waits", func(o *soak.Observation) { o.Outbox.Waiting = 2 }, "2 messages wait"),
	Entry("a unit is down", func(o *soak.Observation) { o.Units["deployer@1.service"] = "failed" },
		"deployer@1.service is failed"),
	Entry("unitd does not answer", func(o *soak.Observation) { o.Units = nil }, "unitd does not answer"),
	Entry("a process runs another version", func(o *soak.Observation) { o.Processes[0].Ref = "v2" },
		"manager-api runs v2, not v1"),
	Entry("a process is missing", func(o *soak.Observation) { o.Processes = o.Processes[1:] },
		"0 processes and 1 active modules of manager-api"),
	Entry("a module reports another version", func(o *soak.Observation) { o.Modules[1].Ref = "v2" }, "reports v2, not v1"),
	Entry("a module is inactive", func(o *soak.Observation) { o.Modules[1].Status = "inactive" },
		"1 processes and 0 active modules"),
)
