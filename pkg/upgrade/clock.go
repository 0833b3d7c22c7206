package upgrade

import (
	"time"

	"github.com/openaperture/openaperture/pkg/component"
)

// Conditions are what the clock of a running upgrade depends on.
type Conditions struct {
	Consuming bool // manager-api has consumed from the exchange's broker for at least the settle time
	Judge     bool // the exchange has a covering leader
}

// Runs reports whether the clock runs: in a verification only while there is a judge, except for type overseer,
// whose missing leader is the failure itself.
func (u Upgrade) Runs(c Conditions) bool {
	if !c.Consuming {
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

// Tick moves the clock to now. A gap longer than maxGap was an absence of manager-api itself and counts as standing still.
func (c Clock) Tick(now time.Time, runs bool, maxGap, abandonAfter time.Duration) (Clock, Tick) {
	elapsed := max(now.Sub(c.TickedAt), 0)
	c.TickedAt = now
	if runs && elapsed <= maxGap {
		c.Left -= elapsed
		c.Stalled = 0
	} else {
		c.Stalled += elapsed
	}
	switch {
	case c.Left <= 0:
		return c, TickDeadline
	case c.Stalled > abandonAfter:
		return c, TickAbandon
	default:
		return c, TickGoesOn
	}
}
