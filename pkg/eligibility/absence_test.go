package eligibility_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/eligibility"
	"github.com/openaperture/openaperture/pkg/module"
	"github.com/openaperture/openaperture/pkg/silence"
)

// absent is what Absent judges on. Times are so long before now.
type absent struct {
	recorded               string
	proof                  component.ProofKind
	live                   int
	heard, tried, checked  time.Duration // 0: never
	covered, coveredBefore time.Duration // 0: nobody covers; until when
}

var _ = Describe("The absence of a component", func() {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *time.Time {
		if d == 0 {
			return nil
		}
		return new(now.Add(-d))
	}
	judge := func(a absent) eligibility.Absence {
		c := component.Component{ID: 1, Type: "billing", SourceRepo: repo, SourceRepoGitRef: a.recorded, Proof: a.proof}
		counts := []module.Count{{Type: "billing", Live: a.live, Total: 2}, {Type: "other", Live: 1, Total: 1}}
		var covered silence.Covered
		if a.covered > 0 {
			covered = silence.Covered{Since: now.Add(-a.covered), Until: now.Add(-a.coveredBefore)}
		}
		return eligibility.Absent(c, counts, component.Heard{ComponentID: 1, LastAt: ago(a.heard), TriedAt: ago(a.tried),
			CheckedAt: ago(a.checked)}, covered, 10*time.Minute)
	}
	// gone is a component that was proven an hour ago, and whose instances have been silent for 15 minutes.
	gone := func(changes ...func(*absent)) absent {
		a := absent{recorded: "v1", proof: component.ProofModules, heard: 15 * time.Minute, tried: time.Hour,
			checked: 30 * time.Minute, covered: 2 * time.Hour}
		for _, c := range changes {
			c(&a)
		}
		return a
	}
	heard := func(d time.Duration) func(*absent) { return func(a *absent) { a.heard = d } }
	tried := func(d time.Duration) func(*absent) { return func(a *absent) { a.tried = d } }
	covered := func(d time.Duration) func(*absent) { return func(a *absent) { a.covered = d } }
	units := func(a *absent) { a.proof = component.ProofUnits }

	DescribeTable("has a reason, and only one makes a repair due (fault 17)",
		func(a absent, want eligibility.AbsenceReason) {
			got := judge(a)
			Expect(got.Reason).To(Equal(want))
			Expect(got.Due()).To(Equal(want == eligibility.RepairDue))
			told := got.String() != ""
			Expect(told).To(Equal(got.Gone()))
		},
		Entry("silent for longer than missing_after", gone(), eligibility.RepairDue),
		Entry("exactly as long", gone(heard(10*time.Minute)), eligibility.RepairDue),
		Entry("a second less", gone(heard(10*time.Minute-time.Second)), eligibility.RepairWaits),
		Entry("nothing is recorded", gone(func(a *absent) { a.recorded = " " }), eligibility.NotRecorded),
		Entry("one instance lives", gone(func(a *absent) { a.live = 1 }), eligibility.SomeLive),
		Entry("none was ever heard", gone(heard(0)), eligibility.NeverHeard),
		Entry("nobody covers", gone(covered(0)), eligibility.NotCovered),
		Entry("silence that nobody listened to does not count", gone(covered(9*time.Minute)), eligibility.RepairWaits),
		Entry("… only that which somebody listened to", gone(heard(time.Hour), tried(2*time.Hour), covered(10*time.Minute)),
			eligibility.RepairDue),
		Entry("… up to the last report of the leader", gone(heard(11*time.Minute), func(a *absent) {
			a.coveredBefore = 2 * time.Minute
		}), eligibility.RepairWaits),
		Entry("an upgrade to the recorded version did not bring it back: once for each disappearance",
			gone(tried(14*time.Minute)), eligibility.RepairTried),
		Entry("gone again right after a proof, which counts as a heartbeat", gone(tried(15*time.Minute)),
			eligibility.RepairDue),
		Entry("no upgrade has brought what is recorded: it was only stated", gone(tried(0)), eligibility.RepairDue),
		Entry("a type that is proven by its runtime, and has sent heartbeats since its deploy", gone(units),
			eligibility.RepairDue),
		Entry("… that has sent none since: it may send none in this version", gone(units, tried(14*time.Minute)),
			eligibility.NeverHeard),
	)

	It("says since when, and when a repair is due", func() {
		a := judge(gone(heard(4 * time.Minute)))
		Expect([]any{a.Since, a.DueAt}).To(Equal([]any{now.Add(-4 * time.Minute), now.Add(6 * time.Minute)}))
		Expect(a.String()).To(Equal("nothing of the component has been heard since 2026-03-01T11:56:00Z: the proven " +
			"release is deployed again if that lasts until 2026-03-01T12:06:00Z"))
		a = judge(gone(covered(12 * time.Minute)))
		Expect([]any{a.Since, a.DueAt}).To(Equal([]any{now.Add(-15 * time.Minute), now.Add(-2 * time.Minute)}),
			"from when the exchange was covered")
	})

	DescribeTable("has one check before its time", func(a absent, want bool) {
		Expect(judge(a).CheckEarly()).To(Equal(want))
	},
		Entry("once a repair is due", gone(), true),
		Entry("also if no check was ever made", gone(func(a *absent) { a.checked = 0 }), true),
		Entry("not again after that, whatever the check found", gone(func(a *absent) { a.checked = 5 * time.Minute }), false),
		Entry("not before a repair is due", gone(heard(time.Minute)), false),
		Entry("not after a repair that did not help", gone(tried(14*time.Minute)), false),
	)

	It("lists its reasons once each", func() {
		Expect(eligibility.AbsenceReasons).To(HaveLen(7))
	})
})
