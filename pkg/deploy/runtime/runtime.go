// Package runtime is what the engine needs of a cluster: a small interface, implemented by fleet and memory.
package runtime

import (
	"context"
	"errors"
	"fmt"

	"github.com/openaperture/openaperture/pkg/roll"
	"github.com/openaperture/openaperture/pkg/unit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// Instance is one instance as a cluster shows it.
type Instance struct {
	Definition messages.UnitDefinition // without the fencing token, with the version that it carries
	Sighting   roll.Sighting
	// Machines are the ids of the machines that run it, sorted. There is one, several of a global unit, and none while the
	// instance is not placed.
	Machines []string
}

// Machine is one machine of a cluster.
type Machine struct {
	ID string // in the cluster's words
	// Host is the machine's host name, which stands behind %H in a unit; "" if the cluster does not tell it.
	Host     string
	Metadata map[string]string // what a unit may demand of a machine
}

// Runtime is one cluster. Its errors wrap ErrSuperseded, ErrUnreachable or ErrRefused; unit names are matched whole.
type Runtime interface {
	// Machines are those that can run an instance.
	Machines(ctx context.Context) ([]Machine, error)
	// List shows every instance of the given bases ("manager" of "manager@1.service"), whether it runs or not.
	List(ctx context.Context, bases []string) ([]Instance, error)
	// Unplaced tells why the cluster cannot run all of the wanted instances at once, for people: which instance finds no
	// machine, what it demands, and what the machines offer. "" says that no obstacle is known.
	Unplaced(ctx context.Context, wanted []messages.UnitDefinition) (string, error)
	// Apply gives an instance a definition and starts it. Where it has the definition already nothing happens, unless
	// restart is set. The token is stored with the instance; one lower than the stored one is ErrSuperseded.
	Apply(ctx context.Context, d messages.UnitDefinition, token int64, restart bool) error
	// Fence has an instance that is left as it is refuse every token below this one, where the cluster can do that
	// without a restart: unitd can, a real fleet cannot.
	Fence(ctx context.Context, name string, token int64) error
	// Remove stops and forgets an instance, under the same rule for tokens. One that is not there is no error.
	Remove(ctx context.Context, name string, token int64) error
	// Wait returns when the state of an instance may have changed since the last List, or when ctx ends. It may return
	// early; the caller lists again.
	Wait(ctx context.Context, name string) error
	// Logs are the last lines of an instance's output since it was started last, as far as the cluster gives them.
	Logs(ctx context.Context, name string) (string, error)
}

// The errors that callers tell apart.
var (
	ErrSuperseded  = errors.New("superseded: the instance has seen a higher token")
	ErrUnreachable = errors.New("cluster does not answer")
	ErrRefused     = errors.New("cluster refuses the request")
)

// Superseded is ErrSuperseded of a unit that holds a higher token than was given.
func Superseded(name string, token, held int64) error {
	return fmt.Errorf("%w: unit %s holds token %d, which is higher than %d", ErrSuperseded, name, held, token)
}

// Unreachable wraps err as ErrUnreachable.
func Unreachable(err error) error { return fmt.Errorf("%w: %w", ErrUnreachable, err) }

// Options are the options of a definition.
func Options(d messages.UnitDefinition) []unit.Option {
	options := make([]unit.Option, len(d.Options))
	for i, o := range d.Options {
		options[i] = unit.Option(o)
	}
	return options
}

// Placeables are instances that want a place. A name that is not a unit's is ErrRefused.
func Placeables(wanted []messages.UnitDefinition) ([]unit.Placeable, error) {
	list := make([]unit.Placeable, len(wanted))
	for i, d := range wanted {
		name, err := unit.ParseName(d.Name)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRefused, err)
		}
		list[i] = unit.NewPlaceable(name, Options(d))
	}
	return list, nil
}
