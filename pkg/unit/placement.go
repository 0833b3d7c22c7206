package unit

import "strings"

// fleetKeys are the options of `[X-Fleet]` that Fleet acts upon, each with the
// name it has today. Fleet stores others without a word and then ignores them,
// so we refuse them first.
var fleetKeys = map[string]string{
	"MachineID": "MachineID", "MachineOf": "MachineOf", "MachineMetadata": "MachineMetadata", "Conflicts": "Conflicts",
	"Global": "Global", "Replaces": "Replaces", "Weight": "Weight",
	"X-ConditionMachineID": "MachineID", "X-ConditionMachineOf": "MachineOf", "X-ConditionMachineMetadata": "MachineMetadata",
	"X-Conflicts": "Conflicts",
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
