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
		Entry("the ref is to be followed", "the ref", func(s *managerapi.Saw) { s.Ref.Follow = new(true) }),
		Entry("the deployment repository is to be followed", "the component's follow_deployment",
			func(s *managerapi.Saw) { s.Component.FollowDeployment = true }),
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

var _ = Describe("What git hosts said about a component", func() {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := component.Component{Type: "billing", DeploymentRepo: "deploy.git", DeploymentRepoGitRef: "main"}
	pair := component.Component{Type: component.Deployer, DeploymentRepo: "deploy.git", DeploymentRepoGitRef: "main"}
	tip := func(repo, ref, commit string) managerapi.ResolvedRef {
		return managerapi.ResolvedRef{Repo: repo, Ref: ref, Kind: component.Branch, Commit: commit, At: noon}
	}
	of := func(list ...managerapi.ResolvedRef) managerapi.Snapshot {
		return managerapi.Snapshot{Resolved: list, Refs: []component.Ref{
			{Type: "billing", SourceRepo: "src", SourceRepoGitRef: "v2"},
			{Type: component.Deployer, SourceRepo: "src", SourceRepoGitRef: "v2"}}}
	}
	all := of(tip("src", "v1", "x"), tip("src", "v2", "s2"), tip("deploy.git", "main", "d1"),
		tip("deploy_oa.git", "main", "d2"),
		tip("deploy.git", "next", "x"))

	DescribeTable("is found by repository and ref (fault 20)",
		func(s managerapi.Snapshot, c component.Component, since time.Time, source, deployment string) {
			a, b := s.Tips(c, since)
			Expect([]string{a.Commit, b.Commit}).To(Equal([]string{source, deployment}))
		},
		Entry("both", all, c, time.Time{}, "s2", "d1"),
		Entry("of a deployer both deployment repositories", all, pair, time.Time{}, "s2", "d1,d2"),
		Entry("of a deployer one of two: nothing", of(tip("deploy.git", "main", "d1")), pair, time.Time{}, "", ""),
		Entry("nothing", of(), c, time.Time{}, "", ""),
		Entry("said since a request", all, c, noon, "s2", "d1"),
		Entry("said before a request: it may have moved", all, c, noon.Add(time.Second), "", ""),
	)

	It("is an error as well, also of one of two", func() {
		s := of(managerapi.ResolvedRef{Repo: "src", Ref: "v2", Commit: "s1", At: noon, Error: "down"},
			tip("deploy.git", "main", "d1"), managerapi.ResolvedRef{Repo: "deploy_oa.git", Ref: "main", Error: "gone"})
		source, deployment := s.Tips(pair, time.Time{})
		Expect(source).To(Equal(component.Tip{Commit: "s1", Error: "down"}), "the commit is from before")
		Expect(deployment.Error).To(Equal("gone"))
	})

	It("is what a quarantine is compared with", func() {
		s := managerapi.Snapshot{Quarantines: []managerapi.Quarantine{
			{ComponentType: "billing", SourceRepo: "src", SourceRepoGitRef: "v2", SourceCommitHash: "s",
				DeploymentCommitHash: "d"},
			{ComponentType: "other", SourceRepo: "src", SourceRepoGitRef: "v2"}}}
		Expect(s.Refused("billing")).To(Equal([]upgrade.Version{{SourceRepo: "src", SourceRepoGitRef: "v2",
			SourceCommitHash: "s", DeploymentCommitHash: "d"}}))
	})
})
