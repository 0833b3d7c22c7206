package upgrade_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/upgrade"
)

var _ = Describe("An order that has been worked on", func() {
	now := time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)
	// work is the ended deploy order of phase 1, whose upgrade waits for the proof of that phase.
	work := func(change func(*upgrade.Work)) upgrade.Work {
		w := upgrade.Work{Ended: true, Phase: 1, HasUpgrade: true, State: upgrade.Verifying, At: 1,
			Step: upgrade.StepVerify, Clock: upgrade.Clock{TickedAt: now.Add(-time.Second)}, Judge: true}
		change(&w)
		return w
	}

	DescribeTable("is settled, or watched over, or neither",
		func(settled, watched bool, change func(*upgrade.Work)) {
			w := work(change)
			Expect([]bool{w.Settled(), w.Watched(now, 30*time.Second)}).To(Equal([]bool{settled, watched}))
		},
		Entry("its phase waits for the proof", false, true, func(*upgrade.Work) {}),
		Entry("it has not ended", false, false, func(w *upgrade.Work) { w.Ended = false }),
		Entry("it has no upgrade", true, false, func(w *upgrade.Work) { *w = upgrade.Work{Ended: true} }),
		Entry("it has no upgrade and has not ended", false, false, func(w *upgrade.Work) { *w = upgrade.Work{} }),
		Entry("its upgrade has ended", true, false,
			func(w *upgrade.Work) { w.State, w.Step = upgrade.Completed, upgrade.StepNone }),
		Entry("the next phase is deployed", true, false,
			func(w *upgrade.Work) { w.State, w.At, w.Step = upgrade.InProgress, 2, upgrade.StepDeploy }),
		Entry("its upgrade is rolled back", true, false,
			func(w *upgrade.Work) { w.State, w.Step = upgrade.RollingBack, upgrade.StepDeploy }),
		Entry("it restores, and waits for the proof", false, true,
			func(w *upgrade.Work) { w.State, w.Restoring = upgrade.RollingBack, true }),
		Entry("it has restored, and the phase before is restored", true, false, func(w *upgrade.Work) {
			w.State, w.Restoring, w.Phase, w.Step = upgrade.RollingBack, true, 2, upgrade.StepDeploy
		}),
		Entry("nobody moves the clock", false, false,
			func(w *upgrade.Work) { w.Clock.TickedAt = now.Add(-30 * time.Second) }),
		Entry("the clock was never moved", false, false, func(w *upgrade.Work) { w.Clock.TickedAt = time.Time{} }),
		Entry("the clock stands still although there is a judge", false, false,
			func(w *upgrade.Work) { w.Clock.Stalled = 1 }),
		Entry("the clock stands still without a judge", false, true,
			func(w *upgrade.Work) { w.Clock.Stalled, w.Judge = 1, false }),
	)
})
