// Package eligibility judges whether a component may be upgraded now (docs/how-an-upgrade-works.md#eligibility). It is
// pure: one input, one verdict, the first refusal wins. The overseer asks it at an automatic check and, on a fresh
// snapshot, once more before a start.
package eligibility

import (
	"fmt"
	"strings"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/module"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// Reason is the enumerated outcome of a judgement, as the API shows it.
type Reason string

// The reasons in the order in which they are looked at; Eligible refuses nothing.
const (
	Eligible            Reason = "eligible"
	NoRef               Reason = "no_ref"
	UpgradeOpen         Reason = "upgrade_open"
	StrategyManual      Reason = "strategy_manual"
	DeploymentRepoBlank Reason = "deployment_repo_blank"
	AutoUpgradeDisabled Reason = "auto_upgrade_disabled"
	RefBlank            Reason = "ref_blank"
	Quarantined         Reason = "quarantined"
	NoExecutor          Reason = "no_executor"
	AlreadyLatest       Reason = "already_latest"
	StrayModules        Reason = "stray_modules"
)

// Reasons lists all reasons in the order in which they are looked at.
var Reasons = []Reason{NoRef, UpgradeOpen, StrategyManual, DeploymentRepoBlank, AutoUpgradeDisabled, RefBlank, Quarantined, NoExecutor, AlreadyLatest, StrayModules, Eligible}

// Input is everything that a judgement depends on.
type Input struct {
	Component   component.Component
	Ref         *component.Ref // the gold standard of its type; nil: there is none
	Trigger     upgrade.Trigger
	Force       bool              // overrides auto_upgrade_disabled, quarantined, already_latest and stray_modules, nothing else
	Open        bool              // another upgrade of the component is open
	Quarantined []upgrade.Version // versions of the type that are refused in this exchange
	Counts      []module.Count    // what runs in the exchange
	// Release is the version of the stored release that a rollback returns to; for Trigger rollback alone.
	Release upgrade.Version
	// Deployers is the recorded ref of the exchange's component of type deployer, "" where none is recorded.
	Deployers string
}

// Verdict is the outcome. Target is set whenever a target is known, also of a refusal.
type Verdict struct {
	Reason Reason
	Target upgrade.Version
	Detail string // what the sentence names: a missing executor, a blank field
}

// OK reports whether nothing refuses.
func (v Verdict) OK() bool { return v.Reason == Eligible }

// Silence reports whether the verdict rests on modules that were not heard: it holds only where they could have been.
func (v Verdict) Silence() bool {
	return v.Reason == NoExecutor || v.Reason == AlreadyLatest || v.Reason == StrayModules
}

// String says for people what was found and what to do about it.
func (v Verdict) String() string {
	switch v.Reason {
	case Eligible:
		return fmt.Sprintf("eligible: to be upgraded to %s", v.Target.SourceRepoGitRef)
	case NoRef:
		return fmt.Sprintf("no gold standard: create a system component ref of type %s", v.Detail)
	case UpgradeOpen:
		return "another upgrade of this component is open: wait until it has ended, or cancel it"
	case StrategyManual:
		return "the upgrade strategy is manual: request the upgrade, or set upgrade_strategy to hourly"
	case DeploymentRepoBlank:
		return fmt.Sprintf("the component's %s is blank: set it", v.Detail)
	case AutoUpgradeDisabled:
		return "auto_upgrade_enabled of the ref is false: set it to true, or request the upgrade with force"
	case RefBlank:
		return fmt.Sprintf("the ref's %s is blank: set it", v.Detail)
	case Quarantined:
		return fmt.Sprintf("%s failed here and is in quarantine: set another ref, clear the quarantine, or request the upgrade with force", v.Target.SourceRepoGitRef)
	case NoExecutor:
		return v.Detail + ": start it, or wait until it is heard"
	case AlreadyLatest:
		return fmt.Sprintf("%s is recorded and no live module reports another version: nothing to do", v.Target.SourceRepoGitRef)
	case StrayModules:
		return fmt.Sprintf("%s is recorded, and the last upgrade to it left %s of another version alone: stop what the deployment repository does not name any more, or request the upgrade with force",
			v.Target.SourceRepoGitRef, v.Detail)
	default:
		return string(v.Reason)
	}
}

// Judge returns the first refusal, or Eligible with the target. A rollback returns to a stored release: what the gold
// standard says does not matter to it, only whether somebody can execute it.
func Judge(in Input) Verdict {
	if in.Trigger == upgrade.TriggerRollback {
		return in.judgeRollback()
	}
	if in.Ref == nil {
		return Verdict{Reason: NoRef, Detail: string(in.Component.Type)}
	}
	v := Verdict{Target: upgrade.Version{SourceRepo: in.Ref.SourceRepo, SourceRepoGitRef: in.Ref.SourceRepoGitRef}}
	v.Reason, v.Detail = in.refusal(v.Target)
	return v
}

func (in Input) refusal(target upgrade.Version) (Reason, string) {
	c := in.Component
	switch {
	case in.Open:
		return UpgradeOpen, ""
	case in.Trigger == upgrade.TriggerHourly && c.Strategy != component.Hourly:
		return StrategyManual, ""
	case component.Blank(c.DeploymentRepo):
		return DeploymentRepoBlank, "deployment_repo"
	case component.Blank(c.DeploymentRepoGitRef):
		return DeploymentRepoBlank, "deployment_repo_git_ref"
	case !in.Ref.AutoUpgradeEnabled && !in.Force:
		return AutoUpgradeDisabled, ""
	case component.Blank(target.SourceRepo):
		return RefBlank, "source_repo"
	case component.Blank(target.SourceRepoGitRef):
		return RefBlank, "source_repo_git_ref"
	case in.quarantined(target) && !in.Force:
		return Quarantined, ""
	}
	if missing := in.missingExecutor(true); missing != "" {
		return NoExecutor, missing
	}
	if in.Force {
		return Eligible, ""
	}
	return in.latest(target)
}

func (in Input) judgeRollback() Verdict {
	v := Verdict{Reason: Eligible, Target: in.Release}
	if in.Open {
		v.Reason = UpgradeOpen
		return v
	}
	// Whoever returns does so because something is wrong: the executors have to live, at whatever version.
	if missing := in.missingExecutor(false); missing != "" {
		v.Reason, v.Detail = NoExecutor, missing
	}
	return v
}

func (in Input) quarantined(target upgrade.Version) bool {
	for _, q := range in.Quarantined {
		if q == target {
			return true
		}
	}
	return false
}

// latest compares what is recorded, and what runs, with the target.
func (in Input) latest(target upgrade.Version) (Reason, string) {
	recorded := upgrade.Version{SourceRepo: in.Component.SourceRepo, SourceRepoGitRef: in.Component.SourceRepoGitRef}
	due, strays := Beside(in.Counts, in.Component.Type, target.SourceRepoGitRef, in.Component.SourceCommitHash)
	switch {
	case recorded != target || due:
		return Eligible, ""
	case strays > 0:
		return StrayModules, Strays(strays)
	default:
		return AlreadyLatest, ""
	}
}

// Beside looks at the live modules of a type that report another version than the recorded one. One that came, or came back,
// after the last upgrade to that makes a repair due. One that has stayed as it is since before is a stray: that upgrade did not
// replace it, so the next one would not either, and so on at every check.
func Beside(counts []module.Count, t component.Type, ref, commit string) (due bool, strays int) {
	for _, n := range counts {
		if n.Type == t && n.Live > 0 && ReportsOther(n.SourceRepoGitRef, ref, commit) {
			due = due || n.Live > n.Stayed
			strays += n.Stayed
		}
	}
	return due, strays
}

// Strays names a number of strays in the sentence of StrayModules.
func Strays(n int) string {
	if n == 1 {
		return "1 live module"
	}
	return fmt.Sprintf("%d live modules", n)
}

// ReportsOther says whether a module that reports this version runs another one than ref (or commit, where that is
// known). Whole strings are compared. A module that reports no version does not; nor does one that reports a full
// commit hash while the ref is a name whose commit nobody knows here: nothing can be concluded from that.
func ReportsOther(reported, ref, commit string) bool {
	if reported == "" || reported == ref || reported == commit {
		return false
	}
	return commit != "" || !isCommit(reported) || isCommit(ref)
}

func isCommit(s string) bool {
	return len(s) == 40 && strings.Trim(s, "0123456789abcdef") == ""
}

// serviceOf names the service that consumes an executor's queue; its modules are of type deployer.
func serviceOf(e upgrade.Executor) string {
	if e == upgrade.ExecDeployOA {
		return "deployer-oa"
	}
	return "deployer"
}

// missingExecutor says which executor is not there, "" if none is missing. Each phase needs its own. The deployer's
// pair replaces each other, so both must also be what is recorded of them, where something is.
func (in Input) missingExecutor(atRecorded bool) string {
	for _, phase := range upgrade.PhasesOf(in.Component.Type) {
		service := serviceOf(phase.Milestone)
		ref := ""
		if atRecorded && in.Component.Type == component.Deployer {
			ref = in.Deployers
		}
		if !in.live(service, "") {
			return "no live " + service + " is here to execute it"
		}
		if ref != "" && !in.live(service, ref) {
			return fmt.Sprintf("no live %s reports its recorded version %s", service, ref)
		}
	}
	return ""
}

// live reports whether a live module of the service exists, at the ref unless that is empty. At which commit of the ref does
// not matter: of a pair on a branch that has moved on, one can still replace the other.
func (in Input) live(service, ref string) bool {
	for _, n := range in.Counts {
		if n.Type != component.Deployer || n.Service != service || n.Live == 0 {
			continue
		}
		if ref == "" || (n.SourceRepoGitRef != "" && !ReportsOther(n.SourceRepoGitRef, ref, "")) {
			return true
		}
	}
	return false
}
