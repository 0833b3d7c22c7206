package schedule_test

import (
	"math/rand/v2"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/schedule"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(offset time.Duration) *time.Time {
	t := noon.Add(offset)
	return &t
}

var _ = Describe("The next check", func() {
	DescribeTable("keeps its phase",
		func(due *time.Time, jitter, want time.Duration) {
			Expect(schedule.Next(due, noon, time.Hour, jitter)).To(Equal(noon.Add(want)))
		},
		Entry("never scheduled, no jitter: now", nil, time.Duration(0), time.Duration(0)),
		Entry("never scheduled: at the jitter", nil, 59*time.Minute, 59*time.Minute),
		Entry("due just now: one interval later", at(0), 5*time.Minute, time.Hour),
		Entry("due ten minutes ago: 50 minutes from now", at(-10*time.Minute), time.Duration(0), 50*time.Minute),
		Entry("missed seven times: once more in the old phase", at(-7*time.Hour-10*time.Minute), time.Duration(0), 50*time.Minute),
		Entry("exactly one interval ago: one interval from now", at(-time.Hour), time.Duration(0), time.Hour),
		Entry("not due yet: unchanged", at(20*time.Minute), time.Duration(0), 20*time.Minute),
		Entry("one whole interval ahead: unchanged", at(time.Hour), time.Duration(0), time.Hour),
		Entry("far ahead after the interval was shortened: within one interval", at(5*time.Hour+20*time.Minute), time.Duration(0), 20*time.Minute),
	)

	DescribeTable("is due",
		func(due *time.Time, want bool) { Expect(schedule.Due(due, noon)).To(Equal(want)) },
		Entry("at its instant", at(0), true),
		Entry("after it", at(-time.Nanosecond), true),
		Entry("not before it", at(time.Nanosecond), false),
		Entry("not while it was never scheduled", nil, false),
	)

	It("spreads 500 components over the hour for good (C11)", func() {
		draw := rand.New(rand.NewPCG(1, 2))
		perQuarter := map[int]int{}
		for range 500 {
			first := schedule.Next(nil, noon, time.Hour, time.Duration(draw.Int64N(int64(time.Hour))))
			second := schedule.Next(&first, first, time.Hour, 0)
			Expect(second.Sub(first)).To(Equal(time.Hour))
			perQuarter[second.Minute()/15]++
		}
		Expect(perQuarter).To(HaveLen(4))
		for _, n := range perQuarter {
			Expect(n).To(BeNumerically("~", 125, 40))
		}
	})

	It("is not moved by a change of daylight saving time (C13)", func() {
		berlin, err := time.LoadLocation("Europe/Berlin")
		Expect(err).NotTo(HaveOccurred())
		before := time.Date(2026, 3, 29, 1, 30, 0, 0, berlin) // the clock springs from 2:00 to 3:00
		Expect(schedule.Next(&before, before, time.Hour, 0).Sub(before)).To(Equal(time.Hour))
	})
})

func request(id string, t component.Type, trigger upgrade.Trigger, age time.Duration) schedule.Request {
	return schedule.Request{ID: upgrade.ID(id), Type: t, Trigger: trigger, CreatedAt: noon.Add(-age)}
}

var _ = Describe("The slot", func() {
	DescribeTable("takes",
		func(want string, requests ...schedule.Request) {
			Expect(schedule.Order(requests)[0].ID).To(Equal(upgrade.ID(want)))
		},
		Entry("an explicit request before an older automatic one of a better type", "b",
			request("a", component.Manager, upgrade.TriggerHourly, time.Hour), request("b", component.Deployer, upgrade.TriggerRequest, 0)),
		Entry("a rollback as an explicit request", "b",
			request("a", component.Manager, upgrade.TriggerHourly, time.Hour), request("b", component.Builder, upgrade.TriggerRollback, 0)),
		Entry("the manager first", "b",
			request("a", component.Overseer, upgrade.TriggerHourly, time.Hour), request("b", component.Manager, upgrade.TriggerHourly, 0)),
		Entry("the overseer second", "b",
			request("a", component.Builder, upgrade.TriggerHourly, time.Hour), request("b", component.Overseer, upgrade.TriggerHourly, 0)),
		Entry("the others by name", "b",
			request("a", component.Notifications, upgrade.TriggerHourly, time.Hour), request("b", "billing", upgrade.TriggerHourly, 0)),
		Entry("the deployer last", "b",
			request("a", component.Deployer, upgrade.TriggerHourly, time.Hour), request("b", "zebra", upgrade.TriggerHourly, 0)),
		Entry("the older of one type", "b",
			request("a", "billing", upgrade.TriggerHourly, time.Minute), request("b", "billing", upgrade.TriggerHourly, time.Hour)),
	)

	It("takes nothing when nothing waits", func() { Expect(schedule.Order(nil)).To(BeEmpty()) })

	It("has one order, whatever order it is given", func() {
		all := []schedule.Request{
			request("1", component.Deployer, upgrade.TriggerRequest, 0),
			request("2", component.Manager, upgrade.TriggerHourly, 0),
			request("3", component.Overseer, upgrade.TriggerHourly, 0),
			request("4", "alpha", upgrade.TriggerHourly, time.Hour),
			request("5", "alpha", upgrade.TriggerHourly, 0),
			request("6", component.Deployer, upgrade.TriggerHourly, time.Hour),
		}
		for range 20 {
			shuffled := append([]schedule.Request(nil), all...)
			rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			Expect(schedule.Order(shuffled)).To(Equal(all))
		}
	})
})
