package blame

import (
	"fmt"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// Advice is what people are told about a failure: one sentence that says what happened and what to do. It is derived
// from the judgement of the same facts.
func Advice(r Reason, c upgrade.Cause, f Facts) string {
	switch f.Failure {
	case Unhealthy, Expired:
		return f.instanceSentence(r)
	case Undone:
		return f.undoneSentence(r)
	case Refused:
		return f.Told
	case Reported:
		return f.finally(f.Told, r, c)
	case Unnamed:
		return "the result of the deploy names no instance, although its executor can: look at the executor's log, then " +
			"try again"
	case Unproven:
		return f.finally(f.proofSentence(r), r, c)
	case Silent, Lost, Forsaken, Withdrawn:
		return f.silenceSentence(r)
	default:
		return ""
	}
}

// Outcome is what people are told of an upgrade that e has moved to u: what failed first, and what followed from that.
func Outcome(u upgrade.Upgrade, e upgrade.Event) string {
	switch {
	case u.State == upgrade.RollbackFailed && e.Message != "":
		return u.Message + "; the rollback failed: " + e.Message
	case u.Left > 0:
		return fmt.Sprintf("%s; what phase %d has changed stays, as it has no release to return to", u.Message, u.Left)
	default:
		return u.Message
	}
}

// instanceSentence is the executor's about an instance.
func (f Facts) instanceSentence(r Reason) string {
	missed := fmt.Sprintf("%s did not get healthy within %s", f.Unit, f.Limit)
	switch {
	case r == NoProgress:
		return fmt.Sprintf("the order's deadline passed at %s: look whether its host is overloaded", f.Unit)
	case r == Unplaced:
		return f.Unplaced + ": change its demands in the deployment repository, or the machines; the version is tried again"
	case r == Disturbed:
		return missed + ", but " + f.Away + " was away meanwhile: see that it is back; the version is tried again"
	case r == StillUnhealthy:
		return missed + ", and this definition ran here before: look at its log, host, broker and database"
	case r == RestoredUnhealthy:
		return missed + ", nor did what ran before: look at its host, broker and database"
	case f.Before == Nothing:
		return missed + " and nothing had run there before: look at its log"
	default:
		return missed + " and what ran before is back: look at its log"
	}
}

// undoneSentence is the executor's about a deploy of manager-api that it took back.
func (f Facts) undoneSentence(r Reason) string {
	switch {
	case r == RestoredUnhealthy:
		return "manager-api did not settle the order of its own deploy, and what was put back does not get healthy either: " +
			"look at its host, broker and database"
	case r == ManagerSilent:
		return fmt.Sprintf("manager-api did not answer for %s after its deploy, nor since that was undone: "+
			"look at its log, host and database", f.Limit)
	case r != NotSettled:
		return f.Told + "; what ran before is back"
	case f.ManagerSilent:
		return fmt.Sprintf("manager-api did not answer for %s after its deploy, and what ran before is back and does: "+
			"look at its log", f.Limit)
	default:
		return fmt.Sprintf("manager-api answered, but did not settle the order of its own deploy within %s, and it was "+
			"undone: look at its log", f.Limit)
	}
}

// proofSentence is manager-api's about a proof that did not come.
func (f Facts) proofSentence(r Reason) string {
	switch {
	case r == NotProven:
		return f.Proof + ": look at their logs"
	case r == HostnameDisputed:
		return f.Proof
	case f.Type == component.Overseer:
		return "the new overseer leads and judges nothing: look at its log"
	default:
		return fmt.Sprintf("nobody judged the proof (%s): look at the overseer's log", f.Proof)
	}
}

// silenceSentence is manager-api's where it has heard nothing.
func (f Facts) silenceSentence(r Reason) string {
	switch {
	case r == NotHeard && f.Failure == Lost:
		return fmt.Sprintf("the new manager-api runs and has heard nothing of its deploy, which was claimed %d times: look "+
			"at its log, then set another ref", f.Attempts)
	case r == NotHeard:
		return fmt.Sprintf("the new manager-api runs and has heard nothing of its deploy for %s: look at its log, then set "+
			"another ref", f.Limit)
	case r == OrderUnclaimed && f.Upgrade:
		return fmt.Sprintf("no executor claimed the order within %s: start one, or look at its log", f.Limit)
	case r == OrderUnclaimed:
		return fmt.Sprintf("no executor claimed milestone %s until its deadline: start one for the queue %s of exchange %d, "+
			"or look at its log", f.Milestone, f.Queue, f.Exchange)
	case r == ExecutorLost:
		return fmt.Sprintf("milestone %s was claimed %d times and given up in silence, the last time by %s: look at its "+
			"log, and whether it reaches manager-api", f.Milestone, f.Attempts, f.Holder)
	case r == BuildUnanswered:
		return fmt.Sprintf("no result of the milestone %s came until its deadline: start a module for the queue %s of "+
			"exchange %d, or look at its log", f.Milestone, f.Queue, f.Exchange)
	case r == Abandoned && f.Upgrade:
		return fmt.Sprintf("the exchange could not be reached or judged for %s: look at its broker and overseer, and at "+
			"what runs there", f.Limit)
	case r == Abandoned:
		return fmt.Sprintf("nothing has moved for %s: look at the broker of the workflow's exchange, and start an "+
			"executor there", f.Limit)
	case r == Canceled:
		return "canceled by an operator"
	default:
		return fmt.Sprintf("the executor reported no progress for %s: look at its log", f.Limit)
	}
}

// finally says in manager-api's words what the final cause means, behind what was told.
func (f Facts) finally(told string, r Reason, c upgrade.Cause) string {
	switch {
	case c == upgrade.CauseVersion && f.Upgrade:
		return told + ", then set another ref"
	case r == DatabaseRestarted:
		return told + " (the database was restarted meanwhile, so the version is not blamed and is tried again)"
	case c == upgrade.CauseEnvironment && f.repeated() && f.blamesVersion():
		return told + " (this version was proven here before, so it is not blamed: look at what else has changed, its " +
			"hosts or its deployment repository)"
	default:
		return told
	}
}

// blamesVersion tells whether the version would have been blamed if it had not been proven before.
func (f Facts) blamesVersion() bool {
	if f.Failure == Reported {
		return f.Cause == upgrade.CauseVersion
	}
	return !f.ProofHolds && !f.Disputed
}
