package host

import (
	"time"

	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/services/unitd/internal/service"
)

// Situation is the input of the decision table, for its spec.
type Situation struct {
	Launched, Forgotten, Unreadable, Alive, Stopping bool
	Want, Have                                       string // generations
	Restart                                          service.Restart
	Exit                                             *service.Exit
	Streak                                           int
}

var verbs = map[verb]string{keep: "keep", start: "start", restart: "restart", stop: "stop", wait: "wait",
	forget: "forget"}

// Next is the decision as a word and the time it waits for.
func Next(s Situation, now time.Time) (string, time.Duration) {
	then := nextStep(
		want{generation: s.Want, launched: s.Launched, forgotten: s.Forgotten, unreadable: s.Unreadable,
			service: service.Service{Restart: s.Restart, RestartPause: time.Second}},
		have{alive: s.Alive, stopping: s.Stopping, generation: s.Have, exit: s.Exit, streak: s.Streak}, now)
	if then.verb == wait {
		return "wait", then.until.Sub(now)
	}
	return verbs[then.verb], 0
}

// WithPanicPause has a host pause for so long after a first panic.
func WithPanicPause(cfg Config, pause time.Duration) Config {
	cfg.panicPause = pause
	return cfg
}

// WithParser has a host read definitions by parse.
func WithParser(cfg Config, parse func(unit.Name, string, []unit.Option) (service.Service, error)) Config {
	cfg.parse = parse
	return cfg
}

// Known is how many units the host holds anything of in memory.
func (h *Host) Known() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(len(h.records), len(h.supervisors), len(h.states))
}

// Place is the placement of units, oldest first, given as name and X-Fleet options.
func Place(m Machine, names []string, options map[string][]unit.Option) []string {
	var list []unit.Placeable
	for _, name := range names {
		parsed, err := unit.ParseName(name)
		if err != nil {
			panic(err)
		}
		list = append(list, unit.NewPlaceable(parsed, options[name]))
	}
	placed := placeUnits(m, list)
	var here []string
	for _, name := range names {
		if placed[name] {
			here = append(here, name)
		}
	}
	return here
}
