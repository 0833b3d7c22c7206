package overseer_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
	"github.com/openaperture/openaperture/services/overseer/internal/overseer"
)

var _ = Describe("A plan by commits (fault 20)", func() {
	const hourly, explicit = upgrade.TriggerHourly, upgrade.TriggerRequest

	// onMain has the branch main wanted and recorded, at commit c1 of both repositories, which is what git hosts said ten
	// minutes ago.
	onMain := func(s *overseer.Situation) {
		s.Snapshot.Counts = s.Snapshot.Counts[2:]
		for i := range s.Snapshot.Components {
			c, r := &s.Snapshot.Components[i], &s.Snapshot.Refs[i]
			c.SourceRepoGitRef, r.SourceRepoGitRef = "main", "main"
			c.SourceCommitHash, c.DeploymentCommitHash = "c1", "c1"
		}
		s.Snapshot.Resolved = []managerapi.ResolvedRef{
			{Repo: "repo", Ref: "main", Kind: component.Branch, Commit: "c1", At: now.Add(-10 * time.Minute)},
			{Repo: "deploy", Ref: "main", Kind: component.Branch, Commit: "c1", At: now.Add(-10 * time.Minute)}}
	}
	moved := func(s *overseer.Situation) { s.Snapshot.Resolved[0].Commit = "c2" }
	resolving := func(s *overseer.Situation) { s.Snapshot.Resolving = true }
	refusing := func(source string) change {
		return func(s *overseer.Situation) {
			s.Snapshot.Quarantines = []managerapi.Quarantine{{ComponentType: component.Overseer, SourceRepo: "repo",
				SourceRepoGitRef: "main", SourceCommitHash: source, DeploymentCommitHash: "c1"}}
		}
	}
	// askedFor has a request wait that was made an hour ago, or just now.
	askedFor := func(trigger upgrade.Trigger, ago time.Duration) change {
		u := open("u1", 1, component.Overseer, upgrade.Requested, trigger)
		u.CreatedAt = now.Add(-ago)
		return withUpgrades(u)
	}

	DescribeTable("judges",
		func(s overseer.Situation, lines ...string) { Expect(told(plan(s))).To(HaveExactElements(lines)) },
		Entry("nothing new", given(onMain, withDue(0)), "check component 1, next 1h0m0s: already_latest"),
		Entry("a new commit of a branch", given(onMain, moved, withDue(0)),
			"check component 1, next 1h0m0s, create: eligible"),
		Entry("a new commit that has failed here", given(onMain, moved, withDue(0), refusing("c2")),
			"check component 1, next 1h0m0s: quarantined"),
		Entry("a fix of what has failed here", given(onMain, moved, withDue(0), refusing("c9")),
			"check component 1, next 1h0m0s, create: eligible"),
		Entry("nothing while git hosts are asked: the check stays due", given(onMain, moved, withDue(0), resolving)),
		Entry("a back-off after failures of the commit before: it is another target",
			given(onMain, moved, withDue(0), failed("main", 3, time.Minute), func(s *overseer.Situation) {
				s.Snapshot.Failures[0].Target.SourceCommitHash = "c0"
			}), "check component 1, next 1h0m0s, create: eligible"),
		Entry("a back-off after failures of this commit", given(onMain, moved, withDue(0), failed("main", 3, time.Minute)),
			"check component 1, next 1h0m0s: backing_off"),
		Entry("an hourly upgrade by what was known at the check", given(onMain, moved, askedFor(hourly, time.Hour)),
			"start u1: eligible"),
		Entry("a request by what was said since it was made", given(onMain, moved, askedFor(explicit, time.Hour)),
			"start u1: eligible"),
		Entry("a request that nothing was said since", given(onMain, moved, askedFor(explicit, 0)),
			"refuse u1: already_latest"),
		Entry("a request not before git hosts have answered", given(onMain, moved, askedFor(explicit, 0), resolving)),
		Entry("a request that is eligible anyway at once", given(askedFor(explicit, 0), resolving), "start u1: eligible"),
	)

	It("starts with the commits that were seen", func() {
		actions := plan(given(onMain, moved, askedFor(hourly, 0)))
		Expect(actions[0].Target).To(Equal(upgrade.Version{SourceRepo: "repo", SourceRepoGitRef: "main",
			SourceCommitHash:     "c2",
			DeploymentCommitHash: "c1"}))
		Expect(actions[0].Inputs.(overseer.Evidence).Source).To(Equal(component.Tip{Kind: component.Branch, Commit: "c2"}))
	})

	It("plans no commits for a request that nothing was said since: its config takes what the refs stand for then",
		func() {
			s := given(onMain, func(s *overseer.Situation) { s.Snapshot.Refs[0].SourceRepoGitRef = "v2" }, askedFor(explicit, 0))
			s.Snapshot.Resolved[0].Ref = "v2"
			Expect(plan(s)[0].Target).To(Equal(upgrade.Version{SourceRepo: "repo", SourceRepoGitRef: "v2"}))
		})
})
