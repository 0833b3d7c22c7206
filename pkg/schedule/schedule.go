// Package schedule says when a component is looked at next and which requested upgrade comes next
// (docs/how-an-upgrade-works.md#checks-and-requests). It is pure: the caller draws the jitter and brings the time.
package schedule

import (
	"cmp"
	"slices"
	"time"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// Next returns when to check next. A component that was never scheduled (due is nil) gets its first check at now plus
// jitter, which the caller draws uniformly from [0, interval), so that components spread. From then on the phase is
// kept: the next check is the first instant due + n*interval after now, however many were missed.
func Next(due *time.Time, now time.Time, interval, jitter time.Duration) time.Time {
	if due == nil {
		return now.Add(jitter)
	}
	if due.After(now) {
		ahead := due.Sub(now) // more than one interval: see Due
		return now.Add((ahead-1)%interval + 1)
	}
	return due.Add((now.Sub(*due)/interval + 1) * interval)
}

// Due reports whether a check is to be made now. Missed checks are one check. A check that lies further ahead than one
// interval is due too: it was set by a clock that was wrong, or under a longer interval in earlier configuration, and
// nobody would look at the component until then. A component that was never scheduled is not due: it gets a time first.
func Due(due *time.Time, now time.Time, interval time.Duration) bool {
	return due != nil && (!due.After(now) || due.Sub(now) > interval)
}

// Request is a requested upgrade that waits for the exchange's slot.
type Request struct {
	ID        upgrade.ID
	Type      component.Type
	Trigger   upgrade.Trigger
	CreatedAt time.Time
}

// Order returns the requests in the order in which the slot takes them. Explicit requests go first. Of the explicit
// ones, and of the automatic ones, those that have waited for starveAfter or longer go first, the oldest first:
// otherwise the types before them, requested again and again, would keep them out for ever. The others follow by type
// (manager, overseer, others by name, deployer last), then by age. Equal ones are ordered by id, so that the order is
// total.
func Order(requests []Request, now time.Time, starveAfter time.Duration) []Request {
	starves := func(r Request) bool { return now.Sub(r.CreatedAt) >= starveAfter }
	ordered := slices.Clone(requests)
	slices.SortFunc(ordered, func(a, b Request) int {
		order := cmp.Or(cmp.Compare(urgency(a.Trigger), urgency(b.Trigger)), trueFirst(starves(a), starves(b)))
		if order == 0 && !starves(a) {
			order = cmp.Or(cmp.Compare(rank(a.Type), rank(b.Type)), cmp.Compare(a.Type, b.Type))
		}
		return cmp.Or(order, a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return ordered
}

func trueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	default:
		return 1
	}
}

// Failures are the upgrades of one component to its present target that failed by the environment, one after the other.
// A success, and an upgrade to another target, begin the row anew.
type Failures struct {
	Count int
	Last  time.Time // when the last of them was started
}

// Ended is an upgrade of a component that was started and has ended, but not by an operator's cancel.
type Ended struct {
	Target  upgrade.Version
	State   upgrade.State
	Cause   upgrade.Cause
	Started time.Time
}

// CountFailures counts the failures by the environment at the head of a component's ended upgrades, newest first, and
// says to which target they were. They end with a success, another cause or another target. Count is 0 if there are
// none. Not more than RememberFailures upgrades need to be given.
func CountFailures(newestFirst []Ended) (target upgrade.Version, f Failures) {
	for _, e := range newestFirst {
		if e.State == upgrade.Completed || e.Cause != upgrade.CauseEnvironment || (f.Count > 0 && !e.Target.Same(target)) {
			break
		}
		if f.Count == 0 {
			target, f.Last = e.Target, e.Started
		}
		f.Count++
	}
	return target, f
}

// RememberFailures is how many failures in a row make a difference to HeldUntil.
const RememberFailures = 6

// maxBackOff bounds the back-off after failures, in check intervals.
const maxBackOff = 24

// HeldUntil returns until when automatic checks make no further upgrade after such failures: 1, 2, 4 … up to 24 check
// intervals after the last one was started. The zero time is no hold. A start lies somewhat after its check, and checks
// keep their phase; half an interval is therefore left off, so that the hold ends before the check that it means.
func HeldUntil(f Failures, interval time.Duration) time.Time {
	if f.Count <= 0 {
		return time.Time{}
	}
	intervals := maxBackOff
	if f.Count < RememberFailures { // 2^4 < 24 < 2^5
		intervals = 1 << (f.Count - 1)
	}
	return f.Last.Add(time.Duration(intervals)*interval - interval/2)
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
