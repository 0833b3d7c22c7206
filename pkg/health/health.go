// Package health compares what is supposed to run in an exchange with what runs
// (docs/concepts.md#health-of-an-exchange). It is a pure function of one snapshot: manager-api computes it on every
// read, the overseer for its metric. It proposes; nobody acts on it beyond what the rules of eligibility allow.
package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/eligibility"
	"github.com/openaperture/openaperture/pkg/module"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// Verdict says how a type fares in an exchange.
type Verdict string

// The verdicts.
const (
	Healthy    Verdict = "healthy"    // the desired version is recorded, and nothing that runs contradicts it
	Missing    Verdict = "missing"    // nothing of it runs
	Outdated   Verdict = "outdated"   // another version is recorded or runs
	Unexpected Verdict = "unexpected" // it runs although no component wants it, or only in another version
	Degraded   Verdict = "degraded"   // the desired version runs, but not all of it is heard
	Unknown    Verdict = "unknown"    // nobody says what should run
)

// Verdicts lists all verdicts.
var Verdicts = []Verdict{Healthy, Missing, Outdated, Unexpected, Degraded, Unknown}

// Action is what should be done next.
type Action string

// The actions.
const (
	None    Action = "none"
	Deploy  Action = "deploy"  // nothing runs: bring it there
	Upgrade Action = "upgrade" // replace what runs
	Stop    Action = "stop"    // proposed to people, not executed
)

// Reason is the enumerated reason for verdict and action. Where eligibility refuses an upgrade, its code is the reason.
// Where all instances of a component are gone, the reason is that of eligibility.Absence.
type Reason string

// The reasons of health itself.
const (
	AsDesired       Reason = "as_desired"
	ProvenByRuntime Reason = "proven_by_runtime" // no heartbeats are expected of this type
	UpgradeRunning  Reason = "upgrade_running"
	UpgradeDue      Reason = "upgrade_due"
	NothingLive     Reason = "nothing_live"
	NeverDeployed   Reason = "never_deployed"
	SomeSilent      Reason = "some_silent"
	HostnameTaken   Reason = "hostname_taken"  // two hosts beat under one hostname
	PairIncomplete  Reason = "pair_incomplete" // deployer or deployer-oa is not heard
	NoComponent     Reason = "no_component"
	NoGoldStandard  Reason = "no_ref"
	StrayModules    Reason = "stray_modules" // live ones of another version that the last upgrade has left alone
)

// Input is one snapshot of an exchange.
type Input struct {
	Refs        []component.Ref
	Components  []component.Component
	Open        map[component.ID]upgrade.State // open upgrades by component
	Quarantined map[component.Type][]upgrade.Version
	// Source and Deployment are what git hosts said last about a component's refs (eligibility.Input).
	Source, Deployment map[component.ID]component.Tip
	Absence            map[component.ID]eligibility.Absence // whether all instances of a component are gone
	Counts             []module.Count                       // what runs
	Modules            []module.Module
	Now                time.Time // of the clock that wrote Modules' LastSeen
	LiveWithin         time.Duration
}

// Running is one module as health shows it.
type Running struct {
	Hostname         string    `json:"hostname"`
	Service          string    `json:"service,omitempty"`
	Status           string    `json:"status"`
	SourceRepo       string    `json:"source_repo"`
	SourceRepoGitRef string    `json:"source_repo_git_ref"`
	LastSeen         time.Time `json:"last_seen"`
	Live             bool      `json:"live"`
	// RivalBootID is another boot that beats under the hostname, last at RivalSeen: two hosts have one name.
	RivalBootID string     `json:"rival_boot_id,omitempty"`
	RivalSeen   *time.Time `json:"rival_seen,omitempty"`
}

// Line is the health of one type in one exchange.
type Line struct {
	Type        component.Type   `json:"type"`
	ComponentID component.ID     `json:"component_id,omitempty"` // 0: no component wants this type
	Desired     *upgrade.Version `json:"desired"`
	Recorded    *upgrade.Version `json:"recorded"`
	Running     []Running        `json:"running"` // as far as Input.Modules told; by hostname
	Live        int              `json:"live"`
	Total       int              `json:"total"`
	Verdict     Verdict          `json:"verdict"`
	Action      Action           `json:"action"`
	Reason      Reason           `json:"reason"`
	Message     string           `json:"message"`
	// MissingSince is the last heartbeat of a component whose instances are all gone, RepairDueAt when its repair is due.
	MissingSince *time.Time `json:"missing_since,omitempty"`
	RepairDueAt  *time.Time `json:"repair_due_at,omitempty"`
}

// Judge returns one line for every component and every module type that is present, ordered by type.
func Judge(in Input) []Line {
	var lines []Line
	wanted := map[component.Type]bool{}
	for _, c := range in.Components {
		wanted[c.Type] = true
		lines = append(lines, in.ofComponent(c))
	}
	for _, n := range in.Counts {
		if wanted[n.Type] || n.Total == 0 {
			continue
		}
		wanted[n.Type] = true
		lines = append(lines, in.withoutComponent(n.Type))
	}
	slices.SortFunc(lines, func(a, b Line) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.ComponentID, b.ComponentID))
	})
	return lines
}

func (in Input) line(t component.Type) Line {
	l := Line{Type: t, Running: in.running(t)}
	for _, n := range in.Counts {
		if n.Type == t {
			l.Live += n.Live
			l.Total += n.Total
		}
	}
	return l
}

func (in Input) running(t component.Type) []Running {
	list := []Running{}
	for _, m := range in.Modules {
		if m.Type == t {
			r := Running{Hostname: m.Hostname, Service: m.Service, Status: m.Status, SourceRepo: m.SourceRepo,
				SourceRepoGitRef: m.SourceRepoGitRef, LastSeen: m.LastSeen, Live: m.Live(in.Now, in.LiveWithin)}
			if m.Disputed(in.Now, in.LiveWithin) {
				r.RivalBootID, r.RivalSeen = m.RivalBootID, m.RivalSeen
			}
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b Running) int { return cmp.Compare(a.Hostname, b.Hostname) })
	return list
}

func (in Input) withoutComponent(t component.Type) Line {
	l := in.line(t)
	l.Desired = in.desired(t)
	l.Verdict, l.Reason = Unexpected, NoComponent
	l.Action, l.Message = Stop, fmt.Sprintf("modules of type %s run here and no component wants them: create the "+
		"component, or stop them", t)
	if l.Live == 0 {
		l.Action, l.Message = None, fmt.Sprintf("modules of type %s were here and are gone; their rows go after a while", t)
	}
	return l
}

func (in Input) desired(t component.Type) *upgrade.Version {
	if r := in.ref(t); r != nil {
		return &upgrade.Version{SourceRepo: r.SourceRepo, SourceRepoGitRef: r.SourceRepoGitRef}
	}
	return nil
}

func (in Input) ref(t component.Type) *component.Ref {
	for i := range in.Refs {
		if in.Refs[i].Type == t {
			return &in.Refs[i]
		}
	}
	return nil
}

func (in Input) ofComponent(c component.Component) Line {
	l := in.line(c.Type)
	l.ComponentID, l.Desired = c.ID, in.desired(c.Type)
	if c.SourceRepo != "" || c.SourceRepoGitRef != "" {
		recorded := eligibility.Recorded(c)
		l.Recorded = &recorded
	}
	l.Verdict, l.Reason = in.fares(c, l)
	l.Action, l.Reason, l.Message = in.next(c, l)
	if a := in.Absence[c.ID]; a.Gone() {
		l.MissingSince = &a.Since
		if !a.DueAt.IsZero() {
			l.RepairDueAt = &a.DueAt
		}
	}
	return l
}

// fares finds the verdict and why it was reached.
func (in Input) fares(c component.Component, l Line) (Verdict, Reason) {
	if l.Desired == nil {
		return Unknown, NoGoldStandard
	}
	// A type that sends no heartbeats.
	silentProof := c.Proof == component.ProofUnits && l.Total == 0 && !in.Absence[c.ID].Gone()
	due, strays := true, 0
	if l.Recorded != nil && l.Recorded.AtRef() == l.Desired.AtRef() {
		due, strays = eligibility.Beside(in.Counts, c.Type, l.Desired.SourceRepoGitRef, c.SourceCommitHash)
		moved, _ := in.judgement(c).Moved()
		due = due || moved
	}
	switch {
	case l.Recorded == nil && l.Live == 0:
		return Missing, NeverDeployed
	case l.Live == strays && !silentProof:
		return Missing, NothingLive
	case in.disputed(c.Type) > 0:
		return Degraded, HostnameTaken
	case due:
		return Outdated, UpgradeDue
	case strays > 0:
		return Unexpected, StrayModules
	case silentProof:
		return Healthy, ProvenByRuntime
	case c.Type == component.Deployer && in.pairIncomplete():
		return Degraded, PairIncomplete
	case in.someSilent(c.Type):
		return Degraded, SomeSilent
	default:
		return Healthy, AsDesired
	}
}

// disputed counts the live modules of a type under whose hostname another boot beats.
func (in Input) disputed(t component.Type) (n int) {
	for _, c := range in.Counts {
		if c.Type == t {
			n += c.Disputed
		}
	}
	return n
}

// disputedNames names them, as far as their rows are known.
func (in Input) disputedNames(l Line) string {
	var names []string
	for _, r := range l.Running {
		if r.RivalSeen != nil {
			names = append(names, r.Hostname)
		}
	}
	if len(names) == 0 {
		return fmt.Sprintf("%d hostname(s)", in.disputed(l.Type))
	}
	return "each of " + strings.Join(names, ", ")
}

// someSilent tells of modules that said active and are not heard any more. Modules that said inactive have stopped as
// they should.
func (in Input) someSilent(t component.Type) bool {
	return slices.ContainsFunc(in.Counts, func(n module.Count) bool {
		return n.Type == t && n.Status == module.Active && n.Live < n.Total
	})
}

func (in Input) pairIncomplete() bool {
	for _, service := range []string{"deployer", "deployer-oa"} {
		if !slices.ContainsFunc(in.Counts, func(n module.Count) bool {
			return n.Type == component.Deployer && n.Service == service && n.Live > 0
		}) {
			return true
		}
	}
	return false
}

// next finds the action, the reason for it, or the reason against the one that would be needed.
func (in Input) next(c component.Component, l Line) (Action, Reason, string) {
	switch l.Verdict {
	case Healthy:
		_, note := in.judgement(c).Moved()
		if l.Reason == ProvenByRuntime {
			return None, l.Reason, with(note, "the desired version was proven by its runtime; this type sends no heartbeats")
		}
		return None, l.Reason, with(note, "the desired version is recorded and runs")
	case Unknown:
		return None, l.Reason, fmt.Sprintf("no gold standard: create a system component ref of type %s", c.Type)
	case Degraded:
		return in.nextOfDegraded(c, l)
	case Missing, Outdated, Unexpected:
	}
	if state, open := in.Open[c.ID]; open {
		return None, UpgradeRunning, fmt.Sprintf("an upgrade is %s: wait for its end", state)
	}
	if l.Verdict == Unexpected {
		_, strays := eligibility.Beside(in.Counts, c.Type, l.Desired.SourceRepoGitRef, c.SourceCommitHash)
		return Stop, l.Reason, eligibility.Verdict{Reason: eligibility.StrayModules, Target: *l.Desired,
			Detail: eligibility.Strays(strays)}.String()
	}
	v := eligibility.Judge(in.judgement(c))
	if a := in.Absence[c.ID]; a.Gone() && (v.Repair || v.Reason == eligibility.NotBack ||
		v.Reason == eligibility.AlreadyLatest) {
		return Deploy, Reason(a.Reason), v.Target.SourceRepoGitRef + " is recorded, and " + a.String()
	}
	switch {
	case v.Reason == eligibility.AlreadyLatest || v.Reason == eligibility.StrayModules:
		return Deploy, l.Reason, "the desired version is recorded and nothing of it is heard: look why, or request an " +
			"upgrade with force"
	case !v.OK():
		return None, Reason(v.Reason), v.String()
	case l.Verdict == Missing:
		return Deploy, l.Reason, fmt.Sprintf("nothing of it is heard: the next check deploys %s", v.Target.SourceRepoGitRef)
	default:
		return Upgrade, l.Reason, with(v.Note, fmt.Sprintf(
			"another version is recorded or runs: the next check upgrades it to %s", v.Target.SourceRepoGitRef))
	}
}

// with adds a note to a sentence.
func with(note, sentence string) string {
	if note == "" {
		return sentence
	}
	return sentence + ". " + note
}

func (in Input) nextOfDegraded(c component.Component, l Line) (Action, Reason, string) {
	if l.Reason == HostnameTaken {
		return None, l.Reason, fmt.Sprintf("two hosts beat under %s, and neither proves a version: give each host a "+
			"HOSTNAME of its own, or stop one of them", in.disputedNames(l))
	}
	if state, open := in.Open[c.ID]; open {
		return None, UpgradeRunning, fmt.Sprintf("an upgrade is %s: wait for its end", state)
	}
	if l.Reason == PairIncomplete {
		return Deploy, l.Reason, "deployer and deployer-oa replace each other and one of them is not heard: start it"
	}
	return None, l.Reason, "some modules that were active are not heard: they come back, or become inactive after a while"
}

// judgement is what an automatic check of a component would be judged on.
func (in Input) judgement(c component.Component) eligibility.Input {
	return eligibility.Input{Component: c, Ref: in.ref(c.Type), Trigger: upgrade.TriggerHourly,
		Quarantined: in.Quarantined[c.Type], Counts: in.Counts, Absence: in.Absence[c.ID],
		Deployers: in.deployers(), Source: in.Source[c.ID], Deployment: in.Deployment[c.ID]}
}

// deployers is the recorded ref of the exchange's own deployers.
func (in Input) deployers() string {
	for _, c := range in.Components {
		if c.Type == component.Deployer {
			return c.SourceRepoGitRef
		}
	}
	return ""
}
