package soak

import (
	"time"

	"github.com/openaperture/openaperture/pkg/component"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// Settled tells whether a release has come to its end.
var Settled = settled

// Stopped tells whether an instance that an order deploys is between its stop and its start, when these hostnames were
// struck.
func Stopped(m messages.Milestone, t component.Type, phase int, states map[string]string, struck ...string) bool {
	units := map[string]time.Time{}
	for _, hostname := range struck {
		units[unitOf(hostname)] = time.Now()
	}
	return deployment{Milestone: m, Type: t, Phase: phase}.stopped(states, units)
}

// Draw draws n faults.
func Draw(seed uint64, weights Weights, n int) []Fault {
	p := newPlan(seed, weights)
	var drawn []Fault
	for range n {
		drawn = append(drawn, p.fault())
	}
	return drawn
}

// Releases draws n releases.
func Releases(seed uint64, n, badEvery int) []Release {
	p := newPlan(seed, Everything)
	var drawn []Release
	for i := 1; i <= n; i++ {
		drawn = append(drawn, p.release(i, 1, badEvery))
	}
	return drawn
}

// Trial is what a run counts that upgraded to one release, with faults in its config milestones.
func Trial(seed uint64, release Release, faults map[Fault]int, recovery time.Duration) Tally {
	t := newTally(Config{Seed: seed})
	for f, n := range faults {
		for range n {
			t.struck(f, moment{order: "config by deployer-1", upgrade: "overseer"})
		}
	}
	t.upgraded(release, Observation{})
	t.recovered(recovery)
	return t
}

// Record counts a violation.
func Record(t *Tally, v Violation) { t.violation(v) }
