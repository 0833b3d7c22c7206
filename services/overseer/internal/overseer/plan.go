// Package overseer judges one exchange: which component is due for a check, which requested upgrade starts, what is
// proven, when to sweep the silent. A pass is snapshot, plan, apply: one read, one pure decision, one REST call per
// action.
//
// Invariants: only the leader judges, and only within its trust window; every write carries the term and is conditional
// in manager-api, so leadership is a convenience and never what correctness rests on; a conflict is news and the next
// pass reads it; messages only wake the pass.
package overseer

import (
	"fmt"
	"slices"
	"time"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/eligibility"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/module"
	"github.com/openaperture/openaperture/pkg/schedule"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// Kind names what an action does.
type Kind string

// The kinds, in the order in which a plan holds them: proofs first, because they free the slot.
const (
	Prove  Kind = "prove"  // the current phase of an upgrade is proven
	Sweep  Kind = "sweep"  // inactivate and delete silent modules
	Refuse Kind = "refuse" // end a request as ineligible
	Start  Kind = "start"  // begin a requested upgrade
	Check  Kind = "check"  // record an automatic check and when to look next
)

// CodeBackingOff is the verdict of a check that makes no upgrade because the last ones failed by the environment.
const CodeBackingOff = "backing_off"

// Action is one thing to do, with the reason for it.
type Action struct {
	Kind      Kind
	Type      component.Type
	Component component.ID // of a check
	Upgrade   upgrade.ID   // of prove, refuse and start
	Verdict   managerapi.Verdict
	Target    upgrade.Version // of a start
	NextCheck time.Time       // of a check
	Create    bool            // of a check: request an upgrade
	Inputs    any             // what was looked at, for the journal
	Saw       *managerapi.Saw // of start and refuse: what must not have changed meanwhile
}

// Situation is everything that a plan depends on.
type Situation struct {
	Snapshot      managerapi.Snapshot
	Term          int64 // our own; a snapshot under another leader plans nothing
	SweepDue      bool
	CheckInterval time.Duration
	StarveAfter   time.Duration        // see schedule.Order
	Jitter        func() time.Duration // draws from [0, CheckInterval) for a component that was never scheduled
	// Contain runs the judgement of one item and turns a panic into an error.
	Contain func(item string, judgement func()) error
}

// LeftAlone is an item of a snapshot that was not judged, and why: the item is of a newer neighbour, or its judgement
// broke.
type LeftAlone struct {
	Item string // upgrade/<id>, component/<id>
	Why  string
}

// planning is a plan in the making.
type planning struct {
	Situation
	plan      []Action
	leftAlone []LeftAlone
}

// Plan decides what to do now. It starts nothing while an upgrade runs in the exchange; of several starts the first
// that is accepted takes the slot. The time is the database's, which wrote all times of the snapshot. An item that
// cannot be judged is left alone, and does not keep the others from their judgement.
func Plan(s Situation) ([]Action, []LeftAlone) {
	lease := s.Snapshot.Lease
	if lease == nil || lease.Term != s.Term {
		return nil, nil
	}
	p := planning{Situation: s}
	p.proofs()
	if s.SweepDue && lease.Covering {
		p.add(Action{Kind: Sweep, Verdict: managerapi.Verdict{Code: "sweep_due",
			Message: "the exchange is covered and a sweep is due"}})
	}
	p.slot()
	p.checks()
	return p.plan, p.leftAlone
}

func (p *planning) add(a Action) { p.plan = append(p.plan, a) }

// judge runs the judgement of one item. Values that this release does not know are those of a newer manager-api: the
// item is left alone, because nobody here knows what they mean. So is an item whose judgement panics.
func (p *planning) judge(item, unknown string, judgement func()) {
	if unknown != "" {
		p.leaveAlone(item, unknown+" is not known to this overseer: it is left to a newer one")
		return
	}
	before := len(p.plan)
	if err := p.Contain(item, judgement); err != nil {
		p.plan = p.plan[:before]
		p.leaveAlone(item, "its judgement failed: "+err.Error())
	}
}

func (p *planning) leaveAlone(item, why string) {
	p.leftAlone = append(p.leftAlone, LeftAlone{Item: item, Why: why})
}

// unknown names the value of an open upgrade that this release does not know, "" if it knows all.
func unknown(u managerapi.OpenUpgrade) string {
	switch {
	case !slices.Contains(upgrade.States, u.State):
		return fmt.Sprintf("state %q", u.State)
	case !slices.Contains(upgrade.Triggers, u.Trigger):
		return fmt.Sprintf("trigger %q", u.Trigger)
	case !slices.Contains(upgrade.Steps, u.Step):
		return fmt.Sprintf("step %q", u.Step)
	case u.Phase < 0 || u.Phase > len(upgrade.PhasesOf(u.ComponentType)):
		return fmt.Sprintf("phase %d of type %s", u.Phase, u.ComponentType)
	}
	return ""
}

// proofs finds the upgrades whose current phase is proven. One that is not is left alone: its clock runs in
// manager-api.
func (p *planning) proofs() {
	for _, u := range p.Snapshot.Upgrades {
		p.judge("upgrade/"+string(u.ID), unknown(u), func() {
			if u.Need == nil || u.Step != upgrade.StepVerify || !u.State.Running() {
				return
			}
			if proof := upgrade.Prove(*u.Need, p.Snapshot.Modules); proof.OK() {
				p.add(Action{Kind: Prove, Type: u.ComponentType, Upgrade: u.ID, Target: u.To,
					Verdict: managerapi.Verdict{Code: string(proof.Reason), Message: proof.String()}, Inputs: proof})
			}
		})
	}
}

// slot decides who may take the exchange's slot, if it is free: the requests in their order, each judged again on this
// snapshot. Those before the first eligible one are refused; of those after it the eligible ones are there for the case
// that it cannot be started, and the others wait for a free slot. An upgrade in a state that is not known here does not
// count: if it keeps the slot, manager-api refuses the start.
func (p *planning) slot() {
	var waiting []schedule.Request
	byID := map[upgrade.ID]managerapi.OpenUpgrade{}
	for _, u := range p.Snapshot.Upgrades {
		if u.State.Running() {
			return
		}
		if u.State == upgrade.Requested && unknown(u) == "" {
			waiting = append(waiting, schedule.Request{ID: u.ID, Type: u.ComponentType, Trigger: u.Trigger,
				CreatedAt: u.CreatedAt})
			byID[u.ID] = u
		}
	}
	taken := false
	for _, r := range schedule.Order(waiting, p.Snapshot.DatabaseTime, p.StarveAfter) {
		u := byID[r.ID]
		p.judge("upgrade/"+string(u.ID), "", func() { taken = p.request(u, taken) || taken })
	}
}

// request judges one request. It reports whether the request is to take the slot; taken says that one before it is.
func (p *planning) request(u managerapi.OpenUpgrade, taken bool) bool {
	if p.Snapshot.Freeze != nil && u.Trigger != upgrade.TriggerRollback {
		return false // it waits: nothing starts but a return to a proven release
	}
	c, ok := p.component(u.ComponentID)
	if !ok {
		return false // the snapshot does not hold its component: nothing is judged on partial knowledge
	}
	var since time.Time
	if u.Trigger == upgrade.TriggerRequest {
		since = u.CreatedAt // a request is for what the refs stand for now; what is not known is resolved by its config
	}
	in := p.judgement(c, since)
	in.Trigger, in.Force, in.Release = u.Trigger, u.Force, u.To
	v := eligibility.Judge(in)
	if v.Silence() && !p.heard() {
		return false // it waits: its refusal rests on whom we may not have heard yet
	}
	if p.Snapshot.Resolving && !v.OK() && u.Trigger == upgrade.TriggerRequest {
		return false // it waits: an executor asks git hosts whether there is something new
	}
	a := Action{Kind: Refuse, Type: c.Type, Upgrade: u.ID, Verdict: verdict(v), Target: v.Target, Inputs: evidence(in),
		Saw: p.saw(in)}
	if v.OK() {
		a.Kind = Start
	} else if taken {
		return false
	}
	p.add(a)
	return v.OK()
}

// checks finds the hourly components whose time has come, and those that were never scheduled: these get their phase
// and a verdict to show, and no upgrade yet, so that a new exchange does not begin with everything at once.
func (p *planning) checks() {
	for _, c := range p.Snapshot.Components {
		strange := ""
		if !slices.Contains(component.Strategies, c.Strategy) {
			strange = fmt.Sprintf("upgrade_strategy %q", c.Strategy)
		}
		p.judge(fmt.Sprintf("component/%d", c.ID), strange, func() { p.check(c) })
	}
}

func (p *planning) check(c component.Component) {
	now := p.Snapshot.DatabaseTime
	if c.Strategy != component.Hourly {
		return
	}
	if c.NextCheckAt != nil && !schedule.Due(c.NextCheckAt, now, p.CheckInterval) && !p.Snapshot.Absence(c).CheckEarly() {
		return
	}
	if p.Snapshot.Resolving {
		return // it stays due: an executor asks git hosts for the commits that this check compares
	}
	var jitter time.Duration
	if c.NextCheckAt == nil {
		jitter = p.Jitter()
	}
	in := p.judgement(c, time.Time{})
	in.Trigger, in.Open = upgrade.TriggerHourly, p.open(c.ID)
	v := eligibility.Judge(in)
	if v.Silence() && !p.heard() {
		return // it stays due
	}
	a := Action{Kind: Check, Type: c.Type, Component: c.ID, Verdict: verdict(v), Target: v.Target, Inputs: evidence(in),
		NextCheck: schedule.Next(c.NextCheckAt, now, p.CheckInterval, jitter), Create: v.OK() && c.NextCheckAt != nil}
	if freeze := p.Snapshot.Freeze; v.OK() && freeze != nil {
		a.Verdict, a.Create = managerapi.Verdict{Code: "frozen", Message: freeze.String()}, false
	}
	if held := p.held(c.ID, v.Target); v.OK() && held != nil {
		a.Verdict, a.Create = *held, false
	}
	p.add(a)
}

// held is the verdict that holds an eligible component back because its upgrades to the target fail by the environment
// again and again; nil: nothing does. An explicit request is not held back.
func (s Situation) held(id component.ID, target upgrade.Version) *managerapi.Verdict {
	for _, f := range s.Snapshot.Failures {
		if f.ComponentID != id || !f.Target.Same(target) {
			continue
		}
		until := schedule.HeldUntil(schedule.Failures{Count: f.Count, Last: f.Last}, s.CheckInterval)
		if s.Snapshot.DatabaseTime.Before(until) {
			return &managerapi.Verdict{Code: CodeBackingOff,
				Message: fmt.Sprintf("upgrades to %s failed %d times in a row by the "+
					"environment: the next automatic try is at the first check after %s; remove the cause and request the upgrade "+
					"to try at once",
					target.SourceRepoGitRef, f.Count, until.UTC().Format(time.RFC3339))}
		}
	}
	return nil
}

// heard says whether everybody who lives has had the time to be heard: the exchange is covered, for as long as a module
// counts as live after a beat. Before, after an outage of the broker or of manager-api, silence says nothing.
func (s Situation) heard() bool {
	l := s.Snapshot.Lease
	if !l.Covering || l.CoveredSince == nil {
		return false
	}
	return s.Snapshot.DatabaseTime.Sub(*l.CoveredSince) >= time.Duration(s.Snapshot.LiveWithinMS)*time.Millisecond
}

// judgement is what the judgement of a component rests on. What git hosts said before since does not count.
func (s Situation) judgement(c component.Component, since time.Time) eligibility.Input {
	in := eligibility.Input{Component: c, Counts: s.Snapshot.Counts, Ref: s.Snapshot.Ref(c.Type),
		Quarantined: s.Snapshot.Refused(c.Type), Absence: s.Snapshot.Absence(c)}
	in.Source, in.Deployment = s.Snapshot.Tips(c, since)
	for _, other := range s.Snapshot.Components {
		if other.Type == component.Deployer {
			in.Deployers = other.SourceRepoGitRef
		}
	}
	return in
}

// saw is what the judgement of a request rests on, for manager-api to compare.
func (s Situation) saw(in eligibility.Input) *managerapi.Saw {
	saw := &managerapi.Saw{Ref: in.Ref, Component: in.Component, Trigger: in.Trigger, Force: in.Force,
		Quarantines: []string{}}
	for _, q := range s.Snapshot.Quarantines {
		if q.ComponentType == in.Component.Type {
			saw.Quarantines = append(saw.Quarantines, q.ID)
		}
	}
	slices.Sort(saw.Quarantines)
	return saw
}

func (s Situation) component(id component.ID) (component.Component, bool) {
	for _, c := range s.Snapshot.Components {
		if c.ID == id {
			return c, true
		}
	}
	return component.Component{}, false
}

func (s Situation) open(id component.ID) bool {
	for _, u := range s.Snapshot.Upgrades {
		if u.ComponentID == id && u.State.Open() {
			return true
		}
	}
	return false
}

func verdict(v eligibility.Verdict) managerapi.Verdict {
	return managerapi.Verdict{Code: string(v.Reason), Message: v.String()}
}

// Evidence is what a judgement looked at, as the journal keeps it.
type Evidence struct {
	Recorded    upgrade.Version   `json:"recorded"`
	Strategy    string            `json:"upgrade_strategy"`
	Ref         *component.Ref    `json:"ref"`
	Force       bool              `json:"force,omitempty"`
	Quarantined []upgrade.Version `json:"quarantined,omitempty"`
	Running     []module.Count    `json:"running"`              // of the type, and of its executors
	LastHeard   *time.Time        `json:"last_heard,omitempty"` // of a component whose instances are all gone
	// What git hosts said last about the ref and the deployment repository.
	Source     component.Tip `json:"source"`
	Deployment component.Tip `json:"deployment"`
}

func evidence(in eligibility.Input) Evidence {
	e := Evidence{Recorded: eligibility.Recorded(in.Component), Source: in.Source, Deployment: in.Deployment,
		Strategy: string(in.Component.Strategy), Ref: in.Ref, Force: in.Force, Quarantined: in.Quarantined,
		Running: []module.Count{}}
	if in.Absence.Gone() {
		e.LastHeard = &in.Absence.Since
	}
	for _, n := range in.Counts {
		if n.Type == in.Component.Type || n.Type == component.Deployer {
			e.Running = append(e.Running, n)
		}
	}
	return e
}

// Verifying returns the types whose heartbeats may complete a proof.
func Verifying(s managerapi.Snapshot) map[string]bool {
	types := map[string]bool{}
	for _, u := range s.Upgrades {
		if u.State.Running() && u.Step == upgrade.StepVerify {
			types[string(u.ComponentType)] = true
		}
	}
	return types
}
