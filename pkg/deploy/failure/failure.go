// Package failure says why a milestone failed: the enumerated reason, and the cause that decides whether a version is
// to blame (docs/how-an-upgrade-works.md#failure).
package failure

import (
	"errors"
	"fmt"

	messages "github.com/openaperture/openaperture/proto-messages"
)

// Reason is an enumerated code of a failed milestone.
type Reason string

// The reasons that executors report.
const (
	DeployUnhealthy    Reason = "deploy_unhealthy"    // the new definition did not get or stay healthy; the old one does
	RestoredUnhealthy  Reason = "restored_unhealthy"  // neither did the definition that it had replaced
	StillUnhealthy     Reason = "still_unhealthy"     // the definition ran here before already, and does not get healthy
	Disturbed          Reason = "disturbed"           // it did not get healthy, but broker or manager-api were away meanwhile
	NotSettled         Reason = "not_settled"         // a confirmed deploy was undone, because its order stayed open
	ManagerSilent      Reason = "manager_silent"      // the same, and no manager-api answers since either: nobody can tell why
	GitUnreachable     Reason = "git_unreachable"     // the host or repository does not answer
	GitRefUnknown      Reason = "git_ref_unknown"     // the repository has no such ref or commit
	GitCommitGone      Reason = "git_commit_gone"     // the repository has the planned commit no more
	GitRefused         Reason = "git_refused"         // an address, ref or repository that we do not accept
	TemplateInvalid    Reason = "template_invalid"    // a template that cannot be rendered safely
	UnitInvalid        Reason = "unit_invalid"        // a unit file that must not be sent to a runtime
	RepoInvalid        Reason = "repo_invalid"        // a deployment repository that lacks or misstates something
	NoUnits            Reason = "no_units"            // nothing to deploy
	NoMachines         Reason = "no_machines"         // a cluster without machines and without instance_cnt
	Unplaced           Reason = "unplaced"            // no machine of the cluster takes an instance
	RuntimeUnreachable Reason = "runtime_unreachable" // the cluster's endpoint does not answer
	RuntimeRefused     Reason = "runtime_refused"     // the cluster's endpoint does not accept what was sent
	TokensBehind       Reason = "tokens_behind"       // the cluster has seen higher tokens than manager-api gives
	NoProgress         Reason = "no_progress"         // the order's deadline passed
	MilestoneUnknown   Reason = "milestone_unknown"   // not a milestone of this executor
	ExecutorIsTarget   Reason = "executor_is_target"  // an executor never replaces itself
)

// Cause is what the reason means for the version that was deployed.
func (r Reason) Cause() messages.Cause {
	switch r {
	case DeployUnhealthy, NotSettled:
		return messages.CauseVersion
	default:
		return messages.CauseEnvironment
	}
}

// Error is a failure with its reason. Message is fit for the API: it names what is wrong and where, never a secret.
type Error struct {
	Reason  Reason
	Message string
	Err     error
}

// New makes an Error from a format; a %w in it becomes the wrapped error.
func New(reason Reason, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Reason: reason, Message: err.Error(), Err: errors.Unwrap(err)}
}

// Error is the message after its reason.
func (e *Error) Error() string { return string(e.Reason) + ": " + e.Message }

// Unwrap is the error behind it, or nil.
func (e *Error) Unwrap() error { return e.Err }

// Of finds the Error in err's chain; ok is false for an error that has no reason.
func Of(err error) (e *Error, ok bool) {
	ok = errors.As(err, &e)
	return e, ok
}
