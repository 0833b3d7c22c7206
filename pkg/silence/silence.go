// Package silence judges who has been silent for too long, and when that is not believed (docs/messaging.md#silence).
// It is pure. The sweep of manager-api is one conditional SQL statement, because a heartbeat may come in between; a
// spec of services/manager-api/internal/presence holds the statement and these functions together.
package silence

import "time"

// Limits are the silences after which something happens to a module (pkg/times).
type Limits struct {
	InactiveAfter time.Duration
	DeleteAfter   time.Duration // more than InactiveAfter
}

// Covered is the last stretch of time in which the leading overseer heard everybody without a break, on the database's
// clock. The zero value covers nothing.
type Covered struct {
	Since, Until time.Time
}

// Silence is how long a module has been silent in covered time, if its last heartbeat came at lastSeen: 0 if the
// exchange is not covered. Time that nobody listened to is no silence of the module.
func (c Covered) Silence(lastSeen time.Time) time.Duration {
	if c.Since.IsZero() || c.Until.IsZero() {
		return 0
	}
	if lastSeen.Before(c.Since) {
		lastSeen = c.Since
	}
	return max(0, c.Until.Sub(lastSeen))
}

// Verdict says what becomes of a module.
type Verdict string

// The verdicts.
const (
	Heard    Verdict = "heard"    // the module stays as it is
	Inactive Verdict = "inactive" // the module becomes inactive
	Gone     Verdict = "gone"     // the module is deleted
)

// Judge says what becomes of a module that has been silent for so long. Exactly a limit is not yet over. While
// deletions are held (Brake, Hold.Lasts) a module that would be deleted is inactive.
func Judge(silent time.Duration, l Limits, held bool) Verdict {
	switch {
	case silent > l.DeleteAfter && !held:
		return Gone
	case silent > l.InactiveAfter:
		return Inactive
	default:
		return Heard
	}
}

// brakeAtLeast is how many modules must be silent before the brake is put on.
const brakeAtLeast = 5

// Missing reports whether a silence counts towards the brake. Exactly the limit counts: the brake must be on before the
// first module of a lost site is deleted.
func Missing(silent time.Duration, l Limits) bool { return silent >= l.InactiveAfter }

// Brake reports whether deletions are to be held: more than half of the modules of an exchange are missing, and at
// least five. That says more about our hearing than about the modules.
func Brake(missing, total int) bool { return missing >= brakeAtLeast && missing*2 > total }

// Hold is a hold on the deletions of an exchange, from the sweep that put the brake on until one that takes it off.
type Hold struct {
	Age      time.Duration // covered time so far
	Ticked   time.Time     // until when Age is counted
	Released bool          // an operator lets deletions happen
}

// HoldFor is the covered time after which a hold lasts no more.
func HoldFor(l Limits) time.Duration { return 3 * l.InactiveAfter }

// Begin is a hold that begins with a sweep over this covered time.
func Begin(c Covered) Hold { return Hold{Ticked: c.Until} }

// Tick is the hold after a sweep over this covered time. Only covered time makes a hold older.
func (h Hold) Tick(c Covered) Hold {
	h.Age += c.Silence(h.Ticked)
	if c.Until.After(h.Ticked) {
		h.Ticked = c.Until
	}
	return h
}

// Lasts reports whether the hold keeps modules from being deleted.
func (h Hold) Lasts(l Limits) bool { return !h.Released && h.Age < HoldFor(l) }
