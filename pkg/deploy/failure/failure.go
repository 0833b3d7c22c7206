// Package failure says why a milestone could not be performed, by an enumerated reason. Whose fault that is, pkg/blame
// decides (docs/how-an-upgrade-works.md#failure).
package failure

import (
	"errors"
	"fmt"

	"github.com/openaperture/openaperture/pkg/blame"
)

// Reason is an enumerated code of a failed milestone.
type Reason = blame.Reason

// The reasons for which an executor does not perform a milestone. The reasons of a deploy that failed are in pkg/blame.
const (
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
	NoProgress                = blame.NoProgress      // the order's deadline passed
	MilestoneUnknown   Reason = "milestone_unknown"   // not a milestone of this executor
	ExecutorIsTarget   Reason = "executor_is_target"  // an executor never replaces itself
	Panicked           Reason = "panicked"            // the executor has a fault of its own
)

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
