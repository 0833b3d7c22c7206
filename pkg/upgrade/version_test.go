package upgrade_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

var _ = Describe("Two versions", func() {
	v := func(repo, ref, source, deployment string) upgrade.Version {
		return upgrade.Version{SourceRepo: repo, SourceRepoGitRef: ref, SourceCommitHash: source,
			DeploymentCommitHash: deployment}
	}

	DescribeTable("are the same as far as anybody knows (fault 20)",
		func(a, b upgrade.Version, same bool) {
			Expect(a.Same(b)).To(Equal(same))
			Expect(b.Same(a)).To(Equal(same))
		},
		Entry("all is equal", v("r", "v1", "s", "d"), v("r", "v1", "s", "d"), true),
		Entry("another repository", v("r", "v1", "s", "d"), v("q", "v1", "s", "d"), false),
		Entry("another ref at the same commits", v("r", "v1", "s", "d"), v("r", "v2", "s", "d"), false),
		Entry("another source commit", v("r", "v1", "s", "d"), v("r", "v1", "t", "d"), false),
		Entry("another deployment commit", v("r", "v1", "s", "d"), v("r", "v1", "s", "e"), false),
		Entry("no source commit is known on one side", v("r", "v1", "", "d"), v("r", "v1", "s", "d"), true),
		Entry("no deployment commit is known on one side", v("r", "v1", "s", ""), v("r", "v1", "s", "d"), true),
		Entry("no commit is known at all", v("r", "v1", "", ""), v("r", "v1", "", ""), true),
		Entry("one commit is known to differ, the other is not known", v("r", "v1", "s", ""), v("r", "v1", "t", "d"), false),
	)

	DescribeTable("are told apart in words by what differs",
		func(a, b upgrade.Version, words string) { Expect(a.Beside(b)).To(Equal(words)) },
		Entry("by the ref", v("r", "v1", "s", "d"), v("r", "v2", "t", "d"), "v1"),
		Entry("by the source commit", v("r", "main", "0123456789abcdef", "d"), v("r", "main", "t", "e"),
			"main at commit 0123456789ab"),
		Entry("by the deployment commit", v("r", "main", "s", "0123456789abcdef,f"), v("r", "main", "s", "e,f"),
			"main of deployment commit 0123456789ab,f"),
		Entry("not at all", v("r", "main", "s", "d"), v("r", "main", "", "d"), "main"),
	)

	It("have the commits of several deployment repositories, all or none", func() {
		Expect(upgrade.JoinCommits("a")).To(Equal("a"))
		Expect(upgrade.JoinCommits("a", "b")).To(Equal("a,b"))
		Expect(upgrade.JoinCommits("a", "")).To(BeEmpty())
		Expect(upgrade.JoinCommits("")).To(BeEmpty())
		for phase, want := range []string{"", "a", "b", ""} {
			Expect(upgrade.CommitOf("a,b", phase)).To(Equal(want), "phase %d", phase)
		}
		Expect(upgrade.CommitOf("", 1)).To(BeEmpty())
		Expect(upgrade.CommitOf("a", 1)).To(Equal("a"))
	})

	DescribeTable("are deployed from the repository of their phase",
		func(t component.Type, repo string, want ...string) {
			var got []string
			for _, phase := range upgrade.PhasesOf(t) {
				got = append(got, phase.DeploymentRepo(repo))
			}
			Expect(got).To(Equal(want))
		},
		Entry("of a user's own type", component.Type("billing"), "a/b", "a/b"),
		Entry("of the deployers", component.Deployer, "a/b", "a/b", "a/b_oa"),
		Entry("of the deployers, with .git", component.Deployer, "https://h/a/b.git", "https://h/a/b.git",
			"https://h/a/b_oa.git"),
	)
})
