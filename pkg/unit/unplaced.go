package unit

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	toldMachines = 5   // machines that a sentence names
	toldMetadata = 120 // bytes of one machine's metadata in a sentence
)

// Tenant is a unit that has its place already.
type Tenant struct {
	Placeable
	Machines []string // ids
}

// Unplaced tells which of the wanted units cannot get a place in a cluster,
// whatever its scheduler does: "" if each can, else one sentence that names the
// unit, what it demands and what the machines offer.
//
// tenants are the other units of the cluster. What runs under the name of a
// wanted unit now gives its place up, so it is no tenant. A wanted unit counts
// as a peer (MachineOf) wherever its own demands are met. The answer is sure
// where it names a unit; that a scheduler finds a place for all is not.
func Unplaced(machines []Machine, tenants []Tenant, wanted []Placeable) string {
	if len(machines) == 0 && len(wanted) > 0 {
		return fmt.Sprintf("%s cannot be placed: the cluster has no machine", wanted[0].Name)
	}
	open := make(map[string][]string, len(wanted)) // unit → ids of machines
	for _, w := range wanted {
		var refusals []string
		for _, m := range machines {
			refusal := refuses(m, tenants, wanted, w)
			if refusal == "" {
				open[w.Name] = append(open[w.Name], m.ID)
			}
			refusals = append(refusals, refusal)
		}
		if len(open[w.Name]) == 0 {
			return fmt.Sprintf("%s cannot be placed: it demands %s. %s", w.Name, w.demands(), listed(refusals))
		}
	}
	return crowded(wanted, open)
}

// refuses says why a machine does not take a wanted unit, "" if it may.
func refuses(m Machine, tenants []Tenant, wanted []Placeable, w Placeable) string {
	if miss := w.Misses(m); miss != "" {
		return "Machine " + m.ID + " offers " + offer(m)
	}
	for _, peer := range w.Peers() {
		runs := func(t Tenant) bool { return t.Name == peer && slices.Contains(t.Machines, m.ID) }
		mayRun := func(o Placeable) bool { return o.Name == peer && o.Misses(m) == "" }
		if !slices.ContainsFunc(tenants, runs) && !slices.ContainsFunc(wanted, mayRun) {
			return "Machine " + m.ID + " does not run " + peer
		}
	}
	for _, t := range tenants {
		if slices.Contains(t.Machines, m.ID) && w.Excludes(t.Placeable) {
			return "Machine " + m.ID + " runs " + t.Name + ", which excludes it"
		}
	}
	return ""
}

// crowded finds wanted units that exclude each other and are more than the
// machines that they may use.
func crowded(wanted []Placeable, open map[string][]string) string {
	grouped := map[string]bool{}
	for i, first := range wanted {
		if grouped[first.Name] {
			continue
		}
		group := []Placeable{first}
		for _, w := range wanted[i+1:] {
			if !slices.ContainsFunc(group, func(g Placeable) bool { return !g.Excludes(w) }) {
				group = append(group, w)
			}
		}
		taken := map[string]string{} // machine → unit
		for n, w := range group {
			if !seat(w.Name, open, taken, map[string]bool{}) {
				return fmt.Sprintf("%s cannot be placed: it demands %s. This deploy has %d units that exclude each other; "+
					"machines that may run them: %d", w.Name, w.demands(), len(group), n)
			}
			grouped[w.Name] = true
		}
	}
	return ""
}

// seat gives a unit a machine of its own; who has it already may move to
// another one (a maximum matching, by augmenting paths).
func seat(name string, open map[string][]string, taken map[string]string, tried map[string]bool) bool {
	if i := slices.IndexFunc(open[name], func(id string) bool { return taken[id] == "" }); i >= 0 {
		taken[open[name][i]] = name
		return true
	}
	for _, id := range open[name] {
		if tried[id] {
			continue
		}
		tried[id] = true
		if seat(taken[id], open, taken, tried) {
			taken[id] = name
			return true
		}
	}
	return false
}

// demands are what a unit wants of a machine, as its file says it.
func (p Placeable) demands() string {
	var list []string
	for _, o := range p.Options {
		if o.Name == "MachineID" || o.Name == "MachineMetadata" || o.Name == "MachineOf" || o.Name == "Conflicts" {
			list = append(list, o.Name+"="+o.Value)
		}
	}
	return cmp.Or(strings.Join(list, ", "), "nothing")
}

// offer is a machine's metadata.
func offer(m Machine) string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(m.Metadata)) {
		list = append(list, key+"="+m.Metadata[key])
	}
	text := strings.Join(list, ", ")
	if len(text) > toldMetadata {
		text = strings.ToValidUTF8(text[:toldMetadata], "") + "…"
	}
	return cmp.Or(text, "no metadata")
}

func listed(refusals []string) string {
	if more := len(refusals) - toldMachines; more > 0 {
		return strings.Join(refusals[:toldMachines], ". ") + fmt.Sprintf(". %d machines more are alike", more)
	}
	return strings.Join(refusals, ". ")
}
