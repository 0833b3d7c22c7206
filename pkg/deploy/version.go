package deploy

import (
	"slices"

	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/unit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// versionOf is the version that an order deploys; zero if the order names none.
func versionOf(o messages.Order) unit.Version {
	return unit.Version{Ref: o.SourceRepoGitRef, Commit: o.SourceCommitHash}
}

// stamped is a definition of the order's release with the order's version. A definition in a stored release carries
// none.
func stamped(o messages.Order, d messages.UnitDefinition) messages.UnitDefinition {
	return withOptions(d, unit.WithVersion(runtime.Options(d), versionOf(o)))
}

// unstamped is a definition without the version that it carries.
func unstamped(d messages.UnitDefinition) messages.UnitDefinition {
	return withOptions(d, unit.WithoutVersion(runtime.Options(d)))
}

// target is the definition that the order wants for an instance. An instance that runs the order's version with the
// release's text keeps the definition that it has, to the letter, so that the deploy leaves the instance alone.
func target(o messages.Order, d messages.UnitDefinition, found []runtime.Instance) messages.UnitDefinition {
	i := slices.IndexFunc(found, func(f runtime.Instance) bool { return f.Definition.Name == d.Name })
	if i >= 0 && runsTarget(o, d, found[i].Definition) {
		return found[i].Definition
	}
	return stamped(o, d)
}

// runsTarget tells whether a definition that was found has the text of the wanted one and is of the order's version. If
// the order names no version, the text decides.
func runsTarget(o messages.Order, wanted, found messages.UnitDefinition) bool {
	if !unit.Equal(unit.WithoutVersion(runtime.Options(found)), unit.WithoutVersion(runtime.Options(wanted))) {
		return false
	}
	want := versionOf(o)
	if want.IsZero() {
		return true
	}
	has, known := foundVersion(o, found)
	return known && has.Same(want)
}

// foundVersion is the version of a definition that was found. A definition without a version was applied by a former
// release of the executor, and counts as the component's recorded version. If the order does not tell that version
// either, nobody knows what runs.
func foundVersion(o messages.Order, d messages.UnitDefinition) (v unit.Version, known bool) {
	if v, known = unit.VersionOf(runtime.Options(d)); known || o.Recorded == nil {
		return v, known
	}
	return unit.Version{Ref: o.Recorded.SourceRepoGitRef, Commit: o.Recorded.SourceCommitHash}, true
}

func withOptions(d messages.UnitDefinition, options []unit.Option) messages.UnitDefinition {
	d.Options = make([]messages.Option, len(options))
	for i, o := range options {
		d.Options[i] = messages.Option(o)
	}
	return d
}
