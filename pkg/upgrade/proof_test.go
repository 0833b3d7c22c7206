package upgrade_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/module"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

const (
	commit = "1111111111111111111111111111111111111111"
	repo   = "https://git.example/builder"
)

var endedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func need(changes ...func(*upgrade.Need)) upgrade.Need {
	n := upgrade.Need{Type: component.Builder, Count: 1, Ref: "v2", Commit: commit,
		WorkflowBegan: endedAt.Add(-time.Minute), WorkflowEnded: endedAt,
		MinHealthy: 10 * time.Second, At: endedAt.Add(10 * time.Second), LiveWithin: 90 * time.Second}
	for _, c := range changes {
		c(&n)
	}
	return n
}

// mod is a module that has reported v2 since before the end and was last heard ten seconds after it, with changes.
func mod(hostname string, changes ...func(*module.Module)) module.Module {
	m := module.Module{Hostname: hostname, Type: component.Builder, Service: "builder", Status: module.Active,
		BootID: "b-" + hostname, SourceRepo: repo,
		SourceRepoGitRef: "v2", LastSeen: endedAt.Add(10 * time.Second), BootSince: endedAt.Add(-30 * time.Second),
		SteadySince: endedAt.Add(-30 * time.Second)}
	for _, c := range changes {
		c(&m)
	}
	return m
}

func reports(ref string) func(*module.Module) {
	return func(m *module.Module) { m.SourceRepoGitRef = ref }
}
func readAt(d time.Duration) func(*upgrade.Need) {
	return func(n *upgrade.Need) { n.At = endedAt.Add(d) }
}
func heard(d time.Duration) func(*module.Module) {
	return func(m *module.Module) { m.LastSeen = endedAt.Add(d) }
}
func steady(d time.Duration) func(*module.Module) {
	return func(m *module.Module) { m.SteadySince = endedAt.Add(d) }
}
func booted(d time.Duration) func(*module.Module) {
	return func(m *module.Module) { m.BootSince = endedAt.Add(d) }
}
func firstHeard(d time.Duration) func(*module.Module) {
	return func(m *module.Module) { m.FirstSeen = endedAt.Add(d) }
}
func rival(d time.Duration) func(*module.Module) {
	return func(m *module.Module) { m.RivalBootID, m.RivalSeen = "other", new(endedAt.Add(d)) }
}
func bootless(m *module.Module)                    { m.BootID = "" }
func stopped(m *module.Module)                     { m.Status = module.Inactive }
func ofType(t component.Type) func(*module.Module) { return func(m *module.Module) { m.Type = t } }
func service(s string) func(*module.Module)        { return func(m *module.Module) { m.Service = s } }

var _ = Describe("The proof", func() {
	DescribeTable("of modules",
		func(want upgrade.ProofReason, n upgrade.Need, modules ...module.Module) {
			p := upgrade.Prove(n, modules)
			Expect(p.Reason).To(Equal(want), p.String())
			Expect(p.OK()).To(Equal(want == upgrade.ProofComplete))
			Expect(p.String()).NotTo(Equal(string(p.Reason)))
		},
		Entry("one that reports the target steadily", upgrade.ProofComplete, need(), mod("a")),
		Entry("one that reports the target's commit", upgrade.ProofComplete, need(), mod("a", reports(commit))),
		Entry("one that reports a part of the commit only", upgrade.ProofOtherVersion, need(),
			mod("a", reports(commit[:10]))),
		Entry("one that reports nothing where no commit is known", upgrade.ProofComplete,
			need(func(n *upgrade.Need) { n.Commit = "" }),
			mod("a", reports(""), booted(-time.Second))),
		Entry("one that reports another version", upgrade.ProofOtherVersion, need(), mod("a", reports("v1"))),
		Entry("nobody", upgrade.ProofTooFew, need()),
		Entry("nobody, although nobody is needed: a count of none proves nothing", upgrade.ProofTooFew,
			need(func(n *upgrade.Need) { n.Count = 0 })),
		Entry("one of two", upgrade.ProofTooFew, need(func(n *upgrade.Need) { n.Count = 2 }), mod("a")),
		Entry("two of two", upgrade.ProofComplete, need(func(n *upgrade.Need) { n.Count = 2 }), mod("a"), mod("b")),
		Entry("enough, though an old one still talks", upgrade.ProofComplete, need(), mod("a"), mod("old", reports("v1"))),
		Entry("one that was last heard before the end", upgrade.ProofTooFew, need(), mod("a", heard(-time.Second))),
		Entry("one that was last heard at the very end", upgrade.ProofTooFew,
			need(func(n *upgrade.Need) { n.MinHealthy = 0 }), mod("a", heard(0))),
		Entry("one that was heard over less than min_healthy", upgrade.ProofTooFew, need(), mod("a", heard(9*time.Second))),
		Entry("one whose boot changed in between", upgrade.ProofTooFew, need(),
			mod("a", heard(15*time.Second), steady(6*time.Second))),
		Entry("one beat where min_healthy is 0", upgrade.ProofComplete, need(func(n *upgrade.Need) { n.MinHealthy = 0 }),
			mod("a", heard(time.Second), steady(time.Second))),
		Entry("one that was steady, then fell silent", upgrade.ProofTooFew, need(readAt(101*time.Second)), mod("a")),
		Entry("one that is not silent for long yet", upgrade.ProofComplete, need(readAt(100*time.Second)), mod("a")),
		Entry("two that were never there together", upgrade.ProofTooFew,
			need(readAt(8*time.Minute), func(n *upgrade.Need) { n.Count = 2 }),
			mod("a"), mod("b", heard(8*time.Minute))),
		Entry("one of an old version that fell silent says nothing", upgrade.ProofTooFew, need(readAt(8*time.Minute)),
			mod("a", reports("v1"))),
		Entry("one that has stopped", upgrade.ProofTooFew, need(), mod("a", stopped)),
		Entry("one under whose hostname another boot beats (E11)", upgrade.ProofDisputed, need(),
			mod("a", rival(5*time.Second))),
		Entry("one whose rival was last heard too long ago (E11)", upgrade.ProofComplete, need(),
			mod("a", rival(-81*time.Second))),
		Entry("two without, although a third one has a rival (E11)", upgrade.ProofComplete,
			need(func(n *upgrade.Need) { n.Count = 2 }), mod("a"), mod("b"), mod("c", rival(0))),
		Entry("one of another type", upgrade.ProofTooFew, need(), mod("a", ofType(component.Manager))),
		Entry("one of another service of the type", upgrade.ProofTooFew,
			need(func(n *upgrade.Need) { n.Service = "deployer" }), mod("a", service("deployer-oa"))),
		Entry("one of the service", upgrade.ProofComplete, need(func(n *upgrade.Need) { n.Service = "deployer" }),
			mod("a", service("deployer"))),
	)

	// Two instances were deployed by workflow: a was started anew, b ran the target already.
	deployed := func(n *upgrade.Need) {
		n.Count = 2
		n.Instances = []upgrade.Instance{{Unit: "builder@1.service", Hostname: "a", Applied: true},
			{Unit: "builder@2.service", Hostname: "b"}}
	}
	nameless := func(n *upgrade.Need) {
		n.Count = 2
		n.Instances = []upgrade.Instance{{Unit: "builder@1.service", Applied: true},
			{Unit: "builder@2.service", Applied: true}}
	}
	DescribeTable("of the instances that were deployed",
		func(want upgrade.ProofReason, missing []string, n upgrade.Need, modules ...module.Module) {
			p := upgrade.Prove(n, modules)
			Expect(p.Reason).To(Equal(want), p.String())
			Expect(p.Missing).To(Equal(missing))
		},
		Entry("all of them beat", upgrade.ProofComplete, nil, need(deployed), mod("a"), mod("b")),
		Entry("invented host names prove nothing (trust C3)", upgrade.ProofOtherHosts,
			[]string{"builder@1.service", "builder@2.service"},
			need(deployed), mod("x"), mod("y")),
		Entry("a third one does not stand in for a deployed one", upgrade.ProofOtherHosts, []string{"builder@2.service"},
			need(deployed), mod("a"), mod("x")),
		Entry("one that was started anew counts from a boot since then", upgrade.ProofOtherHosts,
			[]string{"builder@1.service"},
			need(deployed), mod("a", booted(-time.Hour)), mod("b")),
		Entry("one that was left alone counts with its old boot", upgrade.ProofComplete, nil, need(deployed), mod("a"),
			mod("b", booted(-time.Hour))),
		Entry("a boot of the predecessor's modules is not known", upgrade.ProofComplete, nil,
			need(deployed), mod("a", bootless, booted(-time.Hour)), mod("b")),
		Entry("one of them reports another version", upgrade.ProofOtherVersion, []string{"builder@2.service"},
			need(deployed), mod("a"), mod("b", reports("v1"))),
		Entry("one of them has a rival (E11)", upgrade.ProofDisputed, []string{"builder@2.service"}, need(deployed),
			mod("a"), mod("b", rival(0))),
		Entry("one of them is silent", upgrade.ProofTooFew, []string{"builder@2.service"}, need(deployed), mod("a")),
		Entry("none was deployed", upgrade.ProofTooFew, nil,
			need(func(n *upgrade.Need) { n.Instances = []upgrade.Instance{} }), mod("a")),
		Entry("names that nobody knew before: as many that were first heard since", upgrade.ProofComplete, nil,
			need(nameless), mod("c1", firstHeard(-time.Second)), mod("c2", firstHeard(time.Second))),
		Entry("one that was heard before the deploy proves no unnamed instance", upgrade.ProofOtherHosts,
			[]string{"builder@2.service"},
			need(nameless), mod("c1", firstHeard(-time.Second)), mod("old", firstHeard(-time.Hour))),
	)

	It("says how many instances it knows by new host names alone", func() {
		p := upgrade.Prove(need(nameless), []module.Module{mod("c1", firstHeard(0)), mod("c2", firstHeard(0)),
			mod("c3", firstHeard(0))})
		Expect(p.OK()).To(BeTrue())
		Expect(p.Unnamed).To(Equal(2))
		Expect(p.Hostnames).To(HaveLen(2))
	})

	DescribeTable("of a module that reports no version",
		func(want upgrade.ProofReason, m module.Module, unversioned []string) {
			p := upgrade.Prove(need(), []module.Module{m})
			Expect(p.Reason).To(Equal(want))
			Expect(p.Unversioned).To(Equal(unversioned), "the record says so")
		},
		Entry("booted since the workflow began", upgrade.ProofComplete, mod("a", reports(""), booted(-30*time.Second)),
			[]string{"a"}),
		Entry("that was there before", upgrade.ProofTooFew, mod("a", reports(""), booted(-time.Hour)), nil),
		Entry("nor a boot", upgrade.ProofComplete, mod("a", reports(""), booted(-time.Hour), bootless), []string{"a"}),
	)

	DescribeTable("of an overseer needs one of the proven to lead",
		func(want upgrade.ProofReason, leader string) {
			n := need(func(n *upgrade.Need) { n.Type, n.Count, n.LeaderHostname = component.Overseer, 2, leader })
			p := upgrade.Prove(n, []module.Module{mod("a", ofType(component.Overseer)), mod("b", ofType(component.Overseer)),
				mod("old", ofType(component.Overseer), reports("v1"))})
			Expect(p.Reason).To(Equal(want))
		},
		Entry("a new one leads", upgrade.ProofComplete, "b"),
		Entry("the old one leads", upgrade.ProofNoLeader, "old"),
		Entry("nobody leads", upgrade.ProofNoLeader, ""),
	)

	It("of an executor waits for its probe: alive is not enough, it must hear", func() {
		n := need(func(n *upgrade.Need) { n.ProbeWanted = true })
		Expect(upgrade.Prove(n, []module.Module{mod("a")}).Reason).To(Equal(upgrade.ProofNoProbe))
		n.ProbeAnswered = true
		Expect(upgrade.Prove(n, []module.Module{mod("a")}).OK()).To(BeTrue())
	})
})

var _ = Describe("The clock", func() {
	verifying := in(upgrade.Verifying, upgrade.StepVerify)
	overseer := verifying
	builder := in(upgrade.Verifying, upgrade.StepVerify, func(u *upgrade.Upgrade) { u.Type = component.Builder })
	deploying := in(upgrade.InProgress, upgrade.StepDeploy, func(u *upgrade.Upgrade) { u.Type = component.Builder })

	DescribeTable("runs",
		func(u upgrade.Upgrade, consuming, judge, want bool) {
			Expect(u.Runs(upgrade.Conditions{Consuming: consuming, Judge: judge})).To(Equal(want))
		},
		Entry("while we consume and somebody judges", builder, true, true, true),
		Entry("not in a verification without a judge", builder, true, false, false),
		Entry("in a deploy without a judge", deploying, true, false, true),
		Entry("never while we do not consume", deploying, false, true, false),
		Entry("in the verification of an overseer without a judge: that is the failure itself", overseer, true, false, true),
		Entry("not even there while we do not consume", overseer, false, false, false),
	)

	It("stands still while an order waits in line: the executor works on another order", func() {
		queued := upgrade.Conditions{Consuming: true, Judge: true, Queued: true}
		Expect(deploying.Runs(queued)).To(BeFalse())
		Expect(overseer.Runs(queued)).To(BeFalse())
	})

	DescribeTable("ticks",
		func(left, stalled, elapsed time.Duration, runs bool, absent, wantLeft, wantStalled time.Duration,
			want upgrade.Tick) {
			c := upgrade.Clock{Left: left, Stalled: stalled, TickedAt: endedAt}
			now := endedAt.Add(elapsed)
			after, tick := c.Tick(now, runs, endedAt.Add(absent), time.Hour)
			Expect(after).To(Equal(upgrade.Clock{Left: wantLeft, Stalled: wantStalled, TickedAt: now}))
			Expect(tick).To(Equal(want))
		},
		Entry("down while it runs", 20*time.Second, time.Duration(0), 5*time.Second, true, -time.Hour,
			15*time.Second, time.Duration(0), upgrade.TickGoesOn),
		Entry("to the deadline", 5*time.Second, time.Duration(0), 5*time.Second, true, -time.Hour,
			time.Duration(0), time.Duration(0), upgrade.TickDeadline),
		Entry("over all of the time in which its row was locked", 90*time.Second, time.Duration(0), time.Minute, true,
			-time.Hour,
			30*time.Second, time.Duration(0), upgrade.TickGoesOn),
		Entry("not while it stands still", 5*time.Second, time.Duration(0), 9*time.Second, false, -time.Hour,
			5*time.Second, 9*time.Second, upgrade.TickGoesOn),
		Entry("not over an absence of manager-api", 5*time.Second, time.Duration(0), time.Hour, true, time.Hour-time.Second,
			4*time.Second, time.Duration(0), upgrade.TickGoesOn),
		Entry("what stood still is forgotten when it runs again", 20*time.Second, 50*time.Minute, time.Second, true,
			-time.Hour,
			19*time.Second, time.Duration(0), upgrade.TickGoesOn),
		Entry("what has stood still for too long is abandoned", 5*time.Second, time.Hour, time.Second, false, -time.Hour,
			5*time.Second, time.Hour+time.Second, upgrade.TickAbandon),
		Entry("not backwards", 5*time.Second, time.Duration(0), -time.Hour, true, -2*time.Hour,
			5*time.Second, time.Duration(0), upgrade.TickGoesOn),
	)
})
