package routing_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/routing"
)

// moment is what a Switch sees so many seconds after the beginning, and what it should answer.
type moment struct {
	at                int
	primary, failover bool
	diverted          bool
	again             int // seconds; 0: only a change can matter
}

var _ = Describe("The switch between a broker and its failover", func() {
	DescribeTable("(A15)", func(moments ...moment) {
		s := routing.Switch{After: 60 * time.Second, Back: 30 * time.Second}
		begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for _, m := range moments {
			diverted, again := s.Look(m.primary, m.failover, begin.Add(time.Duration(m.at)*time.Second))
			Expect(diverted).To(Equal(m.diverted), "diverted at %d s", m.at)
			Expect(again).To(Equal(time.Duration(m.again)*time.Second), "to look again at %d s", m.at)
		}
	},
		Entry("stays with a broker that is open",
			moment{0, true, true, false, 0}, moment{1000, true, true, false, 0}),
		Entry("leaves a broker that was away for long enough",
			moment{0, true, true, false, 0}, moment{10, false, true, false, 60}, moment{69, false, true, false, 1},
			moment{70, false, true, true, 0}),
		Entry("counts from the first look when the broker was never there",
			moment{0, false, true, false, 60}, moment{60, false, true, true, 0}),
		Entry("counts each absence for itself",
			moment{0, false, true, false, 60}, moment{50, true, true, false, 0}, moment{51, false, true, false, 60},
			moment{100, false, true, false, 11}, moment{111, false, true, true, 0}),
		Entry("does not leave for a failover that is away too",
			moment{0, false, false, false, 60}, moment{60, false, false, false, 0}, moment{500, false, true, true, 0}),
		Entry("goes back after the dwell, not before",
			moment{0, false, true, false, 60}, moment{60, false, true, true, 0}, moment{100, true, true, true, 30},
			moment{129, true, true, true, 1}, moment{130, true, true, false, 0}),
		Entry("does not go back to a broker that flaps",
			moment{0, false, true, false, 60}, moment{60, false, true, true, 0}, moment{100, true, true, true, 30},
			moment{110, false, true, true, 0}, moment{120, true, true, true, 30}, moment{140, true, true, true, 10},
			moment{150, true, true, false, 0}),
		Entry("goes back at once when the failover is lost and the broker is there",
			moment{0, false, true, false, 60}, moment{60, false, true, true, 0}, moment{61, true, true, true, 30},
			moment{62, true, false, false, 0}),
		Entry("stays where it is when both are away",
			moment{0, false, true, false, 60}, moment{60, false, true, true, 0}, moment{90, false, false, true, 0},
			moment{95, false, true, true, 0}),
	)
})
