package chaos_test

import (
	"bytes"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/chaos"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/component"
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
		Expect(chaos.Stopped(m, t, phase, states, struck...)).To(Equal(want))
	},
	Entry("when it is deployed and does not run", messages.MilestoneDeployOA, component.Overseer, 1, down("overseer@2.service"), nil, true),
	Entry("when it is deployed and unitd shows no state of it", messages.MilestoneDeployOA, component.Overseer, 1, map[string]string{}, nil, true),
	Entry("but not when all run", messages.MilestoneDeployOA, component.Overseer, 1, down(), nil, false),
	Entry("but not before the deploy", messages.MilestoneConfig, component.Overseer, 1, down("overseer@2.service"), nil, false),
	Entry("but not when it is of another component", messages.MilestoneDeployOA, component.Overseer, 1, down("manager-api@1.service"), nil, false),
	Entry("but not when it is of another phase", messages.MilestoneDeploy, component.Deployer, 2, down("deployer@1.service"), nil, false),
	Entry("in the second phase", messages.MilestoneDeploy, component.Deployer, 2, down("deployer-oa@1.service"), nil, true),
	Entry("but not when it was killed", messages.MilestoneDeploy, component.Deployer, 2, down("deployer-oa@1.service"), []string{"host.example.deployer-oa-1"}, false),
	Entry("when another one was killed", messages.MilestoneDeployOA, component.Overseer, 1, down("overseer@1.service", "overseer@2.service"), []string{"host.overseer-1"}, true),
	Entry("when unitd was killed", messages.MilestoneDeployOA, component.Overseer, 1, down("overseer@1.service"), []string{"unitd"}, true),
)

var _ = It("A trial says for each kind of moment how many kills fell into it", func() {
	var out bytes.Buffer
	chaos.Tally(&out, 7, 41, 3)
	Expect(out.String()).To(Equal(`of 41 kills with seed 7 fell into
      3  config
      0  stop to start of an instance
      0  verifying
      0  deployer phase 1
      0  deployer phase 2
`))
})
