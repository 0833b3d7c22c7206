package roll

import (
	"maps"
	"slices"
	"time"
)

// After is the progress once a step of a plan has been taken at now. Wait and the endings change nothing.
func (p Progress) After(plan Plan, s Step, now time.Time) Progress {
	switch s.Kind {
	case Apply, Watch:
		p.Clocks = p.begin(plan, s.Name, now)
	case Fail:
		p.Failing, p.Expired = s.Name, s.Reason == OrderExpired
	case Restore:
		p.RestoredAt = now
	case Wait, Remove, Done, Failed:
	}
	return p
}

// Blind is the progress after a time in which nobody could see the instances: it counts for no deadline of theirs.
func (p Progress) Blind(from, now time.Time) Progress {
	later := func(since time.Time) time.Time {
		if since.Before(from) {
			return since.Add(now.Sub(from))
		}
		return now
	}
	p.Clocks = maps.Clone(p.Clocks)
	for name, since := range p.Clocks {
		p.Clocks[name] = later(since)
	}
	if !p.RestoredAt.IsZero() {
		p.RestoredAt = later(p.RestoredAt)
	}
	return p
}

// begin starts the clock of an instance. One further on than all that had a clock is begun when those before it are
// steady: their clocks end. One that broke meanwhile gets a clock beside the others, which it keeps, however often it
// gets healthy and breaks again: a version that dies again and again misses its deadline in the end.
func (p Progress) begin(plan Plan, name string, now time.Time) map[string]time.Time {
	at := plan.index(name)
	further := func(n string) bool { return plan.index(n) >= at }
	if !slices.ContainsFunc(slices.Collect(maps.Keys(p.Clocks)), further) {
		return map[string]time.Time{name: now}
	}
	clocks := maps.Clone(p.Clocks)
	clocks[name] = now
	return clocks
}

func (p Plan) index(name string) int {
	return slices.IndexFunc(p.Targets, func(t Target) bool { return t.Name == name })
}

// Sighting is one look of the runtime at an instance. Spell changes whenever the instance may have been unhealthy since
// the last look: a start time, a count of restarts; "" if the runtime cannot tell.
type Sighting struct {
	Name   string
	Hash   string
	Health Health
	Spell  string
}

// Watcher turns sightings into instances with HealthySince, on the executor's own clock: two clocks are never compared.
// The zero value has seen nothing.
type Watcher struct {
	spells map[string]spell
}

type spell struct {
	mark  string
	hash  string
	since time.Time
}

// See replaces what is known by one complete listing.
func (w *Watcher) See(all []Sighting, now time.Time) map[string]Instance {
	next, out := make(map[string]spell, len(all)), make(map[string]Instance, len(all))
	for _, s := range all {
		instance := Instance{Hash: s.Hash, Health: s.Health}
		if s.Health == Healthy {
			current := spell{s.Spell, s.Hash, now}
			if known, ok := w.spells[s.Name]; ok && known.mark == s.Spell && known.hash == s.Hash {
				current.since = known.since
			}
			next[s.Name] = current
			instance.HealthySince = current.since
		}
		out[s.Name] = instance
	}
	w.spells = next
	return out
}
