package deploy

import (
	"slices"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/deploy/failure"
	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/roll"
	"github.com/openaperture/openaperture/pkg/unit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// stage is how far the work on an order has come.
type stage string

const (
	rolling   stage = "rolling"   // instances are being replaced, or an instance is being put back
	reported  stage = "reported"  // the result is decided, and not yet confirmed by the broker
	confirmed stage = "confirmed" // the broker has the result; the order is not yet settled
	undoing   stage = "undoing"   // a deploy whose result was confirmed is being taken back
)

// work is the work file of one deploy order. Fields are only ever added: the file is read by the next and the previous
// release as well (docs/compatibility.md).
type work struct {
	Order       messages.Order            `json:"order"`
	Token       int64                     `json:"token"`
	Trace       propagation.MapCarrier    `json:"trace,omitempty"` // of the order's delivery, as W3C traceparent
	Stage       stage                     `json:"stage"`
	Wanted      []messages.UnitDefinition `json:"wanted"`              // per instance
	Found       []messages.UnitDefinition `json:"found"`               // per instance, to return to: what was there before the first attempt
	Count       int                       `json:"count"`               // instances per template
	Restarted   []string                  `json:"restarted,omitempty"` // instances that had the wanted definition and had ended
	Progress    roll.Progress             `json:"progress"`
	Result      *messages.Result          `json:"result,omitempty"`
	ConfirmedAt time.Time                 `json:"confirmed_at"`
	Disturbed   string                    `json:"disturbed,omitempty"` // who was away while the failing instance was waited for
	Silent      bool                      `json:"silent,omitempty"`    // of an undo: manager-api did not answer

	// Since when a confirmed deploy has waited in vain: with this process alive, the broker usable and nobody who watches
	// over it; zero before it is guarded. The session is the broker's at that time. While it is guarded they are
	// written under the engine's lock.
	quiet   time.Time
	session uint64
}

// newWork plans a deploy: count instances of every template, one of every plain unit.
func newWork(j *job, count int, found []runtime.Instance) (*work, error) {
	w := &work{Order: j.order, Token: j.token, Trace: j.trace, Stage: rolling, Count: 1}
	for _, u := range j.order.DeployableUnits {
		name, err := unit.ParseName(u.Name)
		if err != nil || (name.Templated && !name.IsTemplate()) {
			return nil, failure.New(failure.UnitInvalid, "%q is neither a template nor a plain unit", u.Name)
		}
		if err := unit.Validate(toUnit(stamped(j.order, u).Options)); err != nil {
			return nil, failure.New(failure.UnitInvalid, "%s: %w", u.Name, err)
		}
		if !name.Templated {
			w.Wanted = append(w.Wanted, target(j.order, u, found))
			continue
		}
		w.Count = count
		for i := 1; i <= count; i++ {
			u.Name = name.WithInstance(strconv.Itoa(i)).String()
			w.Wanted = append(w.Wanted, target(j.order, u, found))
		}
	}
	for _, f := range found {
		w.Found = append(w.Found, f.Definition)
	}
	return w, nil
}

// replaced is what was found, for a result, without versions: manager-api keeps releases without them. Where it is known
// what to return to nobody needs it, and a limit on its size would keep the order from being performed: what it finds are
// two versions, perhaps.
func (w *work) replaced() []messages.Replaced {
	if w.Order.ReplacedKnown {
		return nil
	}
	plain := make([]messages.UnitDefinition, len(w.Found))
	for i, d := range w.Found {
		plain[i] = unstamped(d)
	}
	return messages.Distinct(plain)
}

// again is the job of going on with the work, under the claim that it had.
func (w *work) again(ttl time.Duration) *job {
	return &job{order: w.Order, token: w.Token, trace: w.Trace, ttl: ttl, work: w}
}

// unitNames are the names of all units that an order is about: what it deploys and what it leaves behind.
func unitNames(o messages.Order) []string {
	var list []string
	for _, u := range o.DeployableUnits {
		list = append(list, u.Name)
	}
	return append(list, o.LeavingUnits...)
}

// bases are the names before the `@` of all units that an order is about.
func bases(o messages.Order) []string {
	var list []string
	for _, u := range unitNames(o) {
		if name, err := unit.ParseName(u); err == nil && !slices.Contains(list, name.Base) {
			list = append(list, name.Base)
		}
	}
	return list
}

// plan is what the rolling deploy is to reach; while it is undone, what was found.
func (w *work) plan() roll.Plan {
	from, to := w.Found, w.Wanted
	p := roll.Plan{Found: map[string]string{}, MinHealthy: w.Order.MinHealthy(), HealthDeadline: w.Order.HealthDeadline(), Deadline: w.Order.Deadline}
	if w.Stage == undoing {
		from, to, p.Undo, p.Deadline = w.Wanted, w.Found, true, time.Time{}
	}
	for _, d := range to {
		p.Targets = append(p.Targets, roll.Target{Name: d.Name, Hash: hash(d)})
	}
	for _, d := range from {
		p.Found[d.Name] = hash(d)
		if _, kept := find(to, d.Name); !kept {
			p.Extra = append(p.Extra, d.Name)
		}
	}
	return p
}

// definition is what the plan wants of an instance.
func (w *work) definition(name string) (messages.UnitDefinition, bool) {
	if w.Stage == undoing {
		return find(w.Found, name)
	}
	return find(w.Wanted, name)
}

func find(list []messages.UnitDefinition, name string) (messages.UnitDefinition, bool) {
	i := slices.IndexFunc(list, func(d messages.UnitDefinition) bool { return d.Name == name })
	if i < 0 {
		return messages.UnitDefinition{}, false
	}
	return list[i], true
}

func toUnit(options []messages.Option) []unit.Option {
	out := make([]unit.Option, len(options))
	for i, o := range options {
		out[i] = unit.Option(o)
	}
	return out
}

func hash(d messages.UnitDefinition) string { return unit.Hash(toUnit(d.Options)) }

// touched tells whether anything differs from what was found. An instance that is failing though it was found as wanted
// counts too: an attempt whose work file is elsewhere may have given it that.
func (w *work) touched(observed map[string]roll.Instance) bool {
	if w.Progress.Failing != "" {
		return true
	}
	for name := range observed {
		if _, had := find(w.Found, name); !had {
			return true
		}
	}
	for _, d := range w.Found {
		if o, there := observed[d.Name]; !there || o.Hash != hash(d) {
			return true
		}
	}
	return false
}

// fate is what becomes of a confirmed work file.
type fate uint8

const (
	keep fate = iota // ask again later
	drop             // the order is settled, or somebody else's
	undo             // take the deploy back
)

// settle decides the fate of confirmed work. view is nil while manager-api does not answer. Only an order that replaced
// manager-api is undone: one that is ready but deaf, or dead because its deploy failed half way, could not do it itself
// (docs/deployment.md#the-work-file). A failure that manager-api has learned of is its own to undo.
func settle(w *work, view *managerapi.OrderView, now time.Time) fate {
	completed := w.Result != nil && w.Result.EventType == messages.EventMilestoneCompleted
	halfDone := w.Result != nil && !completed && w.Result.Touched && !w.Result.Restored
	manager := w.Order.ComponentType == string(component.Manager)
	proving := manager && completed
	switch {
	case view != nil && view.Token > w.Token:
		return drop
	case view != nil && proving && view.Settled, view != nil && !proving && ended(view.State):
		return drop
	case manager && (completed || halfDone) && w.Order.ProgressDeadlineMS > 0 && !now.Before(w.undoAt()):
		return undo
	default:
		return keep
	}
}

// undoAt is when a confirmed deploy of manager-api has waited in vain for long enough.
func (w *work) undoAt() time.Time {
	since := w.ConfirmedAt
	if w.quiet.After(since) {
		since = w.quiet
	}
	return since.Add(w.Order.ProgressDeadline())
}

// ended tells whether manager-api wants nothing more of an order.
func ended(state string) bool { return state == "completed" || state == "failed" || state == "closed" }
