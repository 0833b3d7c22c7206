// Package blame decides whose fault a failure was, whether anything was touched, and what to tell people about it. It
// is pure: it takes what is known of the failure, and neither asks nor remembers.
//
// The executor uses it when a deploy ends, and manager-api when it hears of that, or of nothing. Nobody else decides on
// a cause. The rules:
//
//   - The version is blamed if it did not get healthy, or did not prove itself, where another version does or nothing
//     had run before. A version that was proven here before is not blamed.
//   - The environment is blamed for everything else, and where nobody can tell: the same version is tried again at the
//     next check.
//   - Only a blamed version is quarantined, and not by an operator's rollback.
package blame

import (
	"time"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// Reason is the enumerated code of a failure, as clients see it.
type Reason string

// The reasons that are decided here. Others come with the failure itself: see Facts.Reason.
const (
	DeployUnhealthy   Reason = "deploy_unhealthy"   // the new definition did not get or stay healthy; the old one does
	RestoredUnhealthy Reason = "restored_unhealthy" // neither did the definition that it had replaced
	StillUnhealthy    Reason = "still_unhealthy"    // the definition ran here before already, and does not get healthy
	Unplaced          Reason = "unplaced"           // no machine of the cluster takes the instance
	Disturbed         Reason = "disturbed"          // it did not get healthy, but broker or manager-api were away
	NotSettled        Reason = "not_settled"        // a confirmed deploy was undone, because its order stayed open
	ManagerSilent     Reason = "manager_silent"     // the same, and no manager-api answers since either
	NoProgress        Reason = "no_progress"        // a deadline passed without news
	DatabaseRestarted Reason = "database_restarted" // manager-api did not get ready while its database was restarted
	NotProven         Reason = "not_proven"         // the proof was not complete in time
	HostnameDisputed  Reason = "hostname_disputed"  // two hosts beat under the name of an instance: neither proves
	NotJudged         Reason = "not_judged"         // the proof was complete, and no overseer judged it
	NotHeard          Reason = "not_heard"          // the new manager-api runs and did not hear of its own deploy
	OrderUnclaimed    Reason = "order_unclaimed"    // no executor took the order
	ExecutorLost      Reason = "executor_lost"      // executors took the order and went silent, again and again
	InstancesUnnamed  Reason = "instances_unnamed"  // a deploy was completed, and its executor does not say where
	BuildUnanswered   Reason = "build_unanswered"   // no module of others performed the milestone build
	Abandoned         Reason = "abandoned"          // the exchange could not be reached or judged for too long
	Canceled          Reason = "canceled"           // by an operator
)

// Failure is what has gone wrong.
type Failure uint8

// The failures. The first four are the executor's to judge, Refused is anybody's, the others are manager-api's.
const (
	None      Failure = iota // nothing has gone wrong
	Unhealthy                // an instance did not get healthy, or did not stay so, within its health deadline
	Expired                  // the order's deadline passed before the deploy was complete
	Undone                   // a confirmed deploy of manager-api was taken back, because its order stayed open
	Refused                  // a milestone cannot be performed, or the workflow may not go on; Facts.Reason says why
	Reported                 // an executor has reported a failure, with the cause that it found
	Unnamed                  // an executor has completed a deploy without the names of the instances
	Unproven                 // the deadline passed while the proof was awaited
	Silent                   // the deadline passed while an order was open or claimed
	Lost                     // the claims of an order expired until its attempts were used up
	Forsaken                 // the upgrade's clock stood still, or nothing moved in the workflow, for too long
	Withdrawn                // an operator has canceled the upgrade
)

var failureNames = [...]string{"none", "unhealthy", "expired", "undone", "refused", "reported", "unnamed", "unproven",
	"silent", "lost", "forsaken", "withdrawn"}

// String is the failure for logs and specs.
func (f Failure) String() string {
	if int(f) < len(failureNames) {
		return failureNames[f]
	}
	return "unknown"
}

// Before is what had run in the place of an instance that failed.
type Before uint8

// What can have run there. Same: the definition that failed ran before the deploy already, in this place or in another.
const (
	Nothing Before = iota
	Same
	Another
)

// Facts are what is known of a failure. A field that does not belong to the failure is left zero.
type Facts struct {
	Failure Failure
	Type    component.Type // of the component that was deployed
	Limit   time.Duration  // the deadline that has passed

	// Of Unhealthy and Expired.
	Unit   string // the instance that failed
	Before Before
	Away   string // who was away while the instance was waited for: "the broker", "manager-api"; "" if nobody was
	// Of Unhealthy: why no machine of the cluster takes the instance, in a sentence without a full stop; "" if one does.
	Unplaced string
	// Of Unhealthy and Undone: what ran before is there again and healthy; also true where nothing had run and nothing
	// does.
	Back bool
	// Of Undone.
	ManagerSilent bool // manager-api has not answered since its deploy
	ManagerBack   bool // a manager-api that was silent answers since the deploy was undone

	// Of Refused and Reported: what is told with the failure. Of Undone: the failure of a deploy that was half done.
	Cause  upgrade.Cause // found by the executor; a value that is not known here blames nobody's version
	Reason Reason
	Told   string // one sentence

	// What manager-api knows.
	Upgrade           bool // the workflow belongs to an upgrade
	Rollback          bool // the upgrade is an operator's rollback
	Restoring         bool // the workflow restores a proven release
	Recorded          bool // repository and ref are those of the recorded version, whatever commits they stand for
	ProvenBefore      bool // the version was proven before the upgrade began (release.ProvenBefore)
	DatabaseRestarted bool // the database was started after the order was made
	ProofHolds        bool // our own rows bear the proof out
	Disputed          bool // the proof lacks instances under whose hostnames two hosts beat
	Proof             string
	RunsTarget        bool // the manager-api that judges is of the ref that is deployed
	Unclaimed         bool // an order is open, and of an upgrade was never claimed
	Outside           bool // the order is for modules that others run, which answer it without a claim

	// Of the order.
	Milestone string
	Queue     string
	Exchange  int64
	Attempts  int
	Holder    string // who claimed it last

	Touch Touch
}

// Verdict is a judgement.
type Verdict struct {
	Cause      upgrade.Cause
	Reason     Reason
	Quarantine bool // the version is refused in this exchange from now on
}
