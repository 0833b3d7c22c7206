// Package upgrade holds the life of one Upgrade: its states, the one table that says which state may follow which
// (Apply in table.go), the proof that ends it (proof.go) and the clock that gives it up (clock.go). It is pure: Apply
// returns what has to be done as effects, and manager-api performs them.
//
//	requested ─▶ ineligible | canceled | expired
//	requested ─▶ in_progress ─▶ verifying ─▶ completed
//	                 ▲──────────────┘ deployer pair: phase 2
//	in_progress, verifying ─▶ rolling_back ─▶ rolled_back | rollback_failed
//	                       └▶ failed
//
// Terminal states absorb: no event moves them.
package upgrade

import (
	"strings"
	"time"

	"github.com/openaperture/openaperture/pkg/component"
)

// ID identifies an Upgrade (UUIDv7).
type ID string

// State of an Upgrade.
type State string

// The states (docs/how-an-upgrade-works.md#in-short).
const (
	Requested      State = "requested"
	InProgress     State = "in_progress"
	Verifying      State = "verifying"
	RollingBack    State = "rolling_back"
	Completed      State = "completed"
	Ineligible     State = "ineligible"
	Canceled       State = "canceled"
	Expired        State = "expired"
	Failed         State = "failed"
	RolledBack     State = "rolled_back"
	RollbackFailed State = "rollback_failed"
)

// States lists all states in the order of the drawing.
var States = []State{Requested, InProgress, Verifying, RollingBack, Completed, Ineligible, Canceled, Expired, Failed,
	RolledBack, RollbackFailed}

// Running reports whether the upgrade occupies its exchange's slot.
func (s State) Running() bool { return s == InProgress || s == Verifying || s == RollingBack }

// Open reports whether the upgrade has not ended; a component has at most one open upgrade.
func (s State) Open() bool { return s == Requested || s.Running() }

// Trigger says what made an Upgrade.
type Trigger string

// The three triggers.
const (
	TriggerHourly   Trigger = "hourly"
	TriggerRequest  Trigger = "request"
	TriggerRollback Trigger = "rollback" // an operator's return to a stored release
)

// Triggers lists all triggers.
var Triggers = []Trigger{TriggerHourly, TriggerRequest, TriggerRollback}

// Cause says why an upgrade failed (blame.Judge).
type Cause string

// The three causes.
const (
	CauseVersion     Cause = "version"
	CauseEnvironment Cause = "environment"
	CauseOperator    Cause = "operator"
)

// Step is where the current phase stands: its workflow runs, or its result is being verified.
type Step string

// The steps of a phase.
const (
	StepNone   Step = ""
	StepDeploy Step = "deploy"
	StepVerify Step = "verify"
)

// Steps lists all steps.
var Steps = []Step{StepNone, StepDeploy, StepVerify}

// Upgrade is the part of the record that the table moves.
type Upgrade struct {
	ID      ID
	Type    component.Type
	Proof   component.ProofKind
	Trigger Trigger
	State   State
	Phase   int    // 1-based; while rolling back the phase being undone
	Step    Step   // of the current phase
	Cause   Cause  // why it failed; empty while it goes well
	Reason  string // enumerated, snake_case
	Message string // for people; says what to do
	Touched bool   // whether any instance was changed
	Proven  bool   // whether a proven release to return to exists, for the current phase and those before it
	// ProvenBefore is the same for the phases before the current one alone.
	ProvenBefore bool
	// Left is the phase that stays as a failed deploy has changed it, because it has no release to return to. 0 is none.
	Left int
	From Version
	To   Version
}

// Phases are the parts of this upgrade, in order.
func (u Upgrade) Phases() []Phase { return PhasesOf(u.Type) }

// Phase is one workflow of an upgrade: who executes it, on which repository, and what proves it.
type Phase struct {
	Milestone  Executor // the deploy milestone, which names the executor
	Service    string   // only modules of this service count; empty counts all of the type
	RepoSuffix string   // appended to the deployment repository, before a trailing ".git"
	ProbeQueue Executor // the executor that must answer a probe after the deploy; empty means none
}

// DeploymentRepo is the phase's deployment repository, of a component whose repository is repo: with the phase's suffix
// before a trailing ".git".
func (p Phase) DeploymentRepo(repo string) string {
	if name, ok := strings.CutSuffix(repo, ".git"); ok && p.RepoSuffix != "" {
		return name + p.RepoSuffix + ".git"
	}
	return repo + p.RepoSuffix
}

// Executor names a deploy milestone; the executor that consumes it runs every milestone of the workflow.
type Executor string

// ExecDeployOA is deployer-oa (queue deploy_oa); ExecDeploy is deployer (queue deployer).
const (
	ExecNone     Executor = ""
	ExecDeployOA Executor = "deploy_oa"
	ExecDeploy   Executor = "deploy"
)

// Service is the service that consumes an executor's queue; its modules are of type deployer.
func (e Executor) Service() string {
	if e == ExecDeployOA {
		return "deployer-oa"
	}
	return "deployer"
}

// PhasesOf returns the phases for a type. Type deployer has two: deployer-oa replaces the deployers, then the new
// deployer replaces deployer-oa from the repository with "_oa" appended. Seed types go through deployer-oa, all
// others through deployer (docs/how-an-upgrade-works.md#workflows-and-phases).
func PhasesOf(t component.Type) []Phase {
	switch {
	case t == component.Deployer:
		return []Phase{
			{Milestone: ExecDeployOA, Service: "deployer", ProbeQueue: ExecDeploy},
			{Milestone: ExecDeploy, Service: "deployer-oa", RepoSuffix: "_oa", ProbeQueue: ExecDeployOA},
		}
	case t.Seed():
		return []Phase{{Milestone: ExecDeployOA}}
	default:
		return []Phase{{Milestone: ExecDeploy}}
	}
}

// Clock is the time that is left to a running upgrade. It runs only over time in which manager-api could have
// learned of progress; time in which it stands still is summed up until the upgrade is abandoned.
type Clock struct {
	Left     time.Duration
	Stalled  time.Duration
	TickedAt time.Time
}
