// Package schedule says when a component is looked at next and which requested upgrade comes next (design section 5,
// Hourly). It is pure: the caller draws the jitter and brings the time.
package schedule

import (
	"cmp"
	"slices"
	"time"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// Next returns when to check next. A component that was never scheduled (due is nil) gets its first check at now plus
// jitter, which the caller draws uniformly from [0, interval), so that components spread. From then on the phase is kept:
// the next check is the first instant due + n*interval after now, however many were missed.
func Next(due *time.Time, now time.Time, interval, jitter time.Duration) time.Time {
	if due == nil {
		return now.Add(jitter)
	}
	if due.After(now) {
		// A phase further ahead than one interval comes from a longer interval in earlier configuration.
		ahead := due.Sub(now)
		return now.Add((ahead-1)%interval + 1)
	}
	return due.Add((now.Sub(*due)/interval + 1) * interval)
}

// Due reports whether a check is to be made now. Missed checks are one check.
func Due(due *time.Time, now time.Time) bool { return due != nil && !due.After(now) }

// Request is a requested upgrade that waits for the exchange's slot.
type Request struct {
	ID        upgrade.ID
	Type      component.Type
	Trigger   upgrade.Trigger
	CreatedAt time.Time
}

// Order returns the requests in the order in which the slot takes them: explicit ones first, then by type (manager,
// overseer, others by name, deployer last), then by age. Equal ones are ordered by id, so that the order is total.
func Order(requests []Request) []Request {
	ordered := slices.Clone(requests)
	slices.SortFunc(ordered, func(a, b Request) int {
		return cmp.Or(
			cmp.Compare(urgency(a.Trigger), urgency(b.Trigger)),
			cmp.Compare(rank(a.Type), rank(b.Type)),
			cmp.Compare(a.Type, b.Type),
			a.CreatedAt.Compare(b.CreatedAt),
			cmp.Compare(a.ID, b.ID),
		)
	})
	return ordered
}

func urgency(t upgrade.Trigger) int {
	if t == upgrade.TriggerHourly {
		return 1
	}
	return 0
}

// rank puts those first on whom the others depend, and last those who deploy the others.
func rank(t component.Type) int {
	switch t {
	case component.Manager:
		return 0
	case component.Overseer:
		return 1
	case component.Deployer:
		return 3
	default:
		return 2
	}
}
