package liveness_test

import (
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/liveness"
	"github.com/openaperture/openaperture/pkg/module"
)

var (
	now    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	policy = liveness.Policy{InactiveAfter: 10 * time.Minute, DeleteAfter: 20 * time.Minute, HoldFor: 30 * time.Minute}
)

// covered is coverage that began so long ago and lasts until now.
func covered(d time.Duration) liveness.Coverage {
	return liveness.Coverage{Since: now.Add(-d), Until: now}
}

func silent(d time.Duration) module.Module {
	return module.Module{Hostname: "m", Status: module.Active, LastSeen: now.Add(-d)}
}

func inactive(m module.Module) module.Module {
	m.Status = module.Inactive
	return m
}

func fleet(total, dead int, silence time.Duration) []module.Module {
	all := make([]module.Module, total)
	for i := range all {
		all[i] = silent(time.Second)
		if i < dead {
			all[i] = silent(silence)
		}
		all[i].Hostname = fmt.Sprintf("m%d", i)
	}
	return all
}

var _ = Describe("Silence", func() {
	DescribeTable("decides, with strictly more than a threshold (E5)",
		func(m module.Module, c liveness.Coverage, want liveness.Verdict) {
			Expect(liveness.Judge(m, c, policy)).To(Equal(want))
		},
		Entry("9:59: kept", silent(10*time.Minute-time.Second), covered(time.Hour), liveness.Keep),
		Entry("exactly 10:00: kept", silent(10*time.Minute), covered(time.Hour), liveness.Keep),
		Entry("10:01: inactive", silent(10*time.Minute+time.Second), covered(time.Hour), liveness.Inactivate),
		Entry("10:01 and inactive already: kept", inactive(silent(10*time.Minute+time.Second)), covered(time.Hour), liveness.Keep),
		Entry("19:59: inactive", silent(20*time.Minute-time.Second), covered(time.Hour), liveness.Inactivate),
		Entry("exactly 20:00: not deleted", silent(20*time.Minute), covered(time.Hour), liveness.Inactivate),
		Entry("20:01: deleted", silent(20*time.Minute+time.Second), covered(time.Hour), liveness.Delete),
		Entry("20:01 and inactive: deleted", inactive(silent(20*time.Minute+time.Second)), covered(time.Hour), liveness.Delete),
		Entry("silent for a day, covered for nine minutes: kept (E2, E3)", silent(24*time.Hour), covered(9*time.Minute), liveness.Keep),
		Entry("silent for a day, covered for eleven minutes: inactive", silent(24*time.Hour), covered(11*time.Minute), liveness.Inactivate),
		Entry("silent for a day, never covered: kept", silent(24*time.Hour), liveness.Coverage{}, liveness.Keep),
		Entry("silent for a day, coverage ended long before: kept", silent(24*time.Hour),
			liveness.Coverage{Since: now.Add(-25 * time.Hour), Until: now.Add(-24 * time.Hour)}, liveness.Keep),
		Entry("heard after the end of coverage: kept", silent(-time.Hour), covered(time.Hour), liveness.Keep),
	)

	DescribeTable("of many at once brakes (E4)",
		func(modules []module.Module, want bool) {
			Expect(liveness.Brakes(modules, covered(time.Hour), policy)).To(Equal(want))
		},
		Entry("six of ten", fleet(10, 6, 10*time.Minute), true),
		Entry("five of ten is not more than half", fleet(10, 5, 10*time.Minute), false),
		Entry("four of four are too few", fleet(4, 4, time.Hour), false),
		Entry("five of five", fleet(5, 5, time.Hour), true),
		Entry("six of ten, but only just silent", fleet(10, 6, 10*time.Minute-time.Second), false),
		Entry("nobody", nil, false),
	)

	DescribeTable("of many at once holds deletion and never inactivation",
		func(hold *liveness.Hold, wantHeld bool, inactivated, deleted int) {
			p := liveness.Sweep(fleet(10, 6, 21*time.Minute), covered(time.Hour), policy, hold)
			Expect(p.Braking).To(BeTrue())
			Expect(p.Held).To(Equal(wantHeld))
			Expect(p.Inactivate).To(HaveLen(inactivated))
			Expect(p.Delete).To(HaveLen(deleted))
		},
		Entry("when it begins", nil, true, 6, 0),
		Entry("while it is young", &liveness.Hold{Covered: 29 * time.Minute}, true, 6, 0),
		Entry("until 30 covered minutes", &liveness.Hold{Covered: 30 * time.Minute}, false, 0, 6),
		Entry("until an operator releases it", &liveness.Hold{Covered: time.Minute, Released: true}, false, 0, 6),
	)

	It("of a few is swept without a hold", func() {
		p := liveness.Sweep(fleet(10, 2, 21*time.Minute), covered(time.Hour), policy, nil)
		Expect(p).To(Equal(liveness.Plan{Delete: []string{"m0", "m1"}}))
	})
})
