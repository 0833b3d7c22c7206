package host

import (
	"path"
	"slices"
	"strings"

	"github.com/openaperture/openaperture/pkg/unit"
)

// Machine is this host as Fleet shows one.
type Machine struct {
	ID        string            `json:"id"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	PrimaryIP string            `json:"primaryIP,omitempty"`
}

// candidate is a unit that wants a place: loaded or launched, in order of age.
type candidate struct {
	name    string
	options []unit.Option // what its [X-Fleet] comes to
}

func newCandidate(name unit.Name, options []unit.Option) candidate {
	return candidate{name.String(), unit.Placement(name, options)}
}

// placeUnits decides which candidates this machine takes: those whose requirements
// (MachineID, MachineMetadata) it fulfils, whose MachineOf is placed, and which
// conflict with none that was placed before. Older units win.
func placeUnits(m Machine, candidates []candidate) map[string]bool {
	placed := map[string]bool{}
	for changed := true; changed; { // MachineOf may name a younger unit
		changed = false
		for _, c := range candidates {
			if !placed[c.name] && fitsMachine(m, c) && peersPlaced(c, placed) && !conflictsWithPlaced(c, candidates, placed) {
				placed[c.name] = true
				changed = true
			}
		}
	}
	return placed
}

func fitsMachine(m Machine, c candidate) bool {
	if id := unit.Value(c.options, unit.SectionFleet, "MachineID"); id != "" && id != m.ID {
		return false
	}
	wanted := map[string][]string{} // several values of a key: one of them
	for _, value := range unit.Values(c.options, unit.SectionFleet, "MachineMetadata") {
		words, err := unit.SplitWords(value)
		if err != nil {
			return false
		}
		for _, word := range words {
			key, v, _ := strings.Cut(word, "=")
			wanted[key] = append(wanted[key], v)
		}
	}
	for key, values := range wanted {
		if !slices.Contains(values, m.Metadata[key]) {
			return false
		}
	}
	return true
}

func peersPlaced(c candidate, placed map[string]bool) bool {
	for _, peer := range unit.Values(c.options, unit.SectionFleet, "MachineOf") {
		if !placed[peer] {
			return false
		}
	}
	return true
}

func conflictsWithPlaced(c candidate, candidates []candidate, placed map[string]bool) bool {
	for _, other := range candidates {
		if other.name == c.name || !placed[other.name] {
			continue
		}
		if excludesName(c, other.name) || excludesName(other, c.name) {
			return true
		}
	}
	return false
}

func excludesName(c candidate, name string) bool {
	return slices.ContainsFunc(unit.Values(c.options, unit.SectionFleet, "Conflicts"), func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	})
}
