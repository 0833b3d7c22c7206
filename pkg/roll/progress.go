package roll

import "time"

// After is the progress once a step has been taken at now. Wait and the endings change nothing.
func (p Progress) After(s Step, now time.Time) Progress {
	switch s.Kind {
	case Apply, Watch:
		p.InHand, p.Since = s.Name, now
	case Fail:
		p.Failing, p.Expired = s.Name, s.Reason == OrderExpired
	case Restore:
		p.RestoredAt = now
	case Wait, Remove, Done, Failed:
	}
	return p
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
