package silence_test

import (
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/silence"
)

func TestSilence(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "silence")
}

var (
	noon   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	limits = silence.Limits{InactiveAfter: 10 * time.Minute, DeleteAfter: 20 * time.Minute}
)

// covered is a stretch of so many minutes that ends at noon.
func covered(minutes int) silence.Covered {
	return silence.Covered{Since: noon.Add(-time.Duration(minutes) * time.Minute), Until: noon}
}

var _ = Describe("Silence", func() {
	DescribeTable("is counted in covered time",
		func(c silence.Covered, lastSeen, want time.Duration) {
			Expect(c.Silence(noon.Add(lastSeen))).To(Equal(want))
		},
		Entry("since the last heartbeat", covered(60), -7*time.Minute, 7*time.Minute),
		Entry("since coverage began, for one that was heard before", covered(5), -time.Hour, 5*time.Minute),
		Entry("not after an outage of the broker that has just ended (E2)", covered(0), -30*time.Minute, time.Duration(0)),
		Entry("not for one that was heard after the last renewal of the lease", covered(60), 3*time.Second, time.Duration(0)),
		Entry("not while nobody covers (E3)", silence.Covered{}, -time.Hour, time.Duration(0)),
		Entry("not while the term has covered nothing", silence.Covered{Until: noon}, -time.Hour, time.Duration(0)),
	)

	DescribeTable("of a module is judged (E5)",
		func(silent time.Duration, held bool, want silence.Verdict) {
			Expect(silence.Judge(silent, limits, held)).To(Equal(want))
		},
		Entry("none", time.Duration(0), false, silence.Heard),
		Entry("9:59", 9*time.Minute+59*time.Second, false, silence.Heard),
		Entry("exactly 10:00 is not yet over", 10*time.Minute, false, silence.Heard),
		Entry("a microsecond more", 10*time.Minute+time.Microsecond, false, silence.Inactive),
		Entry("10:01", 10*time.Minute+time.Second, false, silence.Inactive),
		Entry("19:59", 19*time.Minute+59*time.Second, false, silence.Inactive),
		Entry("exactly 20:00 is not yet over", 20*time.Minute, false, silence.Inactive),
		Entry("a microsecond more", 20*time.Minute+time.Microsecond, false, silence.Gone),
		Entry("20:01", 20*time.Minute+time.Second, false, silence.Gone),
		Entry("20:01 while deletions are held (E4)", 20*time.Minute+time.Second, true, silence.Inactive),
		Entry("10:01 while deletions are held: inactivation is not (E4)", 10*time.Minute+time.Second, true, silence.Inactive),
		Entry("9:59 while deletions are held", 9*time.Minute+59*time.Second, true, silence.Heard),
	)

	DescribeTable("counts towards the brake",
		func(silent time.Duration, want bool) { Expect(silence.Missing(silent, limits)).To(Equal(want)) },
		Entry("not below the limit", 10*time.Minute-1, false),
		Entry("at the limit: the brake comes before the first deletion", 10*time.Minute, true),
	)
})

var _ = Describe("The brake", func() {
	DescribeTable("is put on (E4)",
		func(missing, total int, want bool) { Expect(silence.Brake(missing, total)).To(Equal(want)) },
		Entry("nobody is there", 0, 0, false),
		Entry("four of four: too few to tell", 4, 4, false),
		Entry("five of five", 5, 5, true),
		Entry("five of nine", 5, 9, true),
		Entry("five of ten: half is not more than half", 5, 10, false),
		Entry("six of ten", 6, 10, true),
		Entry("499 of 1000", 499, 1000, false),
		Entry("501 of 1000", 501, 1000, true),
	)

	DescribeTable("holds",
		func(h silence.Hold, want bool) { Expect(h.Lasts(limits)).To(Equal(want)) },
		Entry("at first", silence.Hold{}, true),
		Entry("until 30 covered minutes", silence.Hold{Age: 30*time.Minute - 1}, true),
		Entry("and then no more", silence.Hold{Age: 30 * time.Minute}, false),
		Entry("nor once an operator has released it", silence.Hold{Released: true}, false),
	)

	It("ages in covered time alone", func() {
		h := silence.Begin(covered(60))
		Expect(h.Age).To(BeZero())
		at := func(since, until time.Duration) silence.Covered {
			return silence.Covered{Since: noon.Add(since), Until: noon.Add(until)}
		}
		h = h.Tick(at(-time.Hour, 5*time.Minute))
		Expect(h.Age).To(Equal(5 * time.Minute))
		h = h.Tick(at(-time.Hour, 5*time.Minute))
		Expect(h.Age).To(Equal(5*time.Minute), "a second sweep over the same time")
		h = h.Tick(at(time.Hour, time.Hour+2*time.Minute))
		Expect(h.Age).To(Equal(7*time.Minute), "the break before is not counted")
		h = h.Tick(at(0, time.Minute))
		Expect(h).To(Equal(silence.Hold{Age: 7 * time.Minute, Ticked: noon.Add(time.Hour + 2*time.Minute)}),
			"nor time that was counted before")
	})
})
