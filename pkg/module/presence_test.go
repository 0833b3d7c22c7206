package module_test

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/module"
)

func TestModule(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "module")
}

const liveWithin = 90 * time.Second

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// step is a beat that is received so long after noon.
type step struct {
	at   time.Duration
	beat module.Beat
}

func beat(at time.Duration, boot string, seq int64, changes ...func(*module.Beat)) step {
	b := module.Beat{BootID: boot, Seq: seq, Status: module.Active}
	for _, c := range changes {
		c(&b)
	}
	return step{at, b}
}

func ref(v string) func(*module.Beat) { return func(b *module.Beat) { b.SourceRepoGitRef = v } }
func inactive(b *module.Beat)         { b.Status = module.Inactive }
func started(at time.Duration) func(*module.Beat) {
	return func(b *module.Beat) { b.StartedAt = noon.Add(at) }
}

// told is a presence in one line: what counts, since when it is steady, and whether the other boot is alive beside it.
func told(p module.Presence, now time.Time) string {
	line := fmt.Sprintf("%s %d %s", p.Boot.ID, p.Boot.Seq, p.Says.Status)
	if p.Says.SourceRepoGitRef != "" {
		line += " " + p.Says.SourceRepoGitRef
	}
	line += fmt.Sprintf(", since %s, steady %s", p.Boot.Since.Sub(noon), p.Steady.Sub(noon))
	switch {
	case p.RivalAlive(now, liveWithin):
		line += fmt.Sprintf("; rival %s, again %s", p.Other.ID, p.Again.Sub(noon))
	case p.Other != nil:
		line += "; other " + p.Other.ID
	}
	return line
}

var _ = Describe("Of the beats of one hostname", func() {
	const s = time.Second

	DescribeTable("what counts is",
		func(want string, steps ...step) {
			var p *module.Presence
			var now time.Time
			for _, x := range steps {
				now = noon.Add(x.at)
				next, changed := module.Merge(p, x.beat, now, liveWithin)
				if !changed {
					Expect(next).To(Equal(*p))
				}
				p = &next
			}
			Expect(told(*p, now)).To(Equal(want))
		},
		Entry("the first", "a 1 active v1, since 0s, steady 0s", beat(0, "a", 1, ref("v1"))),
		Entry("the later one of a boot, with the version as before", "a 2 active v1, since 0s, steady 0s",
			beat(0, "a", 1, ref("v1")), beat(30*s, "a", 2)),
		Entry("not one of a boot that was seen before (E8)", "a 2 active v2, since 0s, steady 30s",
			beat(0, "a", 1, ref("v1")), beat(30*s, "a", 2, ref("v2")),
			beat(31*s, "a", 2, ref("v1")), beat(32*s, "a", 1, ref("v1"))),
		Entry("every one of a sender that counts nothing", "a 0 active v2, since 0s, steady 30s",
			beat(0, "a", 0, ref("v1")), beat(30*s, "a", 0, ref("v2"))),
		Entry("another status: steady begins anew", "a 2 inactive v1, since 0s, steady 30s",
			beat(0, "a", 1, ref("v1")), beat(30*s, "a", 2, inactive)),
		Entry("a restart at once, which inherits no version; the boot before stays silent",
			"b 1 active, since 30s, steady 30s; other a",
			beat(0, "a", 1, ref("v1")), beat(30*s, "b", 1)),
		Entry("a restart of a process that had said that it ends", "b 1 active v2, since 30s, steady 30s; other a",
			beat(0, "a", 1, ref("v1")), beat(29*s, "a", 2, inactive), beat(30*s, "b", 1, ref("v2"))),
		Entry("a crash loop: each boot at once, none is a rival", "d 1 active, since 3s, steady 3s; other c",
			beat(0, "a", 1), beat(1*s, "b", 1), beat(2*s, "c", 1), beat(3*s, "d", 1)),
		Entry("what the queue gives out once more of the boot before: it is no rival (E8)",
			"b 1 active, since 30s, steady 30s; other a",
			beat(0, "a", 1), beat(1*s, "a", 2), beat(30*s, "b", 1), beat(31*s, "a", 2), beat(32*s, "a", 1)),
		Entry("the last word of the boot before that came late: it is no rival",
			"b 1 active, since 30s, steady 30s; other a",
			beat(0, "a", 1), beat(30*s, "b", 1), beat(31*s, "a", 2, inactive)),
		Entry("the newer of two boots that both go on: they are rivals, and the row does not flap (E11)",
			"b 2 active v2, since 30s, steady 30s; rival a, again 1m5s",
			beat(0, "a", 1, ref("v1")), beat(30*s, "b", 1, ref("v2")),
			beat(35*s, "a", 2, ref("v1")), beat(60*s, "b", 2, ref("v2")),
			beat(65*s, "a", 3, ref("v1"))),
		Entry("the one that goes on when the other is silent for live_within (E11)",
			"a 5 active v1, since 0s, steady 2m5s; other b",
			beat(0, "a", 1, ref("v1")), beat(30*s, "b", 1, ref("v2")),
			beat(35*s, "a", 2, ref("v1")), beat(65*s, "a", 3, ref("v1")),
			beat(95*s, "a", 4, ref("v1")), beat(125*s, "a", 5, ref("v1"))),
		Entry("the one that goes on when the other says that it ends, at once (E11)",
			"a 3 active, since 0s, steady 45s; other b",
			beat(0, "a", 1), beat(30*s, "b", 1), beat(35*s, "a", 2), beat(40*s, "b", 2, inactive), beat(45*s, "a", 3)),
		Entry("no rival any more once it has said that it ends (E11)", "b 2 active, since 30s, steady 30s; other a",
			beat(0, "a", 1), beat(30*s, "b", 1), beat(35*s, "a", 2), beat(40*s, "a", 3, inactive), beat(60*s, "b", 2)),
		Entry("no rival any more once it is silent for live_within (E11)", "b 3 active, since 30s, steady 30s; other a",
			beat(0, "a", 1), beat(30*s, "b", 1), beat(35*s, "a", 2), beat(60*s, "b", 2), beat(126*s, "b", 3)),
		Entry("the restart of one of two rivals: the other stays a rival (E11)",
			"c 1 active, since 40s, steady 40s; rival a, again 35s",
			beat(0, "a", 1), beat(30*s, "b", 1), beat(35*s, "a", 2), beat(40*s, "c", 1)),
		Entry("the boot that was started later, while the one before is heard for the first time: it is a rival (E11)",
			"b 1 active, since 0s, steady 0s; rival a, again 10s",
			beat(0, "b", 1, started(0)), beat(10*s, "a", 7, started(-time.Hour))),
		Entry("one that was started earlier, when nobody keeps beats for so long: its host's clock is to blame",
			"a 7 active, since 2m0s, steady 2m0s; other b",
			beat(0, "b", 1, started(0)), beat(120*s, "a", 7, started(-time.Hour))),
		Entry("not the last word of one that was started earlier", "b 1 active, since 0s, steady 0s",
			beat(0, "b", 1, started(0)), beat(10*s, "a", 7, started(-time.Hour), inactive)),
	)
})
