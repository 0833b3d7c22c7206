package heartbeats_test

import (
	"math/rand/v2"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/module"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/overseer/internal/heartbeats"
)

func beat(hostname, boot string, seq int64, status string) messages.ModuleStatus {
	return messages.ModuleStatus{EventType: "status", Hostname: hostname, Type: "builder", Status: status, BootID: boot,
		Seq: seq}
}

func withRef(m messages.ModuleStatus, ref string) messages.ModuleStatus {
	m.SourceRepo, m.SourceRepoGitRef = "repo", ref
	return m
}

func startedAt(m messages.ModuleStatus, hour int) messages.ModuleStatus {
	at := time.Date(2026, 3, 1, hour, 0, 0, 0, time.UTC)
	m.StartedAt = &at
	return m
}

var _ = Describe("Coalescing", func() {
	coalesced := func(beats ...messages.ModuleStatus) []messages.ModuleStatus {
		c := heartbeats.NewCoalescer(len(beats))
		for _, b := range beats {
			c.Add(b)
		}
		return c.Beats()
	}

	DescribeTable("keeps",
		func(want []messages.ModuleStatus, beats ...messages.ModuleStatus) {
			Expect(coalesced(beats...)).To(Equal(want))
		},
		Entry("the later of one boot", []messages.ModuleStatus{beat("a", "x", 2, "inactive")},
			beat("a", "x", 1, "active"), beat("a", "x", 2, "inactive")),
		Entry("the higher number, though it arrived first (E8)", []messages.ModuleStatus{beat("a", "x", 2, "inactive")},
			beat("a", "x", 2, "inactive"), beat("a", "x", 1, "active")),
		Entry("the later of two without boot", []messages.ModuleStatus{beat("a", "", 0, "inactive")},
			beat("a", "", 0, "active"), beat("a", "", 0, "inactive")),
		Entry("both boots of a restart, whatever their numbers",
			[]messages.ModuleStatus{beat("a", "x", 90, "inactive"), beat("a", "y", 1, "active")},
			beat("a", "x", 89, "active"), beat("a", "x", 90, "inactive"), beat("a", "y", 1, "active")),
		Entry("the order of two boots that alternate: two hosts have one name (E11)",
			[]messages.ModuleStatus{beat("a", "x", 1, "active"), beat("a", "y", 1, "active"), beat("a", "x", 3, "active")},
			beat("a", "x", 1, "active"), beat("a", "y", 1, "active"), beat("a", "x", 2, "active"), beat("a", "x", 3, "active")),
		Entry("hostnames apart, in the order in which they were heard",
			[]messages.ModuleStatus{beat("b", "x", 1, "active"), beat("a", "x", 2, "active")},
			beat("b", "x", 1, "active"), beat("a", "x", 1, "active"), beat("a", "x", 2, "active")),
		Entry("the known version where a later beat leaves it out",
			[]messages.ModuleStatus{withRef(beat("a", "x", 2, "inactive"), "v1")},
			withRef(beat("a", "x", 1, "active"), "v1"), beat("a", "x", 2, "inactive")),
		Entry("no version of another boot where a beat leaves it out",
			[]messages.ModuleStatus{withRef(beat("a", "x", 1, "active"), "v1"), beat("a", "y", 1, "active")},
			withRef(beat("a", "x", 1, "active"), "v1"), beat("a", "y", 1, "active")),
		Entry("the later version where both say one", []messages.ModuleStatus{withRef(beat("a", "x", 2, "active"), "v2")},
			withRef(beat("a", "x", 1, "active"), "v1"), withRef(beat("a", "x", 2, "active"), "v2")),
	)

	It("keeps no more than eight of one hostname, the last ones", func() {
		var all []messages.ModuleStatus
		for i := range int64(30) {
			all = append(all, beat("a", []string{"x", "y"}[i%2], i, "active"))
		}
		Expect(coalesced(all...)).To(Equal(all[22:]))
	})

	It("leads to the same as all beats would, one after the other (pkg/module)", func() {
		draw := rand.New(rand.NewPCG(uint64(GinkgoRandomSeed()), 3))
		now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		fold := func(known *module.Presence, beats []messages.ModuleStatus, at time.Time) *module.Presence {
			for _, m := range beats {
				next, _ := module.Merge(known, heartbeats.BeatOf(m), at, 90*time.Second)
				known = &next
			}
			return known
		}
		for range 2000 {
			var one, other *module.Presence
			seq, dated := map[string]int64{}, draw.IntN(2) == 0
			for batch := range 3 {
				var beats []messages.ModuleStatus
				for range draw.IntN(8) {
					boot := []string{"x", "y", "z"}[draw.IntN(3)]
					seq[boot] = max(1, seq[boot]+int64(draw.IntN(4))-1) // now and then a repeat
					m := beat("a", boot, seq[boot], "active")
					if dated {
						m = startedAt(m, int(boot[0]-'x'))
					}
					if boot != "y" { // a boot states its version, or does not
						m = withRef(m, "v of "+boot)
					}
					beats = append(beats, m)
				}
				at := now.Add(time.Duration(batch) * time.Duration(draw.IntN(120)) * time.Second)
				one, other = fold(one, beats, at), fold(other, coalesced(beats...), at)
				Expect(other).To(Equal(one), "%+v", beats)
			}
		}
	})
})
