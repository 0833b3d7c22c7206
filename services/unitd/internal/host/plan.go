package host

import (
	"time"

	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/services/unitd/internal/service"
)

// want is what should be of one unit.
type want struct {
	generation string // of the definition; a run of another generation is replaced
	launched   bool   // desired, placed on this host
	forgotten  bool   // deleted: nothing is kept once it is stopped
	unreadable bool   // this unitd cannot read the definition: what runs is left alone, nothing is started
	service    service.Service
	options    []unit.Option
}

// have is what is known of one unit's processes.
type have struct {
	alive      bool
	stopping   bool
	generation string        // of the latest activation
	hash       string        // of its definition
	exit       *service.Exit // of the latest activation, nil: none, or it ended with the host
	restarts   int
	streak     int // unsteady activations in a row, the latest one not counted while it is alive
}

// verb is what a supervisor does next.
type verb int

const (
	keep    verb = iota // nothing, until something changes
	start               // start a new definition, or one that was stopped
	restart             // start again what ended by itself
	stop                // stop what runs
	wait                // nothing, until a point in time
	forget              // nothing is left: drop the unit
)

// step is a verb with the time that `wait` waits for.
type step struct {
	verb  verb
	until time.Time
}

// nextStep decides what to do for one unit. It looks at nothing but its arguments.
func nextStep(w want, h have, now time.Time) step {
	switch {
	case h.alive && h.stopping:
		return step{verb: keep}
	case h.alive && !w.launched:
		return step{verb: stop}
	case w.unreadable && w.launched:
		return step{verb: keep}
	case h.alive && h.generation != w.generation:
		return step{verb: stop}
	case h.alive:
		return step{verb: keep}
	case w.forgotten:
		return step{verb: forget}
	case !w.launched:
		return step{verb: keep}
	case h.generation != w.generation || h.exit == nil || h.exit.Requested:
		return step{verb: start}
	case h.exit.Final || !w.service.Restart.After(h.exit.Result):
		return step{verb: keep}
	}
	delay := service.Delay(w.service.RestartPause, h.streak-1)
	at := h.exit.At.Add(delay)
	if latest := now.Add(delay); at.After(latest) {
		at = latest // the clock was set back
	}
	if at.After(now) {
		return step{verb: wait, until: at}
	}
	return step{verb: restart}
}
