package host

import (
	"context"
	"errors"
	"time"

	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/services/unitd/internal/service"
)

// ErrForeign says that the host has a unit of this name that unitd did not write. Such a unit is never touched.
var ErrForeign = errors.New("unit of this name exists on the host and was not written by unitd")

// ErrUnreached says that nobody answered an order. The order may have been taken or not; the unit may run or not.
var ErrUnreached = errors.New("service manager is not reached")

// Backend runs the activations of units: direct supervision or systemd. At most one activation of
// a unit runs at a time. The processes outlive the backend. The host decides what runs when; a
// backend knows no records, tokens or placement.
type Backend interface {
	// Name is the value of the configuration key `backend`.
	Name() string
	// Honours tells whether options of [Service] that unitd does not know have an effect all the same.
	Honours() bool
	// Units are the names of the units of which an earlier unitd left something. It is called with the state directory
	// locked, and removes the remains of unfinished writes.
	Units() ([]string, error)
	// Check tells whether a unit may be run under this name, ErrForeign if not, and whether its options can be written,
	// ErrNotStored if not: what runs must not be stopped for a definition that cannot be started. Without options the
	// unit keeps those that it has.
	Check(ctx context.Context, name string, options []unit.Option) error
	// Find says what is left of a unit's latest activation. A running activation is not touched. Processes that are left
	// of one that has ended are ended too.
	Find(ctx context.Context, name string) (Found, error)
	// Watch returns a channel and a function. The channel rings when somebody else may have started the unit; it is nil
	// if nobody else can. The function ends the watch.
	Watch(name string) (<-chan struct{}, func())
	// Start starts an activation of a unit that does not run. After ErrUnreached, Find tells what became of the order.
	Start(ctx context.Context, name string, a Activation) (Running, error)
	// End says how an activation ended whose end Follow has seen. No process of the activation is left when End returns.
	// requested: unitd had asked for the end.
	End(ctx context.Context, name string, requested bool) Ended
	// Forget removes what a stopped unit leaves on the host.
	Forget(ctx context.Context, name string) error
	// Logs are the last lines of a unit's output as clean text, at most limit bytes. The output of each start follows a
	// line that begins with unit.StartMark.
	Logs(ctx context.Context, name string, lines, limit int) (string, error)
}

// Running is one living activation.
type Running interface {
	// Follow reports every status; the same status may be reported twice. It returns nil when the activation has ended,
	// ctx.Err() when ctx ends. Any other error says nothing about the activation: the caller calls Follow again.
	Follow(ctx context.Context, report func(Status)) error
	// Stop asks the activation to end and returns at once. Follow sees the end.
	Stop()
}

// Activation is an order to run a unit.
type Activation struct {
	Generation string // which definition of the unit this is
	Restarts   int    // how often the host has restarted this definition before
	Streak     int    // how many of the latest restarts in a row did not stay up
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
	Exit       *service.Exit // of the latest ended activation; nil: none, or it ended with the host
	Up         time.Duration // how long the ended activation was active
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
	Restarts    int       // how often the backend itself has restarted it
	Result      string    // of the run before, if the backend itself restarts
}
