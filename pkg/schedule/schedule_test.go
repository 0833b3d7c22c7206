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
		Entry("missed seven times: once more in the old phase",
			at(-7*time.Hour-10*time.Minute), time.Duration(0), 50*time.Minute),
		Entry("exactly one interval ago: one interval from now", at(-time.Hour), time.Duration(0), time.Hour),
		Entry("not due yet: unchanged", at(20*time.Minute), time.Duration(0), 20*time.Minute),
		Entry("one whole interval ahead: unchanged", at(time.Hour), time.Duration(0), time.Hour),
		Entry("far ahead after the interval was shortened: within one interval",
			at(5*time.Hour+20*time.Minute), time.Duration(0), 20*time.Minute),
	)

	DescribeTable("is due",
		func(due *time.Time, want bool) { Expect(schedule.Due(due, noon, time.Hour)).To(Equal(want)) },
		Entry("at its instant", at(0), true),
		Entry("after it", at(-time.Nanosecond), true),
		Entry("not before it", at(time.Nanosecond), false),
		Entry("not while it was never scheduled", nil, false),
		Entry("not one whole interval before it", at(time.Hour), false),
		Entry("further ahead than one interval: the interval was shortened (fault 11)", at(time.Hour+time.Nanosecond), true),
		Entry("years ahead: the clock was wrong (fault 11)", at(4*365*24*time.Hour), true),
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

	It("comes once more, and no more, after the clock jumped two hours ahead and back (C13)", func() {
		due, checks := noon.Add(20*time.Minute), 0
		for _, offset := range []time.Duration{0, 2 * time.Hour, time.Minute, 2 * time.Minute, 19 * time.Minute} {
			now := noon.Add(offset)
			if schedule.Due(&due, now, time.Hour) {
				checks++
				due = schedule.Next(&due, now, time.Hour, 0)
			}
		}
		Expect(checks).To(Equal(2), "one at the jump ahead, one at the jump back")
		Expect(due).To(Equal(noon.Add(20*time.Minute)), "in the old phase")
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

const starveAfter = 4 * time.Hour

var _ = Describe("The slot", func() {
	const hourly, explicit, rollback = upgrade.TriggerHourly, upgrade.TriggerRequest, upgrade.TriggerRollback

	DescribeTable("takes",
		func(want string, requests ...schedule.Request) {
			Expect(schedule.Order(requests, noon, starveAfter)[0].ID).To(Equal(upgrade.ID(want)))
		},
		Entry("an explicit request before an older automatic one of a better type", "b",
			request("a", component.Manager, hourly, time.Hour), request("b", component.Deployer, explicit, 0)),
		Entry("an explicit request before an automatic one that has waited for long", "b",
			request("a", component.Manager, hourly, 20*time.Hour), request("b", component.Deployer, explicit, 0)),
		Entry("a rollback as an explicit request", "b",
			request("a", component.Manager, hourly, time.Hour), request("b", component.Builder, rollback, 0)),
		Entry("the manager first", "b",
			request("a", component.Overseer, hourly, time.Hour), request("b", component.Manager, hourly, 0)),
		Entry("the overseer second", "b",
			request("a", component.Builder, hourly, time.Hour), request("b", component.Overseer, hourly, 0)),
		Entry("the others by name", "b",
			request("a", component.Notifications, hourly, time.Hour), request("b", "billing", hourly, 0)),
		Entry("the deployer last", "b",
			request("a", component.Deployer, hourly, time.Hour), request("b", "zebra", hourly, 0)),
		Entry("the older of one type", "b",
			request("a", "billing", hourly, time.Minute), request("b", "billing", hourly, time.Hour)),
		Entry("the better type while the other has not waited for starve_after (fault 13)", "a",
			request("a", component.Manager, hourly, 0), request("b", component.Deployer, hourly, starveAfter-1)),
		Entry("the one that has waited for starve_after before all types (fault 13)", "b",
			request("a", component.Manager, hourly, 0), request("b", component.Deployer, hourly, starveAfter)),
		Entry("of two that have waited for so long the older one, whatever its type (fault 13)", "b",
			request("a", component.Manager, hourly, 5*time.Hour), request("b", component.Deployer, hourly, 6*time.Hour)),
		Entry("of two explicit ones the one that has waited for so long (fault 13)", "b",
			request("a", component.Manager, explicit, 0), request("b", component.Deployer, explicit, starveAfter)),
	)

	It("takes nothing when nothing waits", func() {
		Expect(schedule.Order(nil, noon, starveAfter)).To(BeEmpty())
	})

	It("has one order, whatever order it is given", func() {
		all := []schedule.Request{
			request("0", component.Overseer, explicit, 5*time.Hour),
			request("1", component.Deployer, explicit, 0),
			request("2", component.Deployer, hourly, 7*time.Hour),
			request("3", component.Manager, hourly, 5*time.Hour),
			request("4", component.Manager, hourly, 0),
			request("5", component.Overseer, hourly, 0),
			request("6", "alpha", hourly, time.Hour),
			request("7", "alpha", hourly, 0),
			request("8", component.Deployer, hourly, time.Hour),
		}
		for range 20 {
			shuffled := append([]schedule.Request(nil), all...)
			rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			Expect(schedule.Order(shuffled, noon, starveAfter)).To(Equal(all))
		}
	})

	It("is not kept from the deployer by components that take it whole, every hour (fault 13)", func() {
		// Two components ask every hour and keep the slot for 40 minutes each time; both go before the deployer.
		waiting := []schedule.Request{request("deployer", component.Deployer, hourly, 0)}
		now, asked := noon, map[component.Type]time.Time{}
		for {
			for _, t := range []component.Type{component.Manager, component.Overseer} {
				if now.Sub(asked[t]) >= time.Hour {
					asked[t] = now
					waiting = append(waiting, schedule.Request{ID: upgrade.ID(t), Type: t, Trigger: hourly, CreatedAt: now})
				}
			}
			waiting = schedule.Order(waiting, now, starveAfter)
			if waiting[0].ID == "deployer" {
				break
			}
			waiting = waiting[1:]
			now = now.Add(40 * time.Minute)
			Expect(now.Sub(noon)).To(BeNumerically("<", 6*time.Hour), "the deployer starves")
		}
	})
})

var _ = Describe("Failures by the environment", func() {
	DescribeTable("hold automatic upgrades back (fault 13)",
		func(count int, want time.Duration) {
			f := schedule.Failures{Count: count, Last: noon}
			Expect(schedule.HeldUntil(f, time.Hour)).To(Equal(noon.Add(want - 30*time.Minute)))
		},
		Entry("for one interval after the first: the next check tries again (C10)", 1, time.Hour),
		Entry("for two after the second", 2, 2*time.Hour),
		Entry("for four after the third", 3, 4*time.Hour),
		Entry("for eight after the fourth", 4, 8*time.Hour),
		Entry("for sixteen after the fifth", 5, 16*time.Hour),
		Entry("for 24 after the sixth", 6, 24*time.Hour),
		Entry("for 24 after the hundredth", 100, 24*time.Hour),
	)

	v2 := upgrade.Version{SourceRepo: "src", SourceRepoGitRef: "v2"}
	v3 := upgrade.Version{SourceRepo: "src", SourceRepoGitRef: "v3"}
	ended := func(state upgrade.State, cause upgrade.Cause, target upgrade.Version, ago time.Duration) schedule.Ended {
		return schedule.Ended{Target: target, State: state, Cause: cause, Started: noon.Add(-ago)}
	}
	const environment, version = upgrade.CauseEnvironment, upgrade.CauseVersion

	DescribeTable("are counted from the newest upgrade back (fault 13)",
		func(want schedule.Failures, list ...schedule.Ended) {
			target, f := schedule.CountFailures(list)
			Expect(f).To(Equal(want))
			if want.Count > 0 {
				Expect(target).To(Equal(list[0].Target))
			}
		},
		Entry("none", schedule.Failures{}),
		Entry("one", schedule.Failures{Count: 1, Last: noon.Add(-time.Hour)},
			ended(upgrade.Failed, environment, v2, time.Hour)),
		Entry("three, whatever became of what ran", schedule.Failures{Count: 3, Last: noon.Add(-time.Hour)},
			ended(upgrade.Failed, environment, v2, time.Hour), ended(upgrade.RolledBack, environment, v2, 3*time.Hour),
			ended(upgrade.RollbackFailed, environment, v2, 7*time.Hour)),
		Entry("a success begins anew", schedule.Failures{Count: 1, Last: noon.Add(-time.Hour)},
			ended(upgrade.Failed, environment, v2, time.Hour), ended(upgrade.Completed, "", v2, 2*time.Hour),
			ended(upgrade.Failed, environment, v2, 3*time.Hour)),
		Entry("another target begins anew", schedule.Failures{Count: 1, Last: noon.Add(-time.Hour)},
			ended(upgrade.Failed, environment, v3, time.Hour), ended(upgrade.Failed, environment, v2, 3*time.Hour)),
		Entry("the last one was a success", schedule.Failures{},
			ended(upgrade.Completed, "", v2, time.Hour), ended(upgrade.Failed, environment, v2, 3*time.Hour)),
		Entry("the last one was the version's fault", schedule.Failures{},
			ended(upgrade.RolledBack, version, v2, time.Hour), ended(upgrade.Failed, environment, v2, 3*time.Hour)),
	)

	It("that never were hold nothing back", func() {
		Expect(schedule.HeldUntil(schedule.Failures{}, time.Hour).IsZero()).To(BeTrue())
	})

	It("let the checks of a day make seven upgrades", func() {
		f, due, made := schedule.Failures{}, noon, []int{}
		for hour := range 60 {
			now := due.Add(3 * time.Second) // the pass comes a little later
			if !now.Before(schedule.HeldUntil(f, time.Hour)) {
				made = append(made, hour)
				f = schedule.Failures{Count: f.Count + 1, Last: now.Add(2 * time.Minute)} // the slot was taken at first
			}
			due = schedule.Next(&due, now, time.Hour, 0)
		}
		Expect(made).To(Equal([]int{0, 1, 3, 7, 15, 31, 55}))
	})
})
