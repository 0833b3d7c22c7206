// Package eligibility judges whether a component may be upgraded now (docs/how-an-upgrade-works.md#eligibility). It is
// pure: one input, one verdict, the first refusal wins. The overseer asks it at an automatic check and, on a fresh
// snapshot, once more before a start.
package eligibility

import (
	"fmt"
	"slices"
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
	NotBack             Reason = "repair_tried" // all instances are gone, and a repair did not bring them back
)

// Reasons lists all reasons in the order in which they are looked at.
var Reasons = []Reason{NoRef, UpgradeOpen, StrategyManual, DeploymentRepoBlank, AutoUpgradeDisabled, RefBlank,
	Quarantined, NoExecutor, NotBack, AlreadyLatest, StrayModules, Eligible}

// Input is everything that a judgement depends on.
type Input struct {
	Component component.Component
	Ref       *component.Ref // the gold standard of its type; nil: there is none
	Trigger   upgrade.Trigger
	// Force overrides auto_upgrade_disabled, quarantined, repair_tried, already_latest and stray_modules, nothing else.
	Force       bool
	Open        bool              // another upgrade of the component is open
	Quarantined []upgrade.Version // versions of the type that are refused here, each with the commits that it binds
	Counts      []module.Count    // what runs in the exchange
	Absence     Absence           // whether all instances of the component are gone
	// Source is what the git host said last about the ref, Deployment about the component's deployment repository; of a
	// deployer about both of its deployment repositories, joined (upgrade.JoinCommits).
	Source, Deployment component.Tip
	// Release is the version of the stored release that a rollback returns to; for Trigger rollback alone.
	Release upgrade.Version
	// Deployers is the recorded ref of the exchange's component of type deployer, "" where none is recorded.
	Deployers string
}

// Verdict is the outcome. Target is set whenever a target is known, also of a refusal: the ref and, as far as they are
// known, the commits for which the refs stand. Of a repair and of AlreadyLatest it is the recorded version.
type Verdict struct {
	Reason Reason
	Target upgrade.Version
	Detail string // what the sentence names: a missing executor, a blank field
	Repair bool   // of Eligible: the recorded version is to be deployed again, because something else runs, or nothing
	Note   string // what else people should know of commits and silence, a sentence without a full stop; "" is nothing
}

// OK reports whether nothing refuses.
func (v Verdict) OK() bool { return v.Reason == Eligible }

// Silence reports whether the verdict rests on modules that were not heard: it holds only where they could have been.
func (v Verdict) Silence() bool {
	return v.Reason == NoExecutor || v.Reason == AlreadyLatest || v.Reason == StrayModules || v.Reason == NotBack
}

// String says for people what was found and what to do about it.
func (v Verdict) String() string {
	if v.Note != "" {
		return v.sentence() + ". " + v.Note
	}
	return v.sentence()
}

func (v Verdict) sentence() string {
	switch v.Reason {
	case Eligible:
		if v.Repair && v.Detail != "" {
			return "eligible: " + v.Detail
		}
		if v.Repair {
			return fmt.Sprintf("eligible: a live module reports another version than %s, which is recorded; the proven "+
				"release is deployed again", v.Target.SourceRepoGitRef)
		}
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
		return fmt.Sprintf("%s failed here and is in quarantine: set another ref, push a fix, clear the quarantine, or "+
			"request the upgrade with force", v.Target.SourceRepoGitRef)
	case NoExecutor:
		return v.Detail + ": start it, or wait until it is heard"
	case AlreadyLatest:
		return fmt.Sprintf("%s is recorded and no live module reports another version: nothing to do",
			v.Target.SourceRepoGitRef)
	case NotBack:
		return fmt.Sprintf("%s is recorded, and %s", v.Target.SourceRepoGitRef, v.Detail)
	case StrayModules:
		return fmt.Sprintf("%s is recorded, and the last upgrade to it left %s of another version alone: stop what the "+
			"deployment repository does not name any more, or request the upgrade with force",
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
	v := Verdict{Target: in.wanted()}
	v.Reason, v.Detail = in.refusal(v.Target)
	if v.Reason == "" {
		in.compare(&v)
	}
	return v
}

// wanted is the gold standard with the commits for which it stands. A ref that is a commit stands for itself.
func (in Input) wanted() upgrade.Version {
	v := upgrade.Version{SourceRepo: in.Ref.SourceRepo, SourceRepoGitRef: in.Ref.SourceRepoGitRef,
		SourceCommitHash: in.Source.Commit, DeploymentCommitHash: in.Deployment.Commit}
	if isCommit(v.SourceRepoGitRef) {
		v.SourceCommitHash = v.SourceRepoGitRef
	}
	return v
}

// Recorded is the recorded version of a component, with its commits as far as they are known.
func Recorded(c component.Component) upgrade.Version {
	return upgrade.Version{SourceRepo: c.SourceRepo, SourceRepoGitRef: c.SourceRepoGitRef,
		SourceCommitHash: c.SourceCommitHash, DeploymentCommitHash: c.DeploymentCommitHash}
}

// refusal is the first refusal that does not depend on what is recorded, "" without one.
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
	case in.quarantined(target) && !in.Force && !in.repairable():
		return Quarantined, ""
	}
	if missing := in.missingExecutor(true); missing != "" {
		return NoExecutor, missing
	}
	if in.Force {
		return Eligible, ""
	}
	return "", ""
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

// quarantined reports whether a version is refused here. A quarantine binds the commits that failed: if a commit on
// either side is known to be another one, the version is tried again. A commit that nobody knows is taken for the one
// that failed.
func (in Input) quarantined(v upgrade.Version) bool {
	return slices.ContainsFunc(in.Quarantined, v.Same)
}

// repairable reports whether the recorded version is not refused itself and must be deployed again. What a new commit
// of the ref did here says nothing against that. Where another ref is wanted, and refused here, the recorded version is
// repaired only if nothing of the component is left.
func (in Input) repairable() bool {
	recorded := Recorded(in.Component)
	if in.quarantined(recorded) {
		return false
	}
	due, _ := Beside(in.Counts, in.Component.Type, recorded.SourceRepoGitRef, recorded.SourceCommitHash)
	return in.Absence.Due() || (due && recorded.AtRef() == in.wanted().AtRef())
}

// compare compares what is recorded, and what runs, with the wanted version.
func (in Input) compare(v *Verdict) {
	recorded, refused := Recorded(in.Component), in.quarantined(v.Target)
	if recorded.AtRef() != v.Target.AtRef() && !refused {
		v.Reason = Eligible
		return
	}
	if !refused {
		moved, note := in.Moved()
		if v.Note = note; moved {
			v.Reason, v.Target = Eligible, in.followed()
			return
		}
	}
	v.Target = recorded
	due, strays := Beside(in.Counts, in.Component.Type, recorded.SourceRepoGitRef, recorded.SourceCommitHash)
	switch {
	case due:
		v.Reason, v.Repair = Eligible, true
	case in.Absence.Due():
		v.Reason, v.Repair, v.Detail = Eligible, true, in.Absence.String()
	case in.Absence.Reason == RepairTried:
		v.Reason, v.Detail = NotBack, in.Absence.String()
	case strays > 0:
		v.Reason, v.Detail = StrayModules, Strays(strays)
	default:
		v.Reason = AlreadyLatest
		v.Note = joined(v.Note, in.Absence.String())
	}
}

// joined joins two notes, of which each may be empty.
func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// Moved reports whether a new commit behind the recorded version's own refs is to be followed, and says in a note what
// people should know of the commits. The recorded ref must be the wanted one.
//
// A new source commit is followed if the ref says so (component.Ref.Follows). A new commit of the deployment repository
// alone is followed if the component says so. Where nobody knows the recorded commit, the difference is only noted:
// else every component would be upgraded at its first check.
func (in Input) Moved() (moved bool, note string) {
	if in.Ref == nil || Recorded(in.Component).AtRef() != in.wanted().AtRef() {
		return false, ""
	}
	movedSource, ofSource := in.movedSource()
	movedDeployment, ofDeployment := in.movedDeployment()
	notes := slices.DeleteFunc([]string{ofSource, ofDeployment}, func(s string) bool { return s == "" })
	if in.Source.Error != "" {
		notes = append(notes, "new commits of the ref are not known: "+in.Source.Error)
	}
	if in.Deployment.Error != "" && in.Component.FollowDeployment {
		notes = append(notes, "new commits of the deployment repository are not known: "+in.Deployment.Error)
	}
	return movedSource || movedDeployment, strings.Join(notes, "; ")
}

func (in Input) movedSource() (bool, string) {
	ref, old, tip := in.Ref.SourceRepoGitRef, in.Component.SourceCommitHash, in.wanted().SourceCommitHash
	followed := in.Ref.Follows(in.Source.Kind)
	switch {
	case upgrade.CommitsDiffer(old, tip) && followed:
		return true, fmt.Sprintf("%s has moved from commit %s to %s", ref, upgrade.ShortCommits(old),
			upgrade.ShortCommits(tip))
	case upgrade.CommitsDiffer(old, tip):
		return false, fmt.Sprintf("%s has moved from commit %s to %s, which is not followed: set follow of the ref to true, "+
			"set another ref, or request the upgrade with force", ref, upgrade.ShortCommits(old), upgrade.ShortCommits(tip))
	case old == "" && tip != "" && followed:
		return false, fmt.Sprintf("%s stands for commit %s, and nobody knows the commit that was deployed: request the "+
			"upgrade with force, then new commits are followed", ref, upgrade.ShortCommits(tip))
	default:
		return false, ""
	}
}

func (in Input) movedDeployment() (bool, string) {
	old, tip := in.Component.DeploymentCommitHash, in.Deployment.Commit
	switch {
	case !in.Component.FollowDeployment:
		return false, ""
	case upgrade.CommitsDiffer(old, tip):
		return true, fmt.Sprintf("the deployment repository has moved from commit %s to %s", upgrade.ShortCommits(old),
			upgrade.ShortCommits(tip))
	case old == "" && tip != "":
		return false, fmt.Sprintf("the deployment repository is at commit %s, and nobody knows the commit that was "+
			"deployed: "+
			"request the upgrade with force, then new commits are followed", upgrade.ShortCommits(tip))
	default:
		return false, ""
	}
}

// followed is the version that the new commits make. With a new source commit the deployment repository's comes along.
// A source commit that is not followed does not come along with the deployment repository's.
func (in Input) followed() upgrade.Version {
	v := in.wanted()
	if moved, _ := in.movedSource(); !moved {
		v.SourceCommitHash = in.Component.SourceCommitHash
	}
	return v
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

// missingExecutor says which executor is not there, "" if none is missing. Each phase needs its own. The deployer's
// pair replaces each other, so both must also be what is recorded of them, where something is.
func (in Input) missingExecutor(atRecorded bool) string {
	for _, phase := range upgrade.PhasesOf(in.Component.Type) {
		service := phase.Milestone.Service()
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

// live reports whether a live module of the service exists, at the ref unless that is empty. At which commit of the ref
// does not matter: of a pair on a branch that has moved on, one can still replace the other.
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
