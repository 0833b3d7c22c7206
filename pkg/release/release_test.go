package release_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/release"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

var _ = Describe("The owner of a unit name", func() {
	managers := release.Holding{ComponentID: 1, Type: "manager", Phase: 1, Units: []string{"manager-api@.service"}}
	second := release.Holding{ComponentID: 2, Type: "deployer", Phase: 2, Units: []string{"deployer-oa.service"}}
	DescribeTable("is",
		func(units []string, want bool, owner release.Holding) {
			name, found, ok := release.Owner(units, []release.Holding{managers, second})
			Expect(ok).To(Equal(want))
			Expect(found).To(Equal(owner))
			if want {
				Expect(units).To(ContainElement(name))
			}
		},
		Entry("nobody, if the name is new", []string{"hello@.service"}, false, release.Holding{}),
		Entry("the component whose template has the name (trust C4)", []string{"hello.service", "manager-api@.service"}, true,
			managers),
		Entry("the same for one instance", []string{"manager-api@1.service"}, true, managers),
		Entry("the same for a plain unit of the name", []string{"manager-api.service"}, true, managers),
		Entry("another phase of the same component", []string{"deployer-oa@.service"}, true, second),
		Entry("nobody, if the name is longer", []string{"manager-api-2@.service", "my-manager-api@.service"}, false,
			release.Holding{}),
		Entry("nobody, if it is no unit's name", []string{""}, false, release.Holding{}),
	)
})

var _ = Describe("The holdings that count where a release takes a name", func() {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	DescribeTable("are",
		func(want bool, change func(*release.Holding)) {
			h := release.Holding{ComponentID: 1, Phase: 1, Units: []string{"web@.service"}, StoredAt: noon, ProvenStoredAt: noon}
			change(&h)
			list := []release.Holding{h}
			if want {
				Expect(release.Current(list)).To(Equal(list))
			} else {
				Expect(release.Current(list)).To(BeEmpty())
			}
			Expect(list).To(Equal([]release.Holding{h}), "the list stays as it was")
		},
		Entry("that of the release that was proven last", true, func(*release.Holding) {}),
		Entry("those stored since", true, func(h *release.Holding) { h.StoredAt = noon.Add(time.Minute) }),
		Entry("not those of before: the name was given up", false,
			func(h *release.Holding) { h.StoredAt = noon.Add(-time.Minute) }),
		Entry("all, if none was proven", true, func(h *release.Holding) { h.ProvenStoredAt = time.Time{} }),
		Entry("not that of a workflow without component", false, func(h *release.Holding) { h.ComponentID = 0 }),
	)
})

var _ = Describe("The units that leave with a deploy", func() {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	before, after := noon.Add(-time.Hour), noon.Add(time.Hour)
	proven := release.Former{Units: []string{"web@.service", "old.service"}, StoredAt: before, ProvenAt: noon,
		Deployed: true}
	tried := release.Former{Units: []string{"tried.service"}, StoredAt: after, Deployed: true}
	untouched := release.Former{Units: []string{"untouched.service"}, StoredAt: after}
	earlier := release.Former{Units: []string{"ancient.service"}, StoredAt: before, ProvenAt: before, Deployed: true}
	returned := release.Former{Units: []string{"tried.service"}, StoredAt: before, OfUpgrade: true, Deployed: true}
	other := []release.Holding{{ComponentID: 9, Phase: 1, Units: []string{"old@.service"}}}
	DescribeTable("are",
		func(want []string, former []release.Former, wanted []string, others []release.Holding, known bool) {
			lastProof := noon
			if len(former) == 1 && former[0].ProvenAt.IsZero() {
				lastProof = time.Time{}
			}
			Expect(release.Leaving(former, lastProof, wanted, others, known)).To(BeEquivalentTo(want))
		},
		Entry("those of the proven release that are not wanted", []string{"old.service"},
			[]release.Former{proven}, []string{"web@.service"}, nil, true),
		Entry("also under another kind of the name: a template and a plain unit have one base", []string{"web@.service"},
			[]release.Former{proven}, []string{"old@.service"}, nil, true),
		Entry("those of a later release whose deploy may have touched something", []string{"old.service", "tried.service"},
			[]release.Former{proven, tried}, []string{"web@.service"}, nil, true),
		Entry("not those of a release that was never deployed", []string{"old.service"},
			[]release.Former{proven, untouched}, []string{"web@.service"}, nil, true),
		Entry("not those of a release before the proven one", []string{"old.service"},
			[]release.Former{proven, earlier}, []string{"web@.service"}, nil, true),
		Entry("those of an earlier release that the same upgrade has deployed", []string{"old.service", "tried.service"},
			[]release.Former{proven, returned}, []string{"web@.service"}, nil, true),
		Entry("those of every release that was deployed, if none was ever proven", []string{"tried.service"},
			[]release.Former{tried}, []string{"web@.service"}, nil, true),
		Entry("none of a release that was never deployed, if none was ever proven", []string(nil),
			[]release.Former{untouched}, []string{"web@.service"}, nil, true),
		Entry("not a name that another component has", []string{},
			[]release.Former{proven}, []string{"web@.service"}, other, true),
		Entry("none while a component has no release: they may be its own", []string(nil),
			[]release.Former{proven}, []string{"web@.service"}, nil, false),
		Entry("each name once", []string{"old.service"},
			[]release.Former{proven, {Units: []string{"old.service"}, StoredAt: after, Deployed: true}},
			[]string{"web@.service"}, nil, true),
	)
})

var _ = Describe("The release to return to by default", func() {
	at := func(minute int) time.Time { return time.Date(2026, 3, 1, 12, minute, 0, 0, time.UTC) }
	v := func(ref string) upgrade.Version { return upgrade.Version{SourceRepo: "src", SourceRepoGitRef: ref} }
	of := func(id, ref string, first, last int) release.Proven {
		return release.Proven{ID: id, Version: v(ref), FirstAt: at(first), LastAt: at(last)}
	}
	adopted := func(p release.Proven) release.Proven { p.Adopted = true; return p }
	DescribeTable("is",
		func(want string, recorded string, list ...release.Proven) {
			p, ok := release.Earlier(list, v(recorded))
			Expect(ok).To(Equal(want != ""))
			Expect(p.ID).To(Equal(want))
		},
		Entry("the version before", "a", "v2", of("a", "v1", 1, 1), of("b", "v2", 2, 2)),
		Entry("the one that was proven last of several", "b", "v3", of("a", "v1", 1, 1), of("b", "v2", 2, 2),
			of("c", "v3", 3, 3)),
		Entry("not the recorded version itself, however often it was proven", "a", "v2",
			of("a", "v1", 1, 1), of("b", "v2", 2, 2), of("c", "v2", 3, 3)),
		Entry("after a rollback further back, not forth", "a", "v2",
			of("a", "v1", 1, 1), of("b", "v2", 2, 4), of("c", "v3", 3, 3)),
		Entry("what the deploy found, also if both were proven at one instant", "a", "v2",
			adopted(of("a", "v1", 1, 1)), of("b", "v2", 1, 1)),
		Entry("nothing, if there is no other version", "", "v1", of("a", "v1", 1, 1)),
		Entry("nothing, if all others are later", "", "v1", of("a", "v1", 1, 1), of("b", "v2", 2, 2)),
		Entry("the last one, if the recorded version was never proven here", "b", "v9", of("a", "v1", 1, 1),
			of("b", "v2", 2, 2)),
		Entry("nothing of nothing", "", "v1"),
	)
})

var _ = Describe("Whether a version was proven before an upgrade", func() {
	began := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(repo, ref, source, deployment string) upgrade.Version {
		return upgrade.Version{SourceRepo: repo, SourceRepoGitRef: ref, SourceCommitHash: source,
			DeploymentCommitHash: deployment}
	}
	deployed := at("src", "v1", "s1", "d1")
	DescribeTable("follows from the proven releases",
		func(want bool, stored time.Duration, v upgrade.Version) {
			list := []release.Proven{{Version: at("src", "v0", "s0", "d0")}, {Version: v, StoredAt: began.Add(stored)}}
			Expect(release.ProvenBefore(deployed, began, list)).To(Equal(want))
		},
		Entry("of the same commits", true, -time.Hour, deployed),
		Entry("of commits that nobody knows", true, -time.Hour, at("src", "v1", "", "")),
		Entry("of another source commit", false, -time.Hour, at("src", "v1", "s2", "d1")),
		Entry("of another deployment commit", false, -time.Hour, at("src", "v1", "s1", "d2")),
		Entry("of another ref", false, -time.Hour, at("src", "v2", "s1", "d1")),
		Entry("of another repository", false, -time.Hour, at("fork", "v1", "s1", "d1")),
		Entry("stored by the upgrade itself", false, time.Second, deployed),
		Entry("stored at its start", false, time.Duration(0), deployed),
	)
	It("is no without any", func() { Expect(release.ProvenBefore(deployed, began, nil)).To(BeFalse()) })
})
