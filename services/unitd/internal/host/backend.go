package host

import (
	"context"
	"errors"
	"time"

	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/services/unitd/internal/service"
)

// ErrForeign says that somebody else than unitd has a unit of this name on the host, which is never touched.
var ErrForeign = errors.New("unit of this name exists on the host and was not written by unitd")

// ErrUnreached says that an order may or may not have been taken: nobody answered. It says nothing about the unit.
var ErrUnreached = errors.New("service manager is not reached")

// Backend runs the activations of units, at most one per unit at a time: direct supervision or systemd. What it runs
// outlives it. The host decides what runs when; a backend knows no records, tokens or placement.
type Backend interface {
	// Name is the value of the configuration key `backend`.
	Name() string
	// Honours tells whether options of [Service] that unitd does not know have an effect all the same.
	Honours() bool
	// Units are the names of which something is left by an earlier unitd. It is called with the state directory locked, and
	// removes what unfinished writes left.
	Units() ([]string, error)
	// Check tells whether a unit may be run under this name; ErrForeign if not.
	Check(ctx context.Context, name string) error
	// Find says what is left of a unit's latest activation. What runs is not touched; half dead remains are ended.
	Find(ctx context.Context, name string) (Found, error)
	// Watch returns a channel that rings when somebody else may have started a unit, and the function that ends it. nil:
	// nobody else can.
	Watch(name string) (<-chan struct{}, func())
	// Start starts an activation of a unit that does not run. ErrUnreached: Find tells what has become of the order.
	Start(ctx context.Context, name string, a Activation) (Running, error)
	// End says how the activation that Follow saw end did so; nothing of it is left then. requested: a stop was asked for.
	End(ctx context.Context, name string, requested bool) Ended
	// Forget removes what a stopped unit leaves on the host.
	Forget(ctx context.Context, name string) error
	// Logs are the last lines of a unit's output as clean text, at most limit bytes. Before what a start
	// writes stands a line that begins with unit.StartMark.
	Logs(ctx context.Context, name string, lines, limit int) (string, error)
}

// Running is one living activation.
type Running interface {
	// Follow reports every status, one perhaps twice, until the activation has ended (nil) or ctx ends (ctx.Err()). Any
	// other error says nothing about the activation: Follow is to be called again.
	Follow(ctx context.Context, report func(Status)) error
	// Stop asks for the end, which Follow sees. It returns at once.
	Stop()
}

// Activation is an order to run a unit.
type Activation struct {
	Generation string // which definition of the unit this is
	Restarts   int    // automatic ones of this definition by the host, before this one
	Streak     int    // of which the last so many did not stay up
	Previous   *service.Exit
	Service    service.Service
	Options    []unit.Option
}

// Found is what was left of a unit: nothing (zero), an activation that runs, or how the latest one ended.
type Found struct {
	Generation string
	Hash       string
	Restarts   int
	Streak     int
	Status     Status
	Running    Running       // nil: it does not run
	Exit       *service.Exit // of the latest, or before the running one; nil: none, or it ended with the host
	Up         time.Duration // of the one that ended
}

// Ended is how an activation ended.
type Ended struct {
	Status Status
	Exit   service.Exit
	Up     time.Duration // how long it was active
}

// Status is what a living activation does.
type Status struct {
	Active, Sub string // systemd's states
	MainPID     int
	Since       time.Time // when it became active
	Text        string    // STATUS= of the service
	Restarts    int       // automatic ones by the backend itself
	Result      string    // of the run before, if the backend restarts by itself
}
