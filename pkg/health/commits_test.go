package health_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/health"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

var _ = Describe("Health by commits (fault 20)", func() {
	// withTip has v2 recorded at commit 1, and the git host say that it stands for another one now.
	withTip := func(kind component.RefKind, commit, err string) change {
		return func(in *health.Input) {
			in.Components[0].SourceCommitHash = commitOf("1")
			in.Source = map[component.ID]component.Tip{1: {Kind: kind, Commit: commit, Error: err}}
		}
	}
	refused := func(in *health.Input) {
		in.Quarantined = map[component.Type][]upgrade.Version{component.Overseer: {{SourceRepo: repo, SourceRepoGitRef: "v2",
			SourceCommitHash: commitOf("2")}}}
	}

	DescribeTable("tells what is new behind the refs",
		func(in health.Input, verdict health.Verdict, action health.Action, reason health.Reason, message string) {
			l := health.Judge(in)[1]
			Expect([]any{l.Type, l.Verdict, l.Action, l.Reason}).To(Equal([]any{component.Overseer, verdict, action, reason}))
			Expect(l.Message).To(Equal(message))
		},
		Entry("nothing", given(withTip(component.Branch, commitOf("1"), "")), health.Healthy, health.None, health.AsDesired,
			"the desired version is recorded and runs"),
		Entry("a branch has moved", given(withTip(component.Branch, commitOf("2"), "")), health.Outdated, health.Upgrade,
			health.UpgradeDue, "another version is recorded or runs: the next check upgrades it to v2. "+
				"v2 has moved from commit 111111111111 to 222222222222"),
		Entry("a branch has moved to what failed here", given(withTip(component.Branch, commitOf("2"), ""), refused),
			health.Outdated, health.None, health.Reason("quarantined"), "v2 failed here and is in quarantine: set another ref, "+
				"push a fix, clear the quarantine, or request the upgrade with force"),
		Entry("a tag was moved", given(withTip(component.Tag, commitOf("2"), "")), health.Healthy, health.None,
			health.AsDesired, "the desired version is recorded and runs. v2 has moved from commit 111111111111 to "+
				"222222222222, "+
				"which is not followed: set follow of the ref to true, set another ref, or request the upgrade with force"),
		Entry("the git host is down", given(withTip(component.Branch, commitOf("1"), "git.example does not answer")),
			health.Healthy, health.None, health.AsDesired, "the desired version is recorded and runs. "+
				"new commits of the ref are not known: git.example does not answer"),
	)
})
