package managerapi_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

var _ = Describe("What a judgement rests on", func() {
	saw := func(change func(*managerapi.Saw)) managerapi.Saw {
		s := managerapi.Saw{Trigger: upgrade.TriggerHourly, Quarantines: []string{"q1", "q2"},
			Ref: &component.Ref{Type: "billing", SourceRepo: "src", SourceRepoGitRef: "v2", AutoUpgradeEnabled: true},
			Component: component.Component{ID: 7, ExchangeID: 1, Type: "billing", SourceRepo: "src", SourceRepoGitRef: "v1",
				DeploymentRepo: "d", DeploymentRepoGitRef: "main", Strategy: component.Hourly}}
		change(&s)
		return s
	}

	DescribeTable("has changed (fault 6)",
		func(want string, change func(*managerapi.Saw)) {
			before := saw(func(*managerapi.Saw) {})
			Expect(before.Changed(saw(change))).To(Equal(want))
			Expect(saw(change).Changed(before)).To(Equal(want), "either way")
		},
		Entry("nothing", "", func(*managerapi.Saw) {}),
		Entry("taken over by a request", "the trigger of the request",
			func(s *managerapi.Saw) { s.Trigger = upgrade.TriggerRequest }),
		Entry("forced", "force of the request", func(s *managerapi.Saw) { s.Force = true }),
		Entry("the ref was deleted", "whether the type has a ref", func(s *managerapi.Saw) { s.Ref = nil }),
		Entry("the ref was disabled", "the ref", func(s *managerapi.Saw) { s.Ref.AutoUpgradeEnabled = false }),
		Entry("the ref names another version", "the ref", func(s *managerapi.Saw) { s.Ref.SourceRepoGitRef = "v3" }),
		Entry("the ref names another repository", "the ref", func(s *managerapi.Saw) { s.Ref.SourceRepo = "fork" }),
		Entry("the component has moved", "the exchange or the type of the component",
			func(s *managerapi.Saw) { s.Component.ExchangeID = 2 }),
		Entry("the component is manual now", "the component's upgrade_strategy",
			func(s *managerapi.Saw) { s.Component.Strategy = component.Manual }),
		Entry("another deployment repository", "the component's deployment repository",
			func(s *managerapi.Saw) { s.Component.DeploymentRepo = "e" }),
		Entry("another deployment ref", "the component's deployment repository",
			func(s *managerapi.Saw) { s.Component.DeploymentRepoGitRef = "next" }),
		Entry("another recorded version", "the component's recorded version",
			func(s *managerapi.Saw) { s.Component.SourceRepoGitRef = "v2" }),
		Entry("a quarantine came", "the quarantines of the type",
			func(s *managerapi.Saw) { s.Quarantines = append(s.Quarantines, "q3") }),
		Entry("a quarantine was cleared", "the quarantines of the type",
			func(s *managerapi.Saw) { s.Quarantines = s.Quarantines[:1] }),
		Entry("what decides nothing", "", func(s *managerapi.Saw) {
			s.Component.Status, s.Component.LastVerdict = "upgrade_failed", "quarantined"
			s.Component.NextCheckAt = new(time.Now())
		}),
	)
})
