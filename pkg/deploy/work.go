package deploy

import (
	"slices"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/openaperture/openaperture/pkg/deploy/failure"
	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/roll"
	"github.com/openaperture/openaperture/pkg/unit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// work is the work file of one deploy order. Fields are only ever added: the file is read by the next and the previous
// release as well (docs/compatibility.md).
type work struct {
	Order messages.Order         `json:"order"`
	Token int64                  `json:"token"`
	Trace propagation.MapCarrier `json:"trace,omitempty"` // of the order's delivery, as W3C traceparent
	Stage stage                  `json:"stage"`
	// Wanted is the definition of every instance that is to run.
	Wanted []messages.UnitDefinition `json:"wanted"`
	// Found is what to return to: the definition of every instance that was there before the first attempt.
	Found []messages.UnitDefinition `json:"found"`
	Count int                       `json:"count"` // instances per template
	// Restarted are the instances that had the wanted definition and had ended.
	Restarted   []string         `json:"restarted,omitempty"`
	Progress    roll.Progress    `json:"progress"`
	Result      *messages.Result `json:"result,omitempty"`
	ConfirmedAt time.Time        `json:"confirmed_at"`
	// Disturbed is who was away while the failing instance was waited for.
	Disturbed string `json:"disturbed,omitempty"`
	// Unplaced is why no machine takes the failing instance.
	Unplaced string `json:"unplaced,omitempty"`
	Silent   bool   `json:"silent,omitempty"` // of an undo: manager-api did not answer
}

// newWork plans a deploy: count instances of every template, one of every plain unit.
func newWork(j *job, count int, found []runtime.Instance) (*work, error) {
	w := &work{Order: j.order, Token: j.token, Trace: j.trace, Count: 1}
	for _, u := range j.order.DeployableUnits {
		name, err := unit.ParseName(u.Name)
		if err != nil || (name.Templated && !name.IsTemplate()) {
			return nil, failure.New(failure.UnitInvalid, "%q is neither a template nor a plain unit", u.Name)
		}
		if err := unit.Validate(runtime.Options(stamped(j.order, u))); err != nil {
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

// replaced is what was found, for a result, without versions: manager-api keeps releases without them. Where it is
// known what to return to nobody needs it, and a limit on its size would keep the order from being performed: what it
// finds are two versions, perhaps.
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

// plan is what the rolling deploy is to reach; while it is undone, what was found.
func (w *work) plan() roll.Plan {
	from, to := w.Found, w.Wanted
	p := roll.Plan{Found: map[string]string{}, MinHealthy: w.Order.MinHealthy(),
		HealthDeadline: w.Order.HealthDeadline(), Deadline: w.Order.Deadline}
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

func hash(d messages.UnitDefinition) string { return unit.Hash(runtime.Options(d)) }

// differs tells whether anything that runs is not what was found.
func (w *work) differs(observed map[string]roll.Instance) bool {
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
