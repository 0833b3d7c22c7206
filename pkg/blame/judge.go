package blame

import (
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// Judge says whose fault a failure was. It is the one place that decides on a cause.
func Judge(f Facts) Verdict {
	v := judge(f)
	v.Quarantine = v.Cause == upgrade.CauseVersion && !f.Rollback
	return v
}

func judge(f Facts) Verdict {
	switch f.Failure {
	case Unhealthy:
		return f.unhealthy()
	case Undone:
		return f.undone()
	case Refused:
		return environment(f.Reason)
	case Reported:
		return f.reported()
	case Unnamed:
		return environment(InstancesUnnamed)
	case Unproven:
		return f.unproven()
	case Silent:
		return f.silent()
	case Expired:
		return environment(NoProgress)
	case Lost:
		return f.lost()
	case Forsaken:
		return environment(Abandoned)
	case Withdrawn:
		return Verdict{Cause: upgrade.CauseOperator, Reason: Canceled}
	default:
		return Verdict{}
	}
}

func environment(r Reason) Verdict { return Verdict{Cause: upgrade.CauseEnvironment, Reason: r} }

func version(r Reason) Verdict { return Verdict{Cause: upgrade.CauseVersion, Reason: r} }

// unhealthy compares with what had run in the place of the instance. What no machine takes has not run. Without a
// broker or manager-api no service of OpenAperture gets ready, whatever its version. A definition that ran here before
// proves nothing against its version. Of a first install nothing is known, and the version is blamed: with the
// environment it would be tried again at every check.
func (f Facts) unhealthy() Verdict {
	switch {
	case f.Unplaced != "":
		return environment(Unplaced)
	case !f.Back:
		return environment(RestoredUnhealthy)
	case f.Away != "":
		return environment(Disturbed)
	case f.Before == Same:
		return environment(StillUnhealthy)
	default:
		return version(DeployUnhealthy)
	}
}

// undone blames the version of a manager-api that did not settle its own deploy. Where no manager-api answers even
// after the undo, nobody can tell. Why a deploy failed half way is known.
func (f Facts) undone() Verdict {
	switch {
	case !f.Back:
		return environment(RestoredUnhealthy)
	case f.Reason != "":
		return Verdict{Cause: known(f.Cause), Reason: f.Reason}
	case f.ManagerSilent && !f.ManagerBack:
		return environment(ManagerSilent)
	default:
		return version(NotSettled)
	}
}

// reported takes the executor's word, unless manager-api knows better.
func (f Facts) reported() Verdict {
	cause := known(f.Cause)
	switch {
	case cause != upgrade.CauseVersion:
		return Verdict{Cause: cause, Reason: f.Reason}
	case f.restarted():
		return environment(DatabaseRestarted)
	case f.repeated():
		return environment(f.Reason)
	default:
		return version(f.Reason)
	}
}

// unproven blames the version that did not prove itself. What our own rows bear out is not held against the version:
// the overseer has not judged. That is the version's fault only where the overseer itself was upgraded.
func (f Facts) unproven() Verdict {
	reason := NotProven
	switch {
	case f.Disputed:
		return environment(HostnameDisputed)
	case f.ProofHolds && f.Type != component.Overseer:
		return environment(NotJudged)
	case f.ProofHolds:
		reason = NotJudged
	}
	if f.repeated() {
		return environment(reason)
	}
	return version(reason)
}

// unheard tells whether the manager-api that judges is the new one, which the executor has thus started, and has not
// heard of that. Old and new are told apart by their refs: a manager-api knows no other version of its own. So where
// the recorded ref is deployed anew, as at another commit of a branch, nobody can tell which of the two judges.
func (f Facts) unheard() bool {
	return f.Type == component.Manager && (f.Touch.Claimed || f.Touch.Deploys) && !f.Restoring && !f.Recorded &&
		f.RunsTarget
}

// lost blames a new manager-api that hears of no result: its executor lives, as it claims the order again and again.
func (f Facts) lost() Verdict {
	if f.unheard() {
		return version(NotHeard)
	}
	return environment(ExecutorLost)
}

// silent blames a new manager-api that hears of nothing.
func (f Facts) silent() Verdict {
	switch {
	case f.unheard():
		return version(NotHeard)
	case f.Outside:
		return environment(BuildUnanswered)
	case f.Unclaimed:
		return environment(OrderUnclaimed)
	default:
		return environment(NoProgress)
	}
}

// restarted tells whether manager-api could not get ready because its database was restarted.
func (f Facts) restarted() bool { return f.DatabaseRestarted && f.Type == component.Manager }

// repeated tells whether the upgrade deploys again what was proven before: that it fails now says nothing against the
// version. The exception is an overseer: nobody would judge the next try either.
func (f Facts) repeated() bool {
	return f.Upgrade && f.Recorded && f.ProvenBefore && f.Type != component.Overseer
}

// known takes a cause that is not known here, such as one of a newer release, for the environment.
func known(c upgrade.Cause) upgrade.Cause {
	switch c {
	case upgrade.CauseVersion, upgrade.CauseOperator:
		return c
	default:
		return upgrade.CauseEnvironment
	}
}
