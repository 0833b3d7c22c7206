package soak_test

import (
	"bytes"
	"maps"
	"path/filepath"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/soak"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// down are the states of all units when some are not active.
func down(units ...string) map[string]string {
	states := map[string]string{}
	for _, v := range stack.Own {
		for i := 1; i <= v.Instances; i++ {
			states[v.Unit(i)] = "active"
		}
	}
	for _, u := range units {
		states[u] = "inactive"
	}
	return states
}

var _ = DescribeTable("An instance is between its stop and its start",
	func(m messages.Milestone, t component.Type, phase int, states map[string]string, struck []string, want bool) {
		Expect(soak.Stopped(m, t, phase, states, struck...)).To(Equal(want))
	},
	Entry("when it is deployed and does not run",
		messages.MilestoneDeployOA, component.Overseer, 1, down("overseer@2.service"), nil, true),
	Entry("when it is deployed and unitd shows no state of it",
		messages.MilestoneDeployOA, component.Overseer, 1, map[string]string{}, nil, true),
	Entry("but not when all run", messages.MilestoneDeployOA, component.Overseer, 1, down(), nil, false),
	Entry("but not before the deploy", messages.MilestoneConfig, component.Overseer, 1, down("overseer@2.service"), nil,
		false),
	Entry("but not when it is of another component",
		messages.MilestoneDeployOA, component.Overseer, 1, down("manager-api@1.service"), nil, false),
	Entry("but not when it is of another phase",
		messages.MilestoneDeploy, component.Deployer, 2, down("deployer@1.service"), nil, false),
	Entry("in the second phase", messages.MilestoneDeploy, component.Deployer, 2, down("deployer-oa@1.service"), nil,
		true),
	Entry("but not when it was killed", messages.MilestoneDeploy, component.Deployer, 2, down("deployer-oa@1.service"),
		[]string{"host.example.deployer-oa-1"}, false),
	Entry("when another one was killed", messages.MilestoneDeployOA, component.Overseer, 1,
		down("overseer@1.service", "overseer@2.service"),
		[]string{"host.overseer-1"}, true),
	Entry("when unitd was killed", messages.MilestoneDeployOA, component.Overseer, 1, down("overseer@1.service"),
		[]string{"unitd"}, true),
)

var _ = Describe("A plan", func() {
	It("draws the same twice from one seed, and something else from another", func() {
		Expect(soak.Draw(7, soak.Everything, 200)).To(Equal(soak.Draw(7, soak.Everything, 200)))
		Expect(soak.Draw(7, soak.Everything, 200)).NotTo(Equal(soak.Draw(8, soak.Everything, 200)))
	})

	It("draws each kind about as often as it weighs", func() {
		drawn := map[soak.Fault]int{}
		for _, f := range soak.Draw(7, soak.Everything, 4100) {
			drawn[f]++
		}
		for f, weight := range soak.Everything {
			Expect(drawn[f]).To(BeNumerically("~", 100*weight, 60), string(f))
		}
	})

	It("draws kills alone where nothing else weighs", func() {
		Expect(slices.Compact(soak.Draw(7, soak.KillsOnly, 50))).To(Equal([]soak.Fault{soak.Kill}))
	})

	It("makes every so many releases bad, in every way that there is", func() {
		ways := map[string]bool{}
		bad := 0
		for _, r := range soak.Releases(7, 1000, 10) {
			if r.Broken == nil {
				continue
			}
			bad++
			ways[r.Broken.Name+" "+string(r.Mode)] = true
			if r.Mode == stack.Forgetful {
				Expect(r.Broken.Name).To(Equal(stack.Own[0].Name))
			}
		}
		Expect(bad).To(Equal(100))
		Expect(ways).To(HaveLen(len(stack.Own)*len(stack.Modes) + 1))
		Expect(soak.Releases(7, 3, 0)).To(HaveEach(HaveField("Broken", BeNil())))
	})
})

var _ = DescribeTable("A release has come to its end", func(change func(*soak.Observation, *soak.Release), want bool) {
	o, r := sound(), soak.Release{Ref: "v2"}
	for i := range o.Components {
		o.Components[i].Recorded = "v2"
	}
	o.Upgrades[1].State = upgrade.Completed
	change(&o, &r)
	Expect(soak.Settled(o, r)).To(Equal(want))
},
	Entry("when it is recorded everywhere", func(*soak.Observation, *soak.Release) {}, true),
	Entry("but not while it is recorded for some",
		func(o *soak.Observation, _ *soak.Release) { o.Components[0].Recorded = "v1" }, false),
	Entry("but not while an upgrade is open",
		func(o *soak.Observation, _ *soak.Release) { o.Upgrades[1].State = upgrade.Requested }, false),
	Entry("but not before anything was seen", func(o *soak.Observation, _ *soak.Release) { *o = soak.Observation{} },
		false),
	Entry("when it is blamed for the type in which it is bad", func(o *soak.Observation, r *soak.Release) {
		r.Broken, o.Components[2].Recorded = &stack.Own[3], "v1"
		o.Quarantines = []soak.Quarantine{{Type: component.Deployer, Ref: "v2"}}
	}, true),
	Entry("but not when another one is blamed", func(o *soak.Observation, r *soak.Release) {
		r.Broken, o.Components[2].Recorded = &stack.Own[3], "v1"
		o.Quarantines = []soak.Quarantine{{Type: component.Deployer, Ref: "v1"}}
	}, false),
)

var _ = Describe("The results", func() {
	It("say for each kind of moment how many faults fell into it, and add up over the runs of a file", func() {
		path := filepath.Join(GinkgoT().TempDir(), "results")
		one := soak.Trial(7, soak.Release{Ref: "v2"}, map[soak.Fault]int{soak.Kill: 3, soak.Cut: 1}, 2*time.Second)
		sum, err := one.Append(path)
		Expect(err).NotTo(HaveOccurred())
		Expect(sum.Faults).To(Equal(one.Faults))
		other := soak.Trial(8, soak.Release{Ref: "v2", Broken: &stack.Own[0]}, map[soak.Fault]int{soak.Kill: 2},
			4*time.Second)
		sum, err = other.Append(path)
		Expect(err).NotTo(HaveOccurred())
		var out bytes.Buffer
		sum.Write(&out)
		Expect(out.String()).To(Equal(`
seeds [7 8], 0 s, 0 steps with all invariants, 0 heartbeats of simulated modules
      1  good releases, 1 proven
      1  bad releases, 1 rolled back
      0  stuck
      0  doubled
      0  wrong
      0  upgrades failed by the environment and were made again
    4.0  s from the last fault until all was right (median; at most 4.0)
  faults                           kill      cut
  in all                              5        1
  between upgrades                    0        0
  config                              5        1
  stop to start of an instance        0        0
  deploying                           0        0
  verifying                           0        0
  rolling back                        0        0
  deployer phase 1                    0        0
  deployer phase 2                    0        0
`))
	})

	It("name what was broken", func() {
		t := soak.Trial(7, soak.Release{Ref: "v2"}, nil, time.Second)
		now := sound()
		now.Outbox.Unproven = 1
		for _, v := range soak.Check(sound(), now) {
			soak.Record(&t, v)
		}
		var out bytes.Buffer
		t.Write(&out)
		Expect(out.String()).To(ContainSubstring("      1  wrong\n"))
		Expect(out.String()).To(ContainSubstring("BROKEN   I12 (nothing counts as published"))
		Expect(slices.Collect(maps.Values(t.Broken))).To(Equal([]int{1}))
	})
})
