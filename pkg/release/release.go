// Package release decides over releases: whose a unit name is, which units of former releases leave with a deploy, and
// which release a component returns to by default. It is pure.
package release

import (
	"cmp"
	"slices"
	"time"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// Holding is the unit names of releases in one cluster, and whose they are.
type Holding struct {
	ComponentID component.ID // 0: of a workflow without component
	Type        component.Type
	Phase       int
	Units       []string
	StoredAt    time.Time // when the newest release with these units was stored
	// ProvenStoredAt is when the release was stored that was proven last of the component and phase; zero without one.
	ProvenStoredAt time.Time
}

// Current returns the holdings that count where a release takes a name: of each component and phase the release that
// was proven last, and those that were stored since. A name that only earlier releases have was given up. A workflow
// without component owns no name.
func Current(list []Holding) []Holding {
	return slices.DeleteFunc(slices.Clone(list), func(h Holding) bool {
		return h.ComponentID == 0 || h.StoredAt.Before(h.ProvenStoredAt)
	})
}

// Owner finds the holding of another component, or of another phase, that has the base name of one of the units: the
// part before the `@`. A base name has one owner per cluster, because whoever has the name removes and replaces all
// units of that name. ok is false if all names are free.
func Owner(units []string, others []Holding) (name string, owner Holding, ok bool) {
	for _, u := range units {
		for _, h := range others {
			if base(u) != "" && slices.ContainsFunc(h.Units, func(taken string) bool { return base(taken) == base(u) }) {
				return u, h, true
			}
		}
	}
	return "", Holding{}, false
}

func base(name string) string {
	n, _ := unit.ParseName(name) // "" for what is no unit's name: nothing to touch
	return n.Base
}

// Former is a release of the component that is deployed, in the same phase and cluster.
type Former struct {
	Units     []string
	StoredAt  time.Time
	ProvenAt  time.Time // the last time; zero: never
	OfUpgrade bool      // the upgrade that deploys now has deployed it
	Deployed  bool      // a deploy of the release may have touched something
}

// mayRun tells whether units of the release may run. lastProof is when a release of the component and phase was proven
// last, zero if none was.
func (f Former) mayRun(lastProof time.Time) bool {
	if !lastProof.IsZero() && f.ProvenAt.Equal(lastProof) {
		return true
	}
	return f.Deployed && (lastProof.IsZero() || f.StoredAt.After(lastProof) || f.OfUpgrade)
}

// Leaving returns the names of the units that leave with a deploy, sorted: units that may run though they are not among
// the wanted. These are the units of the release that was proven last, at lastProof, and of the releases since then and
// of the same upgrade that may have been deployed.
//
// A name whose base a wanted unit has is no leaving unit. A name whose base another component or phase has is left
// alone. All names are left alone while a component of the exchange has no release, because any of the units may be its
// own.
func Leaving(former []Former, lastProof time.Time, wanted []string, others []Holding,
	everyComponentHasARelease bool) []string {
	if !everyComponentHasARelease {
		return nil
	}
	var leaving []string
	for _, f := range former {
		if f.mayRun(lastProof) {
			leaving = append(leaving, f.Units...)
		}
	}
	taken := map[string]bool{"": true}
	for _, name := range wanted {
		taken[base(name)] = true
	}
	for _, h := range others {
		for _, name := range h.Units {
			taken[base(name)] = true
		}
	}
	leaving = slices.DeleteFunc(leaving, func(name string) bool { return taken[base(name)] })
	slices.Sort(leaving)
	return slices.Compact(leaving)
}

// Proven is a proven release of a component's first phase.
type Proven struct {
	ID       string
	Version  upgrade.Version
	Adopted  bool      // found running by a deploy
	StoredAt time.Time // when the release was stored: when its config was completed, or when it was found
	FirstAt  time.Time // when the release was proven first
	LastAt   time.Time // when the release was proven last
}

// ProvenBefore tells whether a version was proven before an upgrade began that deploys the version again. It was if a
// proven release of the version had been stored before: at the same two commits as far as they are known, because a
// branch moves on, and so does the deployment repository. A version that was merely stated proves nothing, nor does
// what the upgrade itself has found running in its name.
func ProvenBefore(deployed upgrade.Version, began time.Time, list []Proven) bool {
	return slices.ContainsFunc(list, func(p Proven) bool {
		return p.StoredAt.Before(began) && p.Version.Same(deployed)
	})
}

// compareLast orders by the last proof. A deploy and what the deploy found may be proven at one instant: what was found
// is the earlier one.
func compareLast(a, b Proven) int {
	return cmp.Or(a.LastAt.Compare(b.LastAt), adoptedFirst(a, b), cmp.Compare(a.ID, b.ID))
}

func adoptedFirst(a, b Proven) int {
	switch {
	case a.Adopted == b.Adopted:
		return 0
	case a.Adopted:
		return -1
	default:
		return 1
	}
}

// Earlier is the release that a component returns to by default: of the releases of other versions that were proven
// before the recorded version was proven first, the one that was proven last. A release that was returned to keeps its
// first proof, so a repeated rollback leads further back and never forth to the version that was left. ok is false if
// there is none.
func Earlier(list []Proven, recorded upgrade.Version) (Proven, bool) {
	var current *Proven
	for i := range list {
		if list[i].Version.Same(recorded) && (current == nil || compareLast(list[i], *current) > 0) {
			current = &list[i]
		}
	}
	others := slices.DeleteFunc(slices.Clone(list), func(p Proven) bool {
		return p.Version.Same(recorded) ||
			current != nil && cmp.Or(p.FirstAt.Compare(current.FirstAt), adoptedFirst(p, *current)) >= 0
	})
	if len(others) == 0 {
		return Proven{}, false
	}
	return slices.MaxFunc(others, compareLast), true
}
