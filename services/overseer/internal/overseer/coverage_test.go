package overseer_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/services/overseer/internal/overseer"
)

// ears is what the broker says about itself.
type ears struct {
	session uint64
	deaf    string // a queue that is not consumed
}

func (e *ears) Session() uint64              { return e.session }
func (e *ears) Subscribed(queue string) bool { return queue != e.deaf }

var _ = Describe("Coverage", func() {
	// each step is told the coverage, the broker and the time; the last answer of Covered counts
	covered := func(steps ...func(*overseer.Coverage, *ears)) []bool {
		e := &ears{session: 1}
		c := overseer.NewCoverage(e, 90*time.Second, zap.NewNop(), "q1", "q2")
		c.Begin()
		answers := []bool{}
		for _, step := range steps {
			step(c, e)
			answer, told := c.Covered(now)
			told()
			answers = append(answers, answer)
		}
		return answers
	}
	nothing := func(*overseer.Coverage, *ears) {}
	ownBeat := func(c *overseer.Coverage, e *ears) { c.OwnBeat(e.session, now) }
	ownBeatBefore := func(d time.Duration) func(*overseer.Coverage, *ears) {
		return func(c *overseer.Coverage, e *ears) { c.OwnBeat(e.session, now.Add(-d)) }
	}
	newSession := func(_ *overseer.Coverage, e *ears) { e.session++ }
	batchFails := func(c *overseer.Coverage, _ *ears) { c.Break("batch") }
	newTerm := func(c *overseer.Coverage, _ *ears) { c.Begin() }
	lateCommit := func(c *overseer.Coverage, e *ears) { c.OwnBeat(e.session-1, now) }
	deaf := func(_ *overseer.Coverage, e *ears) { e.deaf = "q2" }
	hears := func(_ *overseer.Coverage, e *ears) { e.deaf = "" }

	DescribeTable("is all of it: both queues, our own beats, committed batches",
		func(want []bool, steps ...func(*overseer.Coverage, *ears)) { Expect(covered(steps...)).To(Equal(want)) },
		Entry("not before an own beat came back: a new process covers nothing (HB9)", []bool{false, false}, nothing, nothing),
		Entry("anew with the first own beat after the beginning of the term", []bool{false, true, true}, nothing, ownBeat,
			nothing),
		Entry("while the last own beat is 90 s old", []bool{false, true}, nothing, ownBeatBefore(90*time.Second)),
		Entry("not when it is older", []bool{false, false}, nothing, ownBeatBefore(90*time.Second+1)),
		Entry("not while a queue is not consumed", []bool{false, true, false, true}, nothing, ownBeat, deaf, hears),
		Entry("not after a break of the session, until an own beat comes through the new one",
			[]bool{false, true, false, false, true}, nothing, ownBeat, newSession, nothing, ownBeat),
		Entry("not by a beat of the old session that is committed late", []bool{false, true, false, false}, nothing, ownBeat,
			newSession, lateCommit),
		Entry("not after a batch that failed, at least once, and then anew", []bool{false, true, false, true}, nothing,
			ownBeat, batchFails, ownBeat),
		Entry("not in a new term (HB9)", []bool{false, true, false, true}, nothing, ownBeat, newTerm, ownBeat),
	)

	It("is not reported without a gap when the session was replaced between two renewals", func() {
		replaced := func(c *overseer.Coverage, e *ears) { e.session++; c.OwnBeat(e.session, now) }
		Expect(covered(nothing, ownBeat, replaced, nothing)).To(Equal([]bool{false, true, false, true}))
	})

	It("is not claimed for a time whose break was asked for and never told", func() {
		e := &ears{session: 1}
		c := overseer.NewCoverage(e, 90*time.Second, zap.NewNop(), "q1", "q2")
		answer := func(arrives bool) bool {
			covered, told := c.Covered(now)
			if arrives {
				told()
			}
			return covered
		}
		for _, interrupt := range []func(){c.Begin, func() { e.session++ },
			func() { c.OwnBeat(e.session, now.Add(-time.Hour)) }} {
			interrupt()
			Expect(answer(false)).To(BeFalse())
			c.OwnBeat(e.session, now)
			Expect(answer(false)).To(BeFalse())
			Expect(answer(true)).To(BeFalse())
			Expect(answer(false)).To(BeTrue())
			Expect(answer(true)).To(BeTrue())
		}
	})

	It("is not reported without a gap when it broke and recovered between two renewals", func() {
		brokeAndRecovered := func(c *overseer.Coverage, e *ears) { c.Break("batch"); c.OwnBeat(e.session, now) }
		Expect(covered(nothing, ownBeat, brokeAndRecovered, nothing)).To(Equal([]bool{false, true, false, true}))
	})
})
