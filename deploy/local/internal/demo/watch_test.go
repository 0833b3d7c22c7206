package demo_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/demo"
	"github.com/openaperture/openaperture/deploy/local/internal/table"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// snapshot is an exchange with one component of type deployer that runs v1 and should run v2.
func snapshot(change func(*managerapi.Snapshot)) managerapi.Snapshot {
	s := managerapi.Snapshot{
		Refs:       []component.Ref{{Type: component.Deployer, SourceRepoGitRef: "v2"}},
		Components: []component.Component{{ID: 7, Type: component.Deployer, SourceRepoGitRef: "v1"}},
	}
	change(&s)
	return s
}

func running(state upgrade.State, phase int) func(*managerapi.Snapshot) {
	return func(s *managerapi.Snapshot) {
		s.Upgrades = []managerapi.OpenUpgrade{{Upgrade: managerapi.Upgrade{ComponentID: 7, State: state, Phase: phase,
			To: upgrade.Version{SourceRepoGitRef: "v2"}}}}
	}
}

func quarantined(ref string) func(*managerapi.Snapshot) {
	return func(s *managerapi.Snapshot) {
		s.Quarantines = []managerapi.Quarantine{{ComponentType: component.Deployer, SourceRepoGitRef: ref}}
	}
}

var _ = DescribeTable("A row of the table tells",
	func(change func(*managerapi.Snapshot), state string) {
		Expect(demo.Rows(snapshot(change))).To(Equal([]table.Row{{"deployer", "v2", "v1", "", state}}))
	},
	Entry("that nothing happens", func(*managerapi.Snapshot) {}, "idle"),
	Entry("the state of an open upgrade", running(upgrade.InProgress, 1), "in_progress → v2"),
	Entry("that a requested upgrade has no target yet", func(s *managerapi.Snapshot) {
		running(upgrade.Requested, 0)(s)
		s.Upgrades[0].To = upgrade.Version{}
	}, "requested"),
	Entry("the second phase of the deployer pair", running(upgrade.Verifying, 2), "verifying → v2, phase 2"),
	Entry("that what is wanted is quarantined", quarantined("v2"), "quarantined: v2"),
	Entry("nothing of a quarantine of a version that is not wanted", quarantined("v0"), "idle"),
)
