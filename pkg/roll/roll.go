// Package roll decides the next step of a rolling deploy, also whether and when an instance is restored (putBack). It
// is pure: Next takes a plan, what the runtime shows, what was done so far, and now. Nothing here acts or reads a
// clock.
//
// Invariants (docs/deployment.md#rolling-deploy):
//   - One instance is replaced at a time, in the plan's order.
//   - An instance that has the wanted definition and has been healthy for MinHealthy is left alone. So a repeated
//     deploy changes nothing.
//   - Instances beyond the plan are removed last, after all others are healthy.
//   - The first instance that misses its deadline, or that the order's deadline finds half done, gets back the
//     definition that it had. Then the deploy ends.
//   - A crash or an unhealthy spell restarts the MinHealthy clock and nothing else. Of the instances that break while a
//     later one is waited for, each has one clock until a further instance is begun.
package roll

import (
	"slices"
	"time"
)

// Health is the runtime's own verdict on one instance.
type Health uint8

// The verdicts. Down is ended or failed; Starting is everything between.
const (
	Down Health = iota
	Starting
	Healthy
)

// Target is one instance that should exist, with the identity of its definition.
type Target struct {
	Name string
	Hash string
}

// Plan is what should be. The durations come with the order; Deadline is the order's.
type Plan struct {
	Targets        []Target
	Found          map[string]string // name → hash of what the deploy found; a name that is absent was not there
	Extra          []string          // found instances that should not exist
	MinHealthy     time.Duration
	HealthDeadline time.Duration
	Deadline       time.Time
	Undo           bool // the plan is itself a restoration: a failing instance is left as it is
}

// Instance is what the runtime shows of one instance.
type Instance struct {
	Hash   string
	Health Health
	// HealthySince is when, on the clock of now, it was first seen healthy without a break since; zero if it is not.
	HealthySince time.Time
}

// Progress is what has been done; the zero value is nothing.
type Progress struct {
	// Clocks are the instances whose health deadline runs, and since when: it was applied, or first seen unhealthy after
	// it had been finished. They run until an instance further on in the plan is begun.
	Clocks     map[string]time.Time
	Failing    string    // the instance that missed its deadline; this decision is never taken back
	Expired    bool      // Failing was decided by the order's deadline
	RestoredAt time.Time // when Failing got back what it had; zero: not yet
}

// Kind is what to do next.
type Kind uint8

// The kinds of step.
const (
	Apply   Kind = iota // apply the wanted definition to Name; its clock starts
	Watch               // Name has the wanted definition and is not healthy: its clock starts
	Wait                // until something changes, or until Until
	Remove              // remove Name, which is beyond the wanted count
	Fail                // record that Name is failing, before it is touched again
	Restore             // give Name back what it had, or remove it if there was nothing
	Done                // everything is as wanted
	Failed              // the deploy has ended; Reason says how
)

var kindNames = [...]string{"apply", "watch", "wait", "remove", "fail", "restore", "done", "failed"}

// String is the kind for logs and for the table of where the time goes.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Reason says why a step is the next one.
type Reason uint8

// The reasons. Whose fault a failure is, pkg/blame decides.
const (
	Unspecified        Reason = iota
	Missing                   // the instance does not exist
	Differs                   // it has another definition
	NotRunning                // it has the wanted definition, but has ended
	Unsteady                  // it is not healthy, or not for long enough
	Lagging                   // it was applied; the runtime does not show it yet
	Superfluous               // it is beyond the wanted count
	DeadlineMissed            // it did not become healthy in time
	OrderExpired              // the order's deadline has passed
	PutBack                   // what it had replaced is healthy again
	NothingToPutBack          // nothing had run here before
	RanBefore                 // this definition ran here before already
	PutBackUnhealthy          // what it had replaced does not get healthy either
	UndoneIncompletely        // an undo did not get everything healthy
	AsWanted                  // every instance is
)

var reasonTexts = [...]string{
	"unspecified", "instance does not exist", "instance has another definition", "instance has ended",
	"instance has not been healthy for long enough", "runtime does not show the definition yet",
	"instance is beyond the wanted count", "instance missed its health deadline", "order's deadline has passed",
	"replaced definition is healthy again", "nothing had run here before", "this definition ran here before already",
	"replaced definition is not healthy either", "undo did not get an instance healthy", "everything is as wanted",
}

// String is the reason as a sentence.
func (r Reason) String() string {
	if int(r) < len(reasonTexts) {
		return reasonTexts[r]
	}
	return "unknown"
}

// Step is the next step, with its reason.
type Step struct {
	Kind   Kind
	Name   string
	Reason Reason
	Until  time.Time // of a Wait
}

// Next is the next step of a rolling deploy.
func Next(p Plan, observed map[string]Instance, done Progress, now time.Time) Step {
	if done.Failing != "" {
		return p.putBack(observed, done, now)
	}
	for _, t := range p.Targets {
		if step, steady := p.target(t, observed, done, now); !steady {
			return step
		}
	}
	for _, name := range p.Extra {
		if _, there := observed[name]; there {
			return p.beforeDeadline(Step{Kind: Remove, Name: name, Reason: Superfluous}, observed, now)
		}
	}
	return Step{Kind: Done, Reason: AsWanted}
}

// target is the next step for one target; steady means that none is needed.
func (p Plan) target(t Target, observed map[string]Instance, done Progress, now time.Time) (step Step, steady bool) {
	o, there := observed[t.Name]
	wanted := there && o.Hash == t.Hash
	if wanted && o.steady(p.MinHealthy, now) {
		return Step{}, true
	}
	if since, runs := done.Clocks[t.Name]; runs {
		if p.expired(now) {
			return Step{Kind: Fail, Name: p.lastInHand(observed, done, now), Reason: OrderExpired}, false
		}
		return p.inHand(t.Name, wanted, o, since, now), false
	}
	switch {
	case !there:
		step = Step{Kind: Apply, Name: t.Name, Reason: Missing}
	case !wanted:
		step = Step{Kind: Apply, Name: t.Name, Reason: Differs}
	case o.Health == Down:
		step = Step{Kind: Apply, Name: t.Name, Reason: NotRunning}
	default:
		step = Step{Kind: Watch, Name: t.Name, Reason: Unsteady}
	}
	return p.beforeDeadline(step, observed, now), false
}

// inHand waits for the instance whose clock runs, or finds that it failed.
func (p Plan) inHand(name string, wanted bool, o Instance, since, now time.Time) Step {
	limit := since.Add(p.HealthDeadline)
	switch {
	case !now.Before(limit):
		return Step{Kind: Fail, Name: name, Reason: DeadlineMissed}
	case !wanted:
		return Step{Kind: Wait, Name: name, Reason: Lagging, Until: earliest(limit, p.Deadline)}
	default:
		return Step{Kind: Wait, Name: name, Reason: Unsteady, Until: earliest(limit, p.Deadline, o.steadyAt(p.MinHealthy))}
	}
}

// lastInHand is the last instance whose clock runs in vain; those before it were finished once.
func (p Plan) lastInHand(observed map[string]Instance, done Progress, now time.Time) string {
	for _, t := range slices.Backward(p.Targets) {
		o := observed[t.Name]
		if _, runs := done.Clocks[t.Name]; runs && (o.Hash != t.Hash || !o.steady(p.MinHealthy, now)) {
			return t.Name
		}
	}
	return ""
}

// putBack ends a deploy whose instance Failing missed its deadline.
func (p Plan) putBack(observed map[string]Instance, done Progress, now time.Time) Step {
	name := done.Failing
	found, had := p.Found[name]
	o, there := observed[name]
	switch {
	case p.Undo:
		return Step{Kind: Failed, Name: name, Reason: UndoneIncompletely}
	case had && found == p.wantedHash(name), !had && !there:
		return p.ended(name, p.uncompared(name), done)
	case done.RestoredAt.IsZero():
		return Step{Kind: Restore, Name: name, Reason: DeadlineMissed}
	case had && there && o.Hash == found && o.steady(p.MinHealthy, now):
		return p.ended(name, PutBack, done)
	}
	limit := done.RestoredAt.Add(p.HealthDeadline)
	if !now.Before(limit) {
		return Step{Kind: Failed, Name: name, Reason: PutBackUnhealthy}
	}
	if had && there && o.Hash == found {
		return Step{Kind: Wait, Name: name, Reason: Unsteady, Until: earliest(limit, o.steadyAt(p.MinHealthy))}
	}
	return Step{Kind: Wait, Name: name, Reason: Lagging, Until: limit}
}

// ended ends the deploy for this reason, unless it was the order that ran out of time.
func (p Plan) ended(name string, r Reason, done Progress) Step {
	if done.Expired {
		r = OrderExpired
	}
	return Step{Kind: Failed, Name: name, Reason: r}
}

// uncompared is why an instance failed that could not be compared with what it had before: its definition ran here
// before, in this place or in another, as in a deploy that is forced or repeated, or nothing had run in its place.
func (p Plan) uncompared(name string) Reason {
	for _, found := range p.Found {
		if found == p.wantedHash(name) {
			return RanBefore
		}
	}
	return NothingToPutBack
}

func (p Plan) wantedHash(name string) string {
	for _, t := range p.Targets {
		if t.Name == name {
			return t.Hash
		}
	}
	return ""
}

// beforeDeadline begins nothing new once the order has expired. What is half done then is failing, also what an earlier
// process of the executor has left.
func (p Plan) beforeDeadline(s Step, observed map[string]Instance, now time.Time) Step {
	if !p.expired(now) {
		return s
	}
	if name, there := p.halfDone(observed, now); there {
		return Step{Kind: Fail, Name: name, Reason: OrderExpired}
	}
	return Step{Kind: Failed, Name: s.Name, Reason: OrderExpired}
}

// halfDone is the last instance that is not as it was found, unless it is as wanted: instances are replaced in the
// plan's order, so those before it were finished. After a restart they only seem young, and are not to be disturbed.
func (p Plan) halfDone(observed map[string]Instance, now time.Time) (name string, there bool) {
	for _, t := range slices.Backward(p.Targets) {
		o, shown := observed[t.Name]
		if found, had := p.Found[t.Name]; shown == had && o.Hash == found {
			continue
		}
		return t.Name, o.Hash != t.Hash || !o.steady(p.MinHealthy, now)
	}
	return "", false
}

func (p Plan) expired(now time.Time) bool { return !p.Deadline.IsZero() && !now.Before(p.Deadline) }

func (o Instance) steady(minHealthy time.Duration, now time.Time) bool {
	return o.Health == Healthy && !o.HealthySince.IsZero() && now.Sub(o.HealthySince) >= minHealthy
}

// steadyAt is when the instance will have been healthy long enough; zero while it is not healthy.
func (o Instance) steadyAt(minHealthy time.Duration) time.Time {
	if o.Health != Healthy || o.HealthySince.IsZero() {
		return time.Time{}
	}
	return o.HealthySince.Add(minHealthy)
}

// earliest ignores zero times.
func earliest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}
