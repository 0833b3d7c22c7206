package chaos

import (
	"io"

	"github.com/openaperture/openaperture/pkg/component"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// Stopped tells whether an instance that an order deploys is between its stop and its start, when these hostnames were
// struck.
func Stopped(m messages.Milestone, t component.Type, phase int, states map[string]string, struck ...string) bool {
	units := map[string]bool{}
	for _, hostname := range struck {
		units[unitOf(hostname)] = true
	}
	return order{Milestone: m, Type: t, Phase: phase}.stopped(states, units)
}

// Tally writes what a trial says of its kills in a config milestone.
func Tally(out io.Writer, seed uint64, kills, inConfig int) {
	r := run{cfg: Config{Seed: seed}, out: out, seen: map[kind]int{config: inConfig}}
	r.tally(kills)
}
