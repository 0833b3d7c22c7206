// Package liveness says what becomes of silent modules (design section 6). It is pure and the rule in one place: the SQL
// of manager-api's sweep implements the same, and the simulated specs hold both to it.
//
// Only covered time counts: silence = covered_until − max(last_seen, covered_since). Whatever broke our own hearing starts
// covered time anew, so our blindness expires nobody.
package liveness

import (
	"time"

	"github.com/openaperture/openaperture/pkg/module"
)

// Coverage is the time over which the leader has listened without a break. The zero value has heard nothing.
type Coverage struct {
	Since, Until time.Time
}

// Policy holds the thresholds; both are exceeded only by strictly more.
type Policy struct {
	InactiveAfter time.Duration
	DeleteAfter   time.Duration
	HoldFor       time.Duration // covered time after which a hold ends by itself: 30 minutes
}

// Verdict says what becomes of one module.
type Verdict string

// The verdicts.
const (
	Keep       Verdict = "keep"
	Inactivate Verdict = "inactivate"
	Delete     Verdict = "delete"
)

// Silence is the covered time for which a module was not heard; never negative.
func Silence(lastSeen time.Time, c Coverage) time.Duration {
	from := lastSeen
	if c.Since.After(from) {
		from = c.Since
	}
	return max(c.Until.Sub(from), 0)
}

// Judge judges one module, without the brake.
func Judge(m module.Module, c Coverage, p Policy) Verdict {
	silence := Silence(m.LastSeen, c)
	switch {
	case silence > p.DeleteAfter:
		return Delete
	case silence > p.InactiveAfter && m.Status != module.Inactive:
		return Inactivate
	default:
		return Keep
	}
}

// Hold is a brake that is on: deletion waits until an operator releases it or it is HoldFor of covered time old.
type Hold struct {
	Covered  time.Duration // covered time since it began
	Released bool
}

// Brakes reports whether so many modules are silent at once that we rather distrust our own hearing: more than half of
// an exchange's modules, and at least five, for InactiveAfter or more.
func Brakes(modules []module.Module, c Coverage, p Policy) bool {
	silent := 0
	for _, m := range modules {
		if Silence(m.LastSeen, c) >= p.InactiveAfter {
			silent++
		}
	}
	return silent >= 5 && 2*silent > len(modules)
}

// Plan is what one sweep does.
type Plan struct {
	Inactivate []string // hostnames
	Delete     []string
	Braking    bool // the brake's condition is met; a hold is kept or begun while it is
	Held       bool // deletions wait
}

// Sweep judges all modules of an exchange. Inactivation is never held.
func Sweep(modules []module.Module, c Coverage, p Policy, hold *Hold) Plan {
	plan := Plan{Braking: Brakes(modules, c, p)}
	plan.Held = plan.Braking && (hold == nil || (!hold.Released && hold.Covered < p.HoldFor))
	for _, m := range modules {
		switch Judge(m, c, p) {
		case Delete:
			if !plan.Held {
				plan.Delete = append(plan.Delete, m.Hostname)
			} else if m.Status != module.Inactive {
				plan.Inactivate = append(plan.Inactivate, m.Hostname)
			}
		case Inactivate:
			plan.Inactivate = append(plan.Inactivate, m.Hostname)
		case Keep:
		}
	}
	return plan
}
