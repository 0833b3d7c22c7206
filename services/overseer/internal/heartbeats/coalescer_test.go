package heartbeats_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/overseer/internal/heartbeats"
)

func beat(hostname, boot string, seq int64, status string) messages.ModuleStatus {
	return messages.ModuleStatus{EventType: "status", Hostname: hostname, Type: "builder", Status: status, BootID: boot, Seq: seq}
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
	DescribeTable("keeps one beat per hostname",
		func(want []messages.ModuleStatus, beats ...messages.ModuleStatus) {
			c := heartbeats.NewCoalescer(len(beats))
			for _, b := range beats {
				c.Add(b)
			}
			Expect(c.Beats()).To(Equal(want))
		},
		Entry("the later of one boot", []messages.ModuleStatus{beat("a", "x", 2, "inactive")}, beat("a", "x", 1, "active"), beat("a", "x", 2, "inactive")),
		Entry("the higher number, though it arrived first (E8)", []messages.ModuleStatus{beat("a", "x", 2, "inactive")},
			beat("a", "x", 2, "inactive"), beat("a", "x", 1, "active")),
		Entry("the later of two boots, whatever their numbers", []messages.ModuleStatus{beat("a", "y", 1, "active")},
			beat("a", "x", 90, "inactive"), beat("a", "y", 1, "active")),
		Entry("the one that was started later, though an old beat of the earlier arrived last (E8)", []messages.ModuleStatus{startedAt(beat("a", "y", 1, "active"), 2)},
			startedAt(beat("a", "y", 1, "active"), 2), startedAt(beat("a", "x", 90, "inactive"), 1)),
		Entry("the later of two without boot", []messages.ModuleStatus{beat("a", "", 0, "inactive")}, beat("a", "", 0, "active"), beat("a", "", 0, "inactive")),
		Entry("hostnames apart, in the order in which they were heard",
			[]messages.ModuleStatus{beat("b", "x", 1, "active"), beat("a", "x", 2, "active")},
			beat("b", "x", 1, "active"), beat("a", "x", 1, "active"), beat("a", "x", 2, "active")),
		Entry("the known version where a later beat leaves it out", []messages.ModuleStatus{withRef(beat("a", "x", 2, "inactive"), "v1")},
			withRef(beat("a", "x", 1, "active"), "v1"), beat("a", "x", 2, "inactive")),
		Entry("the later version where both say one", []messages.ModuleStatus{withRef(beat("a", "y", 1, "active"), "v2")},
			withRef(beat("a", "x", 1, "active"), "v1"), withRef(beat("a", "y", 1, "active"), "v2")),
	)
})
