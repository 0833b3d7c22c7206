package roll_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/roll"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const (
	minHealthy = 10 * time.Second
	deadline   = time.Minute
)

func ago(d time.Duration) time.Time { return now.Add(-d) }

// plan wants a@1 and a@2 with hash new; a@1 and a@2 were found with hash old, and a@3 is too many.
func plan(change ...func(*roll.Plan)) roll.Plan {
	p := roll.Plan{Targets: []roll.Target{{"a@1", "new"}, {"a@2", "new"}},
		Found: map[string]string{"a@1": "old", "a@2": "old"},
		Extra: []string{"a@3"}, MinHealthy: minHealthy, HealthDeadline: deadline, Deadline: now.Add(time.Hour)}
	for _, f := range change {
		f(&p)
	}
	return p
}

type world = map[string]roll.Instance

func steady(hash string) roll.Instance {
	return roll.Instance{Hash: hash, Health: roll.Healthy, HealthySince: ago(time.Hour)}
}
func young(hash string, age time.Duration) roll.Instance {
	return roll.Instance{Hash: hash, Health: roll.Healthy, HealthySince: ago(age)}
}
func starting(hash string) roll.Instance { return roll.Instance{Hash: hash, Health: roll.Starting} }
func down(hash string) roll.Instance     { return roll.Instance{Hash: hash} }

func inHand(name string, age time.Duration, broken ...any) roll.Progress {
	clocks := map[string]time.Time{name: ago(age)}
	for i := 0; i < len(broken); i += 2 {
		clocks[broken[i].(string)] = ago(broken[i+1].(time.Duration)) //nolint:forcetypeassert // pairs
	}
	return roll.Progress{Clocks: clocks}
}
func failing(name string, restored ...time.Duration) roll.Progress {
	p := roll.Progress{Clocks: map[string]time.Time{name: ago(2 * deadline)}, Failing: name}
	if len(restored) > 0 {
		p.RestoredAt = ago(restored[0])
	}
	return p
}

var _ = Describe("The next step of a rolling deploy", func() {
	expired := func(p *roll.Plan) { p.Deadline = now }
	wasNew := func(p *roll.Plan) { p.Found = map[string]string{"a@2": "old"} }
	wasSame := func(p *roll.Plan) { p.Found = map[string]string{"a@1": "new", "a@2": "old"} }
	wasBeside := func(p *roll.Plan) { p.Found = map[string]string{"a@2": "new"} }
	undo := func(p *roll.Plan) { p.Undo = true }
	soon := func(p *roll.Plan) { p.Deadline = now.Add(time.Second) }
	atOnce := func(p *roll.Plan) { p.MinHealthy = 0 }

	DescribeTable("is",
		func(want roll.Step, p roll.Plan, observed world, done roll.Progress) {
			Expect(roll.Next(p, observed, done, now)).To(Equal(want))
		},
		// nothing in hand
		Entry("apply, when the instance is missing", roll.Step{Kind: roll.Apply, Name: "a@1", Reason: roll.Missing}, plan(),
			world{}, roll.Progress{}),
		Entry("apply, when it differs", roll.Step{Kind: roll.Apply, Name: "a@1", Reason: roll.Differs}, plan(),
			world{"a@1": steady("old")}, roll.Progress{}),
		Entry("apply, when it has ended", roll.Step{Kind: roll.Apply, Name: "a@1", Reason: roll.NotRunning}, plan(),
			world{"a@1": down("new")}, roll.Progress{}),
		Entry("watch, when it starts", roll.Step{Kind: roll.Watch, Name: "a@1", Reason: roll.Unsteady}, plan(),
			world{"a@1": starting("new")}, roll.Progress{}),
		Entry("watch, when it is young", roll.Step{Kind: roll.Watch, Name: "a@1", Reason: roll.Unsteady}, plan(),
			world{"a@1": young("new", time.Second)}, roll.Progress{}),
		Entry("the second, when the first is as wanted", roll.Step{Kind: roll.Apply, Name: "a@2", Reason: roll.Differs},
			plan(),
			world{"a@1": steady("new"), "a@2": steady("old")}, roll.Progress{}),
		Entry("the first again, when it broke while the second was in hand",
			roll.Step{Kind: roll.Watch, Name: "a@1", Reason: roll.Unsteady}, plan(),
			world{"a@1": starting("new"), "a@2": starting("new")}, inHand("a@2", time.Second)),
		Entry("wait for the first, which broke before and is at it again",
			roll.Step{Kind: roll.Wait, Name: "a@1", Reason: roll.Unsteady, Until: now.Add(deadline - 20*time.Second)}, plan(),
			world{"a@1": starting("new"), "a@2": starting("new")}, inHand("a@2", 30*time.Second, "a@1", 20*time.Second)),
		Entry("fail, when the first has broken for long enough", roll.Step{Kind: roll.Fail, Name: "a@1",
			Reason: roll.DeadlineMissed}, plan(),
			world{"a@1": young("new", time.Second), "a@2": starting("new")},
			inHand("a@2", deadline+time.Second, "a@1", deadline)),
		Entry("fail, when the second missed its deadline while the first was waited for",
			roll.Step{Kind: roll.Fail, Name: "a@2", Reason: roll.DeadlineMissed}, plan(),
			world{"a@1": steady("new"), "a@2": starting("new")}, inHand("a@2", deadline, "a@1", deadline/2)),
		// in hand
		Entry("wait, while the runtime lags", roll.Step{Kind: roll.Wait, Name: "a@1", Reason: roll.Lagging,
			Until: now.Add(deadline - time.Second)}, plan(),
			world{"a@1": steady("old")}, inHand("a@1", time.Second)),
		Entry("wait, while it starts", roll.Step{Kind: roll.Wait, Name: "a@1", Reason: roll.Unsteady,
			Until: now.Add(deadline - time.Second)}, plan(),
			world{"a@1": starting("new")}, inHand("a@1", time.Second)),
		Entry("wait, while it is down: a crash is no failure yet",
			roll.Step{Kind: roll.Wait, Name: "a@1", Reason: roll.Unsteady, Until: now.Add(deadline - time.Second)}, plan(),
			world{"a@1": down("new")}, inHand("a@1", time.Second)),
		Entry("wait, until it was healthy for long enough", roll.Step{Kind: roll.Wait, Name: "a@1", Reason: roll.Unsteady,
			Until: now.Add(6 * time.Second)}, plan(),
			world{"a@1": young("new", 4*time.Second)}, inHand("a@1", 5*time.Second)),
		Entry("wait no longer than the health deadline", roll.Step{Kind: roll.Wait, Name: "a@1", Reason: roll.Unsteady,
			Until: now.Add(time.Second)}, plan(),
			world{"a@1": young("new", 0)}, inHand("a@1", deadline-time.Second)),
		Entry("wait no longer than the order's deadline", roll.Step{Kind: roll.Wait, Name: "a@1", Reason: roll.Unsteady,
			Until: now.Add(time.Second)}, plan(soon),
			world{"a@1": starting("new")}, inHand("a@1", 0)),
		Entry("the next, exactly at min_healthy", roll.Step{Kind: roll.Apply, Name: "a@2", Reason: roll.Missing}, plan(),
			world{"a@1": young("new", minHealthy)}, inHand("a@1", minHealthy)),
		Entry("the next at once, when min_healthy is 0", roll.Step{Kind: roll.Apply, Name: "a@2", Reason: roll.Missing},
			plan(atOnce),
			world{"a@1": young("new", 0)}, inHand("a@1", 0)),
		Entry("wait, one instant before min_healthy", roll.Step{Kind: roll.Wait, Name: "a@1", Reason: roll.Unsteady,
			Until: now.Add(time.Nanosecond)}, plan(),
			world{"a@1": young("new", minHealthy-time.Nanosecond)}, inHand("a@1", minHealthy)),
		Entry("fail, at the health deadline", roll.Step{Kind: roll.Fail, Name: "a@1", Reason: roll.DeadlineMissed}, plan(),
			world{"a@1": young("new", time.Second)}, inHand("a@1", deadline)),
		Entry("no failure, when it was steady at the deadline", roll.Step{Kind: roll.Apply, Name: "a@2",
			Reason: roll.Missing}, plan(),
			world{"a@1": young("new", minHealthy)}, inHand("a@1", deadline)),
		Entry("fail, when the runtime never showed it", roll.Step{Kind: roll.Fail, Name: "a@1", Reason: roll.DeadlineMissed},
			plan(),
			world{}, inHand("a@1", deadline)),
		// extras
		Entry("remove, after all targets are steady", roll.Step{Kind: roll.Remove, Name: "a@3", Reason: roll.Superfluous},
			plan(),
			world{"a@1": steady("new"), "a@2": steady("new"), "a@3": steady("old")}, inHand("a@2", time.Second)),
		Entry("no removal, while a target is unsteady", roll.Step{Kind: roll.Watch, Name: "a@2", Reason: roll.Unsteady},
			plan(),
			world{"a@1": steady("new"), "a@2": starting("new"), "a@3": steady("old")}, roll.Progress{}),
		Entry("done", roll.Step{Kind: roll.Done, Reason: roll.AsWanted}, plan(),
			world{"a@1": steady("new"), "a@2": steady("new")}, roll.Progress{}),
		Entry("done, with a stranger beside it", roll.Step{Kind: roll.Done, Reason: roll.AsWanted}, plan(),
			world{"a@1": steady("new"), "a@2": steady("new"), "fleet_a@3": down("x")}, roll.Progress{}),
		Entry("done, though the order has expired meanwhile", roll.Step{Kind: roll.Done, Reason: roll.AsWanted},
			plan(expired),
			world{"a@1": steady("new"), "a@2": steady("new")}, roll.Progress{}),
		// the order's deadline
		Entry("failed, when nothing may begin any more", roll.Step{Kind: roll.Failed, Name: "a@1", Reason: roll.OrderExpired},
			plan(expired),
			world{"a@1": steady("old"), "a@2": steady("old")}, roll.Progress{}),
		Entry("failed, when what was replaced is steady", roll.Step{Kind: roll.Failed, Name: "a@2",
			Reason: roll.OrderExpired}, plan(expired),
			world{"a@1": steady("new"), "a@2": steady("old")}, roll.Progress{}),
		Entry("failed, when an instance that this deploy leaves as it is was not steady for long",
			roll.Step{Kind: roll.Failed, Name: "a@1", Reason: roll.OrderExpired},
			plan(expired, wasSame), world{"a@1": starting("new"), "a@2": steady("old")}, roll.Progress{}),
		Entry("fail, when an earlier process was killed over the first one",
			roll.Step{Kind: roll.Fail, Name: "a@1", Reason: roll.OrderExpired}, plan(expired),
			world{"a@1": starting("new"), "a@2": steady("old")}, roll.Progress{}),
		Entry("fail, when an earlier process was killed over the last one: what was done before stays",
			roll.Step{Kind: roll.Fail, Name: "a@2", Reason: roll.OrderExpired}, plan(expired),
			world{"a@1": young("new", 0), "a@2": down("new")}, roll.Progress{}),
		Entry("fail, when an earlier process was killed while an instance was away",
			roll.Step{Kind: roll.Fail, Name: "a@2", Reason: roll.OrderExpired}, plan(expired),
			world{"a@1": young("new", 0)}, roll.Progress{}),
		Entry("fail, when an earlier process was killed over one that was new here",
			roll.Step{Kind: roll.Fail, Name: "a@1", Reason: roll.OrderExpired}, plan(expired, wasNew),
			world{"a@1": down("new"), "a@2": steady("old")}, roll.Progress{}),
		Entry("fail, when the one in hand is not healthy at the end, though another one broke",
			roll.Step{Kind: roll.Fail, Name: "a@2", Reason: roll.OrderExpired}, plan(expired),
			world{"a@1": starting("new"), "a@2": starting("new")}, inHand("a@2", time.Second)),
		Entry("fail, when two are not healthy at the end: the one that was half done",
			roll.Step{Kind: roll.Fail, Name: "a@2", Reason: roll.OrderExpired}, plan(expired),
			world{"a@1": starting("new"), "a@2": starting("new")}, inHand("a@2", time.Second, "a@1", time.Second)),
		Entry("fail, when the one in hand is not healthy at the end",
			roll.Step{Kind: roll.Fail, Name: "a@1", Reason: roll.OrderExpired}, plan(expired),
			world{"a@1": starting("new")}, inHand("a@1", time.Second)),
		Entry("failed, when only extras are left", roll.Step{Kind: roll.Failed, Name: "a@3", Reason: roll.OrderExpired},
			plan(expired),
			world{"a@1": steady("new"), "a@2": steady("new"), "a@3": steady("old")}, roll.Progress{}),
		// putting back
		Entry("restore, once an instance is failing", roll.Step{Kind: roll.Restore, Name: "a@1", Reason: roll.DeadlineMissed},
			plan(),
			world{"a@1": down("new")}, failing("a@1")),
		Entry("restore, although it has become healthy meanwhile",
			roll.Step{Kind: roll.Restore, Name: "a@1", Reason: roll.DeadlineMissed}, plan(),
			world{"a@1": steady("new")}, failing("a@1")),
		Entry("wait, for the restored one to show", roll.Step{Kind: roll.Wait, Name: "a@1", Reason: roll.Lagging,
			Until: now.Add(deadline - time.Second)}, plan(),
			world{"a@1": down("new")}, failing("a@1", time.Second)),
		Entry("wait, for the restored one to be steady", roll.Step{Kind: roll.Wait, Name: "a@1", Reason: roll.Unsteady,
			Until: now.Add(9 * time.Second)}, plan(),
			world{"a@1": young("old", time.Second)}, failing("a@1", 2*time.Second)),
		Entry("failed by the version, when the restored one is steady",
			roll.Step{Kind: roll.Failed, Name: "a@1", Reason: roll.PutBack}, plan(),
			world{"a@1": young("old", minHealthy)}, failing("a@1", minHealthy)),
		Entry("failed by the environment, when it is not in time",
			roll.Step{Kind: roll.Failed, Name: "a@1", Reason: roll.PutBackUnhealthy}, plan(),
			world{"a@1": young("old", time.Second)}, failing("a@1", deadline)),
		Entry("failed by the order's end, when that was why", roll.Step{Kind: roll.Failed, Name: "a@1",
			Reason: roll.OrderExpired}, plan(expired),
			world{"a@1": steady("old")}, roll.Progress{Failing: "a@1", Expired: true, RestoredAt: ago(minHealthy)}),
		Entry("restore by removal, when it was new here", roll.Step{Kind: roll.Restore, Name: "a@1",
			Reason: roll.DeadlineMissed}, plan(wasNew),
			world{"a@1": down("new")}, failing("a@1")),
		Entry("wait, for the removal to show", roll.Step{Kind: roll.Wait, Name: "a@1", Reason: roll.Lagging,
			Until: now.Add(deadline - time.Second)}, plan(wasNew),
			world{"a@1": down("new")}, failing("a@1", time.Second)),
		Entry("failed by the version, when it is gone", roll.Step{Kind: roll.Failed, Name: "a@1",
			Reason: roll.NothingToPutBack}, plan(wasNew),
			world{}, failing("a@1", time.Second)),
		Entry("failed and nobody can tell why, when it had this definition before",
			roll.Step{Kind: roll.Failed, Name: "a@1", Reason: roll.RanBefore}, plan(wasSame),
			world{"a@1": down("new")}, failing("a@1")),
		Entry("failed and nobody can tell why, when another one had this definition before",
			roll.Step{Kind: roll.Failed, Name: "a@1", Reason: roll.RanBefore}, plan(wasBeside),
			world{"a@2": steady("new")}, failing("a@1", time.Second)),
		Entry("failed, when an undo fails: no undo of an undo", roll.Step{Kind: roll.Failed, Name: "a@1",
			Reason: roll.UndoneIncompletely}, plan(undo),
			world{"a@1": down("new")}, failing("a@1")),
	)

	It("gives an instance one clock, which runs until one further on is begun", func() {
		p := roll.Progress{}
		for _, k := range []roll.Kind{roll.Apply, roll.Watch} {
			p = p.After(plan(), roll.Step{Kind: k, Name: "a@1"}, ago(time.Hour))
			Expect(p.Clocks).To(Equal(map[string]time.Time{"a@1": ago(time.Hour)}))
		}
		p = p.After(plan(), roll.Step{Kind: roll.Apply, Name: "a@2"}, ago(time.Minute))
		Expect(p.Clocks).To(Equal(map[string]time.Time{"a@2": ago(time.Minute)}))
		p = p.After(plan(), roll.Step{Kind: roll.Watch, Name: "a@1"}, now)
		Expect(p.Clocks).To(Equal(map[string]time.Time{"a@2": ago(time.Minute), "a@1": now}))
		for _, k := range []roll.Kind{roll.Wait, roll.Remove, roll.Done, roll.Failed} {
			Expect(p.After(plan(), roll.Step{Kind: k, Name: "a@2"}, now)).To(Equal(p))
		}
		p = p.After(plan(), roll.Step{Kind: roll.Fail, Name: "a@1", Reason: roll.OrderExpired}, now)
		Expect(p.Failing).To(Equal("a@1"))
		Expect(p.Expired).To(BeTrue())
		Expect(p.After(plan(), roll.Step{Kind: roll.Restore, Name: "a@1"}, now).RestoredAt).To(Equal(now))
	})

	It("does not count the time in which nobody could look", func() {
		p := roll.Progress{Clocks: map[string]time.Time{"a@1": ago(50 * time.Second), "a@2": ago(20 * time.Second)},
			RestoredAt: ago(45 * time.Second)}
		Expect(p.Blind(ago(40*time.Second),
			now)).To(Equal(roll.Progress{Clocks: map[string]time.Time{"a@1": ago(10 * time.Second), "a@2": now},
			RestoredAt: ago(5 * time.Second)}))
		Expect(p.Clocks).To(HaveKeyWithValue("a@1", ago(50*time.Second)))
		Expect(roll.Progress{}.Blind(ago(time.Second), now).RestoredAt).To(BeZero())
	})

	It("names every kind and reason", func() {
		for k := roll.Apply; k <= roll.Failed; k++ {
			Expect(k.String()).NotTo(Or(BeEmpty(), Equal("unknown")))
		}
		for r := roll.Unspecified; r <= roll.AsWanted; r++ {
			Expect(r.String()).NotTo(Or(BeEmpty(), Equal("unknown")))
		}
		Expect(roll.Kind(99).String()).To(Equal("unknown"))
		Expect(roll.Reason(99).String()).To(Equal("unknown"))
	})

	It("always ends, with at most one instance away at a time, whatever the instances do", func() {
		for seed := range uint64(300) {
			simulate(rand.New(rand.NewPCG(seed, 1))) //nolint:gosec // a reproducible game
		}
	})

	It("blames a version whose instances get healthy and die, however they alternate", func() {
		for seed := range uint64(300) {
			crash(rand.New(rand.NewPCG(seed, 2))) //nolint:gosec // a reproducible game
		}
	})
})

// take decides on the next step and takes it.
func take(p roll.Plan, observed world, done *roll.Progress, clock time.Time) roll.Step {
	step := roll.Next(p, observed, *done, clock)
	*done = done.After(p, step, clock)
	switch step.Kind {
	case roll.Apply:
		observed[step.Name] = starting("new")
	case roll.Restore:
		observed[step.Name] = starting("old")
	case roll.Remove:
		delete(observed, step.Name)
	case roll.Done, roll.Failed, roll.Wait, roll.Watch, roll.Fail:
	}
	return step
}

// simulate plays one deploy in a world in which some definitions never get healthy.
func simulate(r *rand.Rand) {
	p := plan(func(p *roll.Plan) { p.Deadline = now.Add(time.Duration(r.IntN(400)) * time.Second) })
	observed := world{"a@1": steady("old"), "a@2": steady("old"), "a@3": steady("old")}
	broken := map[string]bool{"new": r.IntN(2) == 0, "old": r.IntN(4) == 0}
	crashes, crashed := r.IntN(4), map[string]bool{} // of instances whatever their state
	done, clock := roll.Progress{}, now
	for range 1000 {
		step := take(p, observed, &done, clock)
		switch step.Kind {
		case roll.Done:
			Expect(maps.Keys(observed)).To(ConsistOf("a@1", "a@2"))
			return
		case roll.Failed:
			return
		case roll.Wait:
			Expect(step.Until).To(BeTemporally(">", clock))
			if o := observed[step.Name]; o.Health != roll.Healthy && !broken[o.Hash] {
				observed[step.Name] = roll.Instance{Hash: o.Hash, Health: roll.Healthy, HealthySince: clock}
				continue
			}
			clock = step.Until
			if name := slices.Sorted(maps.Keys(observed))[r.IntN(len(observed))]; crashes > 0 {
				crashes--
				observed[name] = starting(observed[name].Hash)
				crashed[name] = true
			}
		case roll.Apply, roll.Restore, roll.Remove, roll.Watch, roll.Fail:
		}
		away := 0
		for name, o := range observed {
			if o.Health != roll.Healthy && !crashed[name] {
				away++
			}
		}
		Expect(away).To(BeNumerically("<=", 1))
	}
	Fail("the deploy does not end")
}

// crash plays a deploy of a version that dies a while after it got healthy, in every instance again and again.
func crash(r *rand.Rand) {
	p := plan()
	observed := world{"a@1": steady("old"), "a@2": steady("old")}
	life := time.Duration(11+r.IntN(9)) * time.Second // longer than minHealthy
	done := roll.Progress{}
	for clock := now; clock.Before(now.Add(20 * deadline)); clock = clock.Add(time.Second) {
		for name, o := range observed {
			switch {
			case o.Health == roll.Healthy && o.Hash == "new" && clock.Sub(o.HealthySince) >= life:
				observed[name] = starting("new")
			case o.Health != roll.Healthy && r.IntN(2) == 0:
				observed[name] = roll.Instance{Hash: o.Hash, Health: roll.Healthy, HealthySince: clock}
			}
		}
		step := take(p, observed, &done, clock)
		switch step.Kind {
		case roll.Failed:
			Expect(step.Reason).To(Equal(roll.PutBack))
			Expect(clock).To(BeTemporally("<", now.Add(4*deadline)))
			return
		case roll.Done: // all were steady at once: that is for the proof to judge
			return
		case roll.Apply, roll.Restore, roll.Remove, roll.Watch, roll.Wait, roll.Fail:
		}
	}
	Fail("the version is never blamed")
}

var _ = Describe("A watcher", func() {
	see := func(w *roll.Watcher, at time.Duration, s roll.Sighting) time.Time {
		return w.See([]roll.Sighting{s}, now.Add(at))["a"].HealthySince
	}
	healthy := roll.Sighting{Name: "a", Hash: "h", Health: roll.Healthy, Spell: "1"}

	It("counts from the first look that found it healthy", func() {
		var w roll.Watcher
		Expect(see(&w, 0, healthy)).To(Equal(now))
		Expect(see(&w, time.Second, healthy)).To(Equal(now))
	})

	DescribeTable("counts anew after",
		func(change func(*roll.Sighting)) {
			var w roll.Watcher
			see(&w, 0, healthy)
			other := healthy
			change(&other)
			see(&w, time.Second, other)
			Expect(see(&w, 2*time.Second, healthy)).To(Equal(now.Add(2 * time.Second)))
		},
		Entry("an unhealthy spell", func(s *roll.Sighting) { s.Health = roll.Starting }),
		Entry("a restart between two looks", func(s *roll.Sighting) { s.Spell = "2" }),
		Entry("another definition", func(s *roll.Sighting) { s.Hash = "x" }),
		Entry("an absence", func(s *roll.Sighting) { s.Name = "b" }),
	)
})
