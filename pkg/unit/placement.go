package unit

import (
	"maps"
	"path"
	"slices"
	"strings"
)

// fleetKeys are the options of `[X-Fleet]` that Fleet acts upon, each with the
// name it has today. Fleet stores others without a word and then ignores them,
// so we refuse them first.
var fleetKeys = map[string]string{
	"MachineID": "MachineID", "MachineOf": "MachineOf", "MachineMetadata": "MachineMetadata", "Conflicts": "Conflicts",
	"Global": "Global", "Replaces": "Replaces", "Weight": "Weight",
	"X-ConditionMachineID": "MachineID", "X-ConditionMachineOf": "MachineOf",
	"X-ConditionMachineMetadata": "MachineMetadata", "X-Conflicts": "Conflicts",
}

// Placement returns the options of `[X-Fleet]` as Fleet applies them to the
// unit of this name: old keys under their names of today; `%n`, `%N`, `%p` and
// `%i` expanded in every value, anything else behind a `%` as it is.
func Placement(name Name, options []Option) []Option {
	expand := strings.NewReplacer("%n", name.String(), "%N", name.Prefix(), "%p", name.Base, "%i", name.Instance)
	placement := fleetOptions(options)
	for i := range placement {
		placement[i].Value = expand.Replace(placement[i].Value)
	}
	return placement
}

// fleetOptions are those of `[X-Fleet]`, old keys under their names of today.
func fleetOptions(options []Option) []Option {
	var found []Option
	for _, o := range options {
		if o.Section == SectionFleet {
			o.Name = fleetKeys[o.Name]
			found = append(found, o)
		}
	}
	return found
}

// Machine is what placement looks at of a machine.
type Machine struct {
	ID       string
	Metadata map[string]string
}

// Placeable is a unit that wants a place: its name, and what its `[X-Fleet]`
// comes to. Use NewPlaceable.
type Placeable struct {
	Name    string
	Options []Option
}

// NewPlaceable is the unit of this name and these options.
func NewPlaceable(name Name, options []Option) Placeable {
	return Placeable{name.String(), Placement(name, options)}
}

// Misses is the first demand of a unit (MachineID, then MachineMetadata) that a
// machine does not meet, "" if it meets all. Of several values of one key of
// metadata a machine needs one.
func (p Placeable) Misses(m Machine) string {
	if id := p.machineID(); id != "" && id != m.ID {
		return "MachineID=" + id
	}
	wanted, err := p.metadata()
	if err != nil {
		return "MachineMetadata: " + err.Error()
	}
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		if !slices.Contains(wanted[key], m.Metadata[key]) {
			return "MachineMetadata=" + key + "=" + strings.Join(wanted[key], "|")
		}
	}
	return ""
}

// Peers are the units that must run on the same machine (MachineOf).
func (p Placeable) Peers() []string { return Values(p.Options, SectionFleet, "MachineOf") }

// Excludes tells whether two units must not run on the same machine: either of
// them may say so (Conflicts).
func (p Placeable) Excludes(other Placeable) bool {
	return p.Name != other.Name && (p.conflictsWith(other.Name) || other.conflictsWith(p.Name))
}

func (p Placeable) conflictsWith(name string) bool {
	return slices.ContainsFunc(Values(p.Options, SectionFleet, "Conflicts"), func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	})
}

func (p Placeable) machineID() string { return Value(p.Options, SectionFleet, "MachineID") }

// metadata are the demanded values, by key.
func (p Placeable) metadata() (map[string][]string, error) {
	wanted := map[string][]string{}
	for _, value := range Values(p.Options, SectionFleet, "MachineMetadata") {
		words, err := SplitWords(value)
		if err != nil {
			return nil, err
		}
		for _, word := range words {
			key, v, _ := strings.Cut(word, "=")
			wanted[key] = append(wanted[key], v)
		}
	}
	return wanted, nil
}
