package upgrade_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/upgrade"
)

var _ = Describe("An order that nobody has claimed for a while", func() {
	DescribeTable("",
		func(want upgrade.Wait, u upgrade.Unclaimed) { Expect(u.Next()).To(Equal(want)) },
		Entry("is sent again", upgrade.WaitResend, upgrade.Unclaimed{}),
		Entry("is sent again also while an executor is busy", upgrade.WaitResend, upgrade.Unclaimed{Busy: true}),
		Entry("fails at its deadline", upgrade.WaitGiveUp, upgrade.Unclaimed{Expired: true}),
		Entry("waits on in line behind another order", upgrade.WaitProlong, upgrade.Unclaimed{Expired: true, Busy: true}),
		Entry("of an upgrade waits for the upgrade's clock", upgrade.WaitProlong,
			upgrade.Unclaimed{Expired: true, HasUpgrade: true}),
		Entry("of others' modules is not sent again: a build takes its time", upgrade.WaitOn,
			upgrade.Unclaimed{Outside: true}),
		Entry("of others' modules fails at its deadline", upgrade.WaitGiveUp,
			upgrade.Unclaimed{Outside: true, Expired: true, Busy: true}),
	)
})
