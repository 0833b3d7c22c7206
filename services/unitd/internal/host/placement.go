package host

import (
	"slices"

	"github.com/openaperture/openaperture/pkg/unit"
)

// Machine is this host as Fleet shows one.
type Machine struct {
	ID        string            `json:"id"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	PrimaryIP string            `json:"primaryIP,omitempty"`
}

// placeUnits decides which units this machine takes, given those that are
// loaded or launched, in order of age: the units whose demands (MachineID,
// MachineMetadata) the machine meets, whose MachineOf is placed, and which
// exclude no unit that was placed before. Older units win. What the rules are
// is in pkg/unit: executors ask the same before they touch anything.
func placeUnits(m Machine, candidates []unit.Placeable) map[string]bool {
	machine := unit.Machine{ID: m.ID, Metadata: m.Metadata}
	placed := map[string]bool{}
	for changed := true; changed; { // MachineOf may name a younger unit
		changed = false
		for _, c := range candidates {
			excluded := func(other unit.Placeable) bool { return placed[other.Name] && c.Excludes(other) }
			if !placed[c.Name] && c.Misses(machine) == "" && peersPlaced(c, placed) &&
				!slices.ContainsFunc(candidates, excluded) {
				placed[c.Name] = true
				changed = true
			}
		}
	}
	return placed
}

func peersPlaced(c unit.Placeable, placed map[string]bool) bool {
	for _, peer := range c.Peers() {
		if !placed[peer] {
			return false
		}
	}
	return true
}
