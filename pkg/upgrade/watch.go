package upgrade

import "time"

// Work is what is known of an order, and of the upgrade whose workflow the order belongs to.
type Work struct {
	Ended     bool // the order has ended: its result was learned, or nobody wants the result any more
	Phase     int  // of the order's workflow
	Restoring bool // the order's workflow restores a proven release

	HasUpgrade bool // false: nothing below is known
	State      State
	At         int // the phase of the upgrade now
	Step       Step
	Clock      Clock
	Judge      bool // the exchange has a covering leader
}

// Settled reports whether the result of an order can no longer be undone by its executor: the upgrade has proven that
// phase, has ended, or is undoing that phase. The order of a workflow without upgrade is settled when it has ended.
func (w Work) Settled() bool {
	switch {
	case !w.Ended:
		return false
	case !w.HasUpgrade || !w.State.Open():
		return true
	case w.Restoring:
		return w.At < w.Phase
	default:
		return w.At > w.Phase || w.State == RollingBack
	}
}

// Watched reports whether manager-api has learned the result of an order, waits for the proof, and keeps the clock that
// will end the wait. The clock must have been moved within tickWithin before now. If the clock stands still although
// the exchange has a judge, manager-api does not hear the broker, and does not count as watching.
func (w Work) Watched(now time.Time, tickWithin time.Duration) bool {
	return w.Ended && w.HasUpgrade && w.State.Running() && w.Step == StepVerify &&
		now.Sub(w.Clock.TickedAt) < tickWithin && (w.Clock.Stalled == 0 || !w.Judge)
}
