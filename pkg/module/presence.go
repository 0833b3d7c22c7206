package module

import (
	"cmp"
	"time"
)

// Beat is what decides in a heartbeat whether it counts, and what it says of the version.
type Beat struct {
	BootID    string // "" where the sender states none: such beats count as those of one boot
	Seq       int64  // rises within a boot; 0 where the sender counts nothing
	StartedAt time.Time
	Status    string

	SourceRepo           string
	SourceRepoGitRef     string
	DeploymentRepo       string
	DeploymentRepoGitRef string
}

// After reports whether the beat says something new after a beat of the same boot with this number. A beat with a
// number that was seen before does not: the queue gave it out once more, or it was overtaken.
func (b Beat) After(seq int64) bool { return b.Seq == 0 || b.Seq > seq }

// Inherit returns the beat with the version fields that it leaves out filled from an earlier beat of the same boot: to
// leave a field out means "as before". The version of another boot is never inherited.
func (b Beat) Inherit(earlier Beat) Beat {
	b.SourceRepo = cmp.Or(b.SourceRepo, earlier.SourceRepo)
	b.SourceRepoGitRef = cmp.Or(b.SourceRepoGitRef, earlier.SourceRepoGitRef)
	b.DeploymentRepo = cmp.Or(b.DeploymentRepo, earlier.DeploymentRepo)
	b.DeploymentRepoGitRef = cmp.Or(b.DeploymentRepoGitRef, earlier.DeploymentRepoGitRef)
	if b.StartedAt.IsZero() {
		b.StartedAt = earlier.StartedAt
	}
	return b
}

// Boot is one process that beats under a hostname. Since and Seen are receipts, on the database's clock.
type Boot struct {
	ID        string
	Seq       int64     // of its last beat
	StartedAt time.Time // on its host's clock; zero if it states none
	Since     time.Time // its first beat
	Seen      time.Time // its last beat
}

// Presence is what is known of one hostname: the boot that counts with what it says, and the other boot that was heard
// last. A restart leaves the boot before as the other one, and silent. Two hosts with one hostname leave an other boot
// that goes on beating: a rival.
type Presence struct {
	Boot Boot
	Says Beat // the last beat that counted, with what it inherited
	// Steady is since when boot, status and ref have not changed.
	Steady time.Time
	// Other is the other boot; nil: none is known.
	Other *Boot
	// Again is when Other was last heard after Boot had come; zero: not since then, or it has said that it ends.
	Again time.Time
}

// replayWithin is how long after a boot was first heard a beat of a boot that was started earlier is not taken for a
// new process: the queue keeps beats for a minute and may give them out once more. Later the host's clock is to blame.
const replayWithin = 2 * time.Minute

// RivalAlive reports whether the other boot is alive beside the one that counts.
func (p Presence) RivalAlive(now time.Time, liveWithin time.Duration) bool {
	return p.Other != nil && p.Other.ID != p.Boot.ID && !p.Again.IsZero() && now.Sub(p.Again) <= liveWithin
}

// Merge returns what is known of a hostname after a beat that was received at now, and whether the beat changed
// anything. p is nil for a hostname that is not known. manager-api does the same in one statement for many hostnames
// (services/manager-api/internal/presence/heartbeats.go); a spec holds the two together.
//
//   - A beat of the boot that counts is taken in order of its numbers.
//   - A beat of a new boot makes that boot the one that counts, at once: the process was restarted. The boot before
//     becomes the other boot, unless the other boot is alive: then it stays.
//   - A beat of the other boot, or of one that was started before the boot that counts, does not change what counts.
//     It shows that another process is alive under the same hostname. The other boot counts again once the boot that
//     counts has been silent for liveWithin or has said that it ends.
func Merge(p *Presence, b Beat, now time.Time, liveWithin time.Duration) (_ Presence, changed bool) {
	if p == nil {
		return begin(b, now, now), true
	}
	next, former := *p, p.Boot
	switch {
	case b.BootID == p.Boot.ID:
		changed = next.goOn(b, now)
		return next, changed
	case p.Other != nil && p.Other.ID == b.BootID:
		changed = next.hearOther(b, now, liveWithin)
		return next, changed
	case b.before(p.Boot) && now.Sub(p.Boot.Since) < replayWithin && !p.silent(now, liveWithin):
		if b.Status == Inactive || p.RivalAlive(now, liveWithin) {
			return next, false
		}
		next.Other, next.Again = &Boot{ID: b.BootID, Seq: b.Seq, StartedAt: b.StartedAt, Since: now, Seen: now}, now
		return next, true
	default:
		next = begin(b, now, now)
		next.Other = &former
		if p.RivalAlive(now, liveWithin) {
			next.Other, next.Again = p.Other, p.Again
		}
		return next, true
	}
}

// silent reports whether the boot that counts has not been heard for so long.
func (p Presence) silent(now time.Time, liveWithin time.Duration) bool {
	return now.Sub(p.Boot.Seen) > liveWithin
}

// begin is the presence of a boot that counts from now on.
func begin(b Beat, since, now time.Time) Presence {
	boot := Boot{ID: b.BootID, Seq: b.Seq, StartedAt: b.StartedAt, Since: since, Seen: now}
	return Presence{Boot: boot, Says: b, Steady: now}
}

func (b Beat) before(boot Boot) bool {
	return !b.StartedAt.IsZero() && !boot.StartedAt.IsZero() && b.StartedAt.Before(boot.StartedAt)
}

// goOn takes a beat of the boot that counts.
func (p *Presence) goOn(b Beat, now time.Time) bool {
	if !b.After(p.Boot.Seq) {
		return false
	}
	said := b.Inherit(p.Says)
	if said.Status != p.Says.Status || said.SourceRepoGitRef != p.Says.SourceRepoGitRef {
		p.Steady = now
	}
	p.Says, p.Boot.Seq, p.Boot.StartedAt, p.Boot.Seen = said, b.Seq, said.StartedAt, now
	return true
}

// hearOther takes a beat of the other boot.
func (p *Presence) hearOther(b Beat, now time.Time, liveWithin time.Duration) bool {
	if !b.After(p.Other.Seq) {
		return false
	}
	if b.StartedAt.IsZero() {
		b.StartedAt = p.Other.StartedAt
	}
	if b.Status != Inactive && (p.Says.Status == Inactive || p.silent(now, liveWithin)) {
		former := p.Boot
		*p = begin(b, p.Other.Since, now)
		p.Other = &former
		return true
	}
	p.Other = &Boot{ID: b.BootID, Seq: b.Seq, StartedAt: b.StartedAt, Since: p.Other.Since, Seen: now}
	p.Again = now
	if b.Status == Inactive {
		p.Again = time.Time{}
	}
	return true
}
