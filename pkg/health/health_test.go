package health_test

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/eligibility"
	"github.com/openaperture/openaperture/pkg/health"
	"github.com/openaperture/openaperture/pkg/module"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

const repo = "https://git.example/overseer"

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

type change func(*health.Input)

// given is an exchange in which overseer v2 is wanted, recorded and runs, with both deployers beside it, with changes.
func given(changes ...change) health.Input {
	in := health.Input{
		Refs: []component.Ref{{Type: component.Overseer, SourceRepo: repo, SourceRepoGitRef: "v2", AutoUpgradeEnabled: true}},
		Components: []component.Component{{ID: 1, Type: component.Overseer, SourceRepo: repo, SourceRepoGitRef: "v2",
			DeploymentRepo: "d", DeploymentRepoGitRef: "main", Strategy: component.Hourly, Proof: component.ProofModules}},
		Counts: []module.Count{
			{Type: component.Overseer, SourceRepoGitRef: "v2", Status: module.Active, Live: 2, Total: 2},
			{Type: component.Deployer, Service: "deployer", Status: module.Active, SourceRepoGitRef: "d1", Live: 1, Total: 1},
			{Type: component.Deployer, Service: "deployer-oa", Status: module.Active, SourceRepoGitRef: "d1", Live: 1, Total: 1},
		},
	}
	for _, c := range changes {
		c(&in)
	}
	return in
}

func withRecorded(ref string) change {
	return func(in *health.Input) {
		in.Components[0].SourceRepoGitRef = ref
		if ref == "" {
			in.Components[0].SourceRepo = ""
		}
	}
}
func withReported(ref string) change {
	return func(in *health.Input) { in.Counts[0].SourceRepoGitRef = ref }
}
func withLive(live, total int) change {
	return func(in *health.Input) { in.Counts[0].Live, in.Counts[0].Total = live, total }
}
func withStatus(s string) change        { return func(in *health.Input) { in.Counts[0].Status = s } }
func withoutRef(in *health.Input)       { in.Refs = nil }
func withoutComponent(in *health.Input) { in.Components = nil }
func withManual(in *health.Input)       { in.Components[0].Strategy = component.Manual }
func withUnits(in *health.Input)        { in.Components[0].Proof = component.ProofUnits }
func withOpen(in *health.Input) {
	in.Open = map[component.ID]upgrade.State{1: upgrade.Verifying}
}
func withQuarantine(in *health.Input) {
	in.Quarantined = map[component.Type][]upgrade.Version{component.Overseer: {{SourceRepo: repo, SourceRepoGitRef: "v2"}}}
}
func withoutExecutors(in *health.Input) { in.Counts = in.Counts[:1] }
func withStopped(in *health.Input) {
	in.Counts = append(in.Counts, module.Count{Type: component.Overseer, SourceRepoGitRef: "v1", Status: module.Inactive,
		Total: 3})
}

func withStray(in *health.Input) {
	in.Counts = append(in.Counts, module.Count{Type: component.Overseer, SourceRepoGitRef: "v1", Status: module.Active,
		Live: 1, Total: 1, Stayed: 1})
}

// withAbsence is a component whose instances have all been gone for an hour.
func withAbsence(r eligibility.AbsenceReason) change {
	return func(in *health.Input) {
		in.Counts = in.Counts[1:]
		in.Absence = map[component.ID]eligibility.Absence{1: {Reason: r, Since: now.Add(-time.Hour),
			DueAt: now.Add(time.Minute)}}
	}
}

func withRival(in *health.Input) { in.Counts[0].Disputed = 1 }

// commitOf is a full commit hash made of one digit.
func commitOf(digit string) string { return strings.Repeat(digit, 40) }

func withCommit(digit string) change {
	return func(in *health.Input) { in.Components[0].SourceCommitHash = commitOf(digit) }
}

// lineOf returns the line of a type.
func lineOf(in health.Input, t component.Type) health.Line {
	GinkgoHelper()
	for _, l := range health.Judge(in) {
		if l.Type == t {
			return l
		}
	}
	Fail("no line of type " + string(t))
	return health.Line{}
}

var _ = Describe("Health", func() {
	It("of a component whose instances are all gone says since when, and when its repair is due (fault 17)", func() {
		l := lineOf(given(withAbsence(eligibility.RepairWaits)), component.Overseer)
		Expect([]any{*l.MissingSince, *l.RepairDueAt}).To(Equal([]any{now.Add(-time.Hour), now.Add(time.Minute)}))
		Expect(l.Message).To(Equal("v2 is recorded, and nothing of the component has been heard since " +
			"2026-03-01T11:00:00Z: the proven release is deployed again if that lasts until 2026-03-01T12:01:00Z"))
		l = lineOf(given(), component.Overseer)
		Expect(l.MissingSince).To(BeNil())
		Expect(l.RepairDueAt).To(BeNil())
	})

	DescribeTable("of a type has a verdict, an action and its reason",
		func(in health.Input, v health.Verdict, a health.Action, r health.Reason) {
			l := lineOf(in, component.Overseer)
			Expect([]any{l.Verdict, l.Action, l.Reason}).To(Equal([]any{v, a, r}), l.Message)
			Expect(len(l.Message)).To(BeNumerically(">", 20))
		},
		Entry("wanted, recorded and running", given(), health.Healthy, health.None, health.AsDesired),
		Entry("old ones that stopped as they should do not matter", given(withStopped), health.Healthy, health.None,
			health.AsDesired),
		Entry("modules that report no version do not contradict", given(withReported("")), health.Healthy, health.None,
			health.AsDesired),
		Entry("another version is recorded", given(withRecorded("v1")), health.Outdated, health.Upgrade, health.UpgradeDue),
		Entry("another version runs than is recorded", given(withReported("v1")), health.Outdated, health.Upgrade,
			health.UpgradeDue),
		Entry("another version runs beside, which the upgrade left alone", given(withStray), health.Unexpected, health.Stop,
			health.StrayModules),
		Entry("that also of a manual component", given(withStray, withManual), health.Unexpected, health.Stop,
			health.StrayModules),
		Entry("that while an upgrade is open", given(withStray, withOpen), health.Unexpected, health.None,
			health.UpgradeRunning),
		Entry("that alone, and nothing of the recorded version", given(withStray, withLive(0, 2)), health.Missing,
			health.Deploy, health.NothingLive),
		Entry("that, and another version is wanted", given(withStray, withRecorded("v1")), health.Outdated, health.Upgrade,
			health.UpgradeDue),
		Entry("the commit of what is recorded runs", given(withCommit("1"), withReported(commitOf("1"))), health.Healthy,
			health.None, health.AsDesired),
		Entry("an older commit of what is recorded runs", given(withCommit("1"), withReported(commitOf("2"))),
			health.Outdated, health.Upgrade, health.UpgradeDue),
		Entry("it runs and nothing is recorded", given(withRecorded("")), health.Outdated, health.Upgrade, health.UpgradeDue),
		Entry("outdated while an upgrade is open", given(withRecorded("v1"), withOpen), health.Outdated, health.None,
			health.UpgradeRunning),
		Entry("outdated and manual", given(withRecorded("v1"), withManual), health.Outdated, health.None,
			health.Reason("strategy_manual")),
		Entry("outdated and quarantined", given(withRecorded("v1"), withQuarantine), health.Outdated, health.None,
			health.Reason("quarantined")),
		Entry("outdated and nobody to execute it", given(withRecorded("v1"), withoutExecutors), health.Outdated, health.None,
			health.Reason("no_executor")),
		Entry("nothing runs and nothing was ever recorded", given(withRecorded(""), withLive(0, 0)), health.Missing,
			health.Deploy, health.NeverDeployed),
		Entry("nothing runs of an older version", given(withRecorded("v1"), withLive(0, 2)), health.Missing, health.Deploy,
			health.NothingLive),
		Entry("all instances are gone, and a repair is due (fault 17)", given(withAbsence(eligibility.RepairDue)),
			health.Missing, health.Deploy, health.Reason("repair_due")),
		Entry("… that is due in a while", given(withAbsence(eligibility.RepairWaits)), health.Missing, health.Deploy,
			health.Reason("repair_waits")),
		Entry("… that has not helped", given(withAbsence(eligibility.RepairTried)), health.Missing, health.Deploy,
			health.Reason("repair_tried")),
		Entry("… while nobody covers", given(withAbsence(eligibility.NotCovered)), health.Missing, health.Deploy,
			health.Reason("not_covered")),
		Entry("… of a type that is proven by its runtime", given(withUnits, withAbsence(eligibility.RepairDue)),
			health.Missing, health.Deploy, health.Reason("repair_due")),
		Entry("… that sends no heartbeats", given(withUnits, withAbsence(eligibility.NeverHeard)), health.Healthy,
			health.None, health.ProvenByRuntime),
		Entry("… of a manual component", given(withManual, withAbsence(eligibility.RepairDue)), health.Missing,
			health.None, health.Reason("strategy_manual")),
		Entry("… while an upgrade is open", given(withOpen, withAbsence(eligibility.RepairDue)), health.Missing,
			health.None, health.UpgradeRunning),
		Entry("… and another version is wanted", given(withRecorded("v1"), withAbsence(eligibility.RepairDue)),
			health.Missing, health.Deploy, health.NothingLive),
		Entry("… and the wanted version has failed here: the recorded one comes back",
			given(withRecorded("v1"), withQuarantine, withAbsence(eligibility.RepairDue)), health.Missing, health.Deploy,
			health.Reason("repair_due")),
		Entry("nothing runs of the recorded, desired version", given(withLive(0, 2)), health.Missing, health.Deploy,
			health.NothingLive),
		Entry("nothing runs while an upgrade is open", given(withLive(0, 2), withOpen), health.Missing, health.None,
			health.UpgradeRunning),
		Entry("nothing runs, and manual", given(withRecorded(""), withLive(0, 0), withManual), health.Missing, health.None,
			health.Reason("strategy_manual")),
		Entry("one of two is silent", given(withLive(1, 2)), health.Degraded, health.None, health.SomeSilent),
		Entry("one of two is silent while an upgrade is open", given(withLive(1, 2), withOpen), health.Degraded, health.None,
			health.UpgradeRunning),
		Entry("two hosts have one hostname (E11)", given(withRival), health.Degraded, health.None, health.HostnameTaken),
		Entry("that while an upgrade is open: it cannot be proven (E11)", given(withRival, withOpen),
			health.Degraded, health.None, health.HostnameTaken),
		Entry("that of another version than is recorded (E11)", given(withRival, withRecorded("v1")),
			health.Degraded, health.None, health.HostnameTaken),
		Entry("no gold standard", given(withoutRef), health.Unknown, health.None, health.NoGoldStandard),
		Entry("no component wants it", given(withoutComponent), health.Unexpected, health.Stop, health.NoComponent),
		Entry("no component wants it and it is gone", given(withoutComponent, withLive(0, 1), withStatus(module.Inactive)),
			health.Unexpected, health.None, health.NoComponent),
		Entry("a type without heartbeats, as recorded", given(withUnits, withLive(0, 0)), health.Healthy, health.None,
			health.ProvenByRuntime),
		Entry("a type without heartbeats, of another version", given(withUnits, withLive(0, 0), withRecorded("v1")),
			health.Outdated, health.Upgrade, health.UpgradeDue),
		Entry("a type without heartbeats, never deployed", given(withUnits, withLive(0, 0), withRecorded("")),
			health.Missing, health.Deploy, health.NeverDeployed),
	)

	It("of the deployers is degraded while one of the pair is not heard (I7)", func() {
		in := given(func(in *health.Input) {
			in.Refs = append(in.Refs, component.Ref{Type: component.Deployer, SourceRepo: "r", SourceRepoGitRef: "d1",
				AutoUpgradeEnabled: true})
			in.Components = append(in.Components, component.Component{ID: 2, Type: component.Deployer, SourceRepo: "r",
				SourceRepoGitRef: "d1"})
		})
		Expect(lineOf(in, component.Deployer).Verdict).To(Equal(health.Healthy))
		in.Counts = in.Counts[:2]
		l := lineOf(in, component.Deployer)
		Expect([]any{l.Verdict, l.Action, l.Reason}).To(Equal([]any{health.Degraded, health.Deploy, health.PairIncomplete}))
	})

	It("has a line for every component and for every type that runs, by type", func() {
		var types []component.Type
		for _, l := range health.Judge(given()) {
			types = append(types, l.Type)
		}
		Expect(types).To(Equal([]component.Type{component.Deployer, component.Overseer}))
	})

	It("names the hostnames of two hosts, and both boots (E11)", func() {
		in := given(withRival, func(in *health.Input) {
			in.Now, in.LiveWithin = now, 90*time.Second
			in.Modules = []module.Module{{Hostname: "h1", Type: component.Overseer, Status: module.Active, LastSeen: now,
				BootID: "a", RivalBootID: "b", RivalSeen: new(now.Add(-time.Minute))},
				{Hostname: "h2", Type: component.Overseer, Status: module.Active, LastSeen: now, RivalBootID: "gone",
					RivalSeen: new(now.Add(-time.Hour))}}
		})
		l := lineOf(in, component.Overseer)
		Expect(l.Message).To(HavePrefix("two hosts beat under each of h1, and neither proves a version: give each host"))
		Expect([]string{l.Running[0].RivalBootID, l.Running[1].RivalBootID}).To(Equal([]string{"b", ""}))
		in.Modules = nil
		Expect(lineOf(in, component.Overseer).Message).To(HavePrefix("two hosts beat under 1 hostname(s)"))
	})

	It("shows desired, recorded and what runs", func() {
		modules := []module.Module{
			{Hostname: "b", Type: component.Overseer, Status: module.Active, SourceRepoGitRef: "v2",
				LastSeen: now.Add(-time.Minute)},
			{Hostname: "a", Type: component.Overseer, Status: module.Active, SourceRepoGitRef: "v2",
				LastSeen: now.Add(-2 * time.Minute)},
		}
		in := given(func(in *health.Input) { in.Now, in.LiveWithin, in.Modules = now, 90*time.Second, modules })
		in.Counts = []module.Count{{Type: component.Overseer, SourceRepoGitRef: "v2", Status: module.Active, Total: 2,
			Live: 1}}
		l := lineOf(in, component.Overseer)
		Expect(*l.Desired).To(Equal(upgrade.Version{SourceRepo: repo, SourceRepoGitRef: "v2"}))
		Expect(*l.Recorded).To(Equal(*l.Desired))
		Expect([]int{l.Live, l.Total}).To(Equal([]int{1, 2}))
		Expect([]string{l.Running[0].Hostname, l.Running[1].Hostname}).To(Equal([]string{"a", "b"}))
		Expect([]bool{l.Running[0].Live, l.Running[1].Live}).To(Equal([]bool{false, true}))
		Expect(l.Verdict).To(Equal(health.Degraded))
	})
})
