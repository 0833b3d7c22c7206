package upgrade

import (
	"time"

	"github.com/openaperture/openaperture/pkg/component"
)

// Conditions are what the clock of a running upgrade depends on.
type Conditions struct {
	Consuming bool // manager-api has consumed from the exchange's broker for at least the settle time
	Judge     bool // the exchange has a covering leader
	// Queued says that an order of the upgrade waits in line: nobody has claimed it, and an executor of its queue works on
	// another order.
	Queued bool
}

// Runs reports whether the clock runs. The clock stands still while manager-api does not hear the exchange, and while
// an order of the upgrade waits in line. In a verification the clock runs only while there is a judge. Exception: type
// overseer, whose missing leader is the failure itself.
func (u Upgrade) Runs(c Conditions) bool {
	if !c.Consuming || c.Queued {
		return false
	}
	if u.Step == StepVerify && u.Type != component.Overseer {
		return c.Judge
	}
	return true
}

// Verdict of a tick.
type Tick string

// What a tick finds.
const (
	TickGoesOn   Tick = "goes_on"
	TickDeadline Tick = "deadline"
	TickAbandon  Tick = "abandon"
)

// Tick moves the clock to now. presentSince is since when manager-api has been there without a gap: time before that
// instant is an absence of manager-api, and no time of the upgrade is used up in an absence. The clause clockSQL of
// manager-api encodes this rule for all upgrades at once.
func (c Clock) Tick(now time.Time, runs bool, presentSince time.Time, abandonAfter time.Duration) (Clock, Tick) {
	elapsed, counted := max(now.Sub(c.TickedAt), 0), max(now.Sub(later(c.TickedAt, presentSince)), 0)
	c.TickedAt = now
	if runs {
		c.Left -= counted
		c.Stalled = 0
	} else {
		c.Stalled += elapsed
	}
	return c, c.Over(abandonAfter)
}

// Over says whether the time of the clock is over, and why.
func (c Clock) Over(abandonAfter time.Duration) Tick {
	switch {
	case c.Left <= 0:
		return TickDeadline
	case c.Stalled > abandonAfter:
		return TickAbandon
	default:
		return TickGoesOn
	}
}
