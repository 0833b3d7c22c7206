package upgrade

import (
	"fmt"

	"github.com/openaperture/openaperture/pkg/component"
)

// EventKind names what can happen to an upgrade.
type EventKind string

// The events of the table.
const (
	EventStart             EventKind = "start"              // the overseer judged it eligible
	EventRefuse            EventKind = "refuse"             // the overseer judged it ineligible
	EventCancel            EventKind = "cancel"             // an operator's wish
	EventExpire            EventKind = "expire"             // nobody started it in time
	EventWorkflowCompleted EventKind = "workflow_completed" // the current phase's workflow ended well
	EventWorkflowFailed    EventKind = "workflow_failed"    // the current phase's workflow failed
	EventProven            EventKind = "proven"             // the current phase's proof is complete
	EventUndone            EventKind = "undone"             // the executor took a confirmed deploy back
	EventDeadline          EventKind = "deadline"           // the clock ran out
	EventAbandon           EventKind = "abandon"            // the clock stood still for too long
)

// Events lists all kinds.
var Events = []EventKind{EventStart, EventRefuse, EventCancel, EventExpire, EventWorkflowCompleted, EventWorkflowFailed,
	EventProven, EventUndone, EventDeadline, EventAbandon}

// Event is something that happened to an upgrade.
type Event struct {
	Kind    EventKind
	Cause   Cause  // of a failure
	Reason  string // enumerated
	Message string
	Touched bool // whether the workflow changed an instance
	// Quarantine says that a failure makes the exchange refuse the target from now on (blame.Judge).
	Quarantine bool
	Term       int64 // of the leader that judged so; 0 of what nobody judges. For the journal alone
}

// EffectKind names what the shell has to do, in the transaction of the move.
type EffectKind string

// The effects.
const (
	EffectStartWorkflow   EffectKind = "start_workflow"   // forward workflow of Phase, with its first order
	EffectRestoreWorkflow EffectKind = "restore_workflow" // workflow that deploys the proven release of Phase
	EffectCloseWorkflow   EffectKind = "close_workflow"   // the current workflow and its orders end here
	EffectProbe           EffectKind = "probe"            // send a probe order for Phase
	EffectRecordVersion   EffectKind = "record_version"   // the target becomes the recorded, proven version
	EffectQuarantine      EffectKind = "quarantine"       // the target is refused here from now on
	EffectSystemEvent     EffectKind = "system_event"
	EffectFreeSlot        EffectKind = "free_slot" // doorbell: the exchange's slot is free
	EffectResetClock      EffectKind = "reset_clock"
)

// Effect is one thing to do.
type Effect struct {
	Kind  EffectKind
	Phase int // of workflows and probes
}

// ErrIllegal is returned for an event that the state does not know. Nothing has changed.
type ErrIllegal struct {
	State State
	Event EventKind
}

func (e ErrIllegal) Error() string {
	return fmt.Sprintf("an upgrade that is %s cannot %s", e.State, e.Event)
}

// Apply is the only way an upgrade's state changes. It returns the moved upgrade and the effects in the order in
// which they are to be performed. A failure that touched something rolls back if a proven release exists.
func (u Upgrade) Apply(e Event) (Upgrade, []Effect, error) {
	switch u.State {
	case Requested:
		return u.fromRequested(e)
	case InProgress:
		return u.fromInProgress(e)
	case Verifying:
		return u.fromVerifying(e)
	case RollingBack:
		return u.fromRollingBack(e)
	case Completed, Ineligible, Canceled, Expired, Failed, RolledBack, RollbackFailed:
	}
	return u, nil, ErrIllegal{u.State, e.Kind}
}

func (u Upgrade) fromRequested(e Event) (Upgrade, []Effect, error) {
	switch e.Kind {
	case EventStart:
		u.State, u.Phase, u.Step = InProgress, 1, StepDeploy
		return u, []Effect{{EffectStartWorkflow, 1}, {Kind: EffectResetClock}}, nil
	case EventRefuse:
		u.State = Ineligible
	case EventCancel:
		u.State = Canceled
	case EventExpire:
		u.State = Expired
	case EventWorkflowCompleted, EventWorkflowFailed, EventProven, EventUndone, EventDeadline, EventAbandon:
		return u, nil, ErrIllegal{u.State, e.Kind}
	}
	u.Reason, u.Message = e.Reason, e.Message
	return u, nil, nil
}

func (u Upgrade) fromInProgress(e Event) (Upgrade, []Effect, error) {
	switch e.Kind {
	case EventWorkflowCompleted:
		u.Touched = u.Touched || e.Touched
		u.State, u.Step = Verifying, StepVerify
		if u.provenByUnits() {
			return u.phaseProven()
		}
		return u, append(u.probe(), Effect{Kind: EffectResetClock}), nil
	case EventWorkflowFailed, EventCancel, EventDeadline:
		return u.fail(e)
	case EventAbandon:
		return u.end(Failed, e)
	case EventStart, EventRefuse, EventExpire, EventProven, EventUndone:
	}
	return u, nil, ErrIllegal{u.State, e.Kind}
}

func (u Upgrade) fromVerifying(e Event) (Upgrade, []Effect, error) {
	switch e.Kind {
	case EventProven:
		return u.phaseProven()
	case EventCancel, EventDeadline, EventUndone:
		return u.fail(e)
	case EventAbandon:
		return u.end(Failed, e)
	case EventStart, EventRefuse, EventExpire, EventWorkflowCompleted, EventWorkflowFailed:
	}
	return u, nil, ErrIllegal{u.State, e.Kind}
}

// fromRollingBack undoes the phases begun, last first; each is deployed and verified before the next. News about a
// deploy counts only while one is under way, and news about what was deployed only afterwards: a proof of the forward
// movement, or its deploy being taken back, may arrive late and must not be taken for the rollback's.
func (u Upgrade) fromRollingBack(e Event) (Upgrade, []Effect, error) {
	deploying := u.Step == StepDeploy
	switch e.Kind {
	case EventWorkflowCompleted:
		if !deploying {
			break
		}
		u.Step = StepVerify
		if u.provenByUnits() {
			return u.phaseRestored()
		}
		return u, append(u.probe(), Effect{Kind: EffectResetClock}), nil
	case EventProven:
		if !deploying {
			return u.phaseRestored()
		}
	case EventWorkflowFailed:
		if deploying {
			return u.rollbackFailed(e)
		}
	case EventUndone:
		if !deploying {
			return u.rollbackFailed(e)
		}
	case EventDeadline, EventAbandon:
		return u.rollbackFailed(e)
	case EventStart, EventRefuse, EventExpire, EventCancel:
	}
	return u, nil, ErrIllegal{u.State, e.Kind}
}

// rollbackFailed ends here and stays: nothing is tried by itself after a failed rollback. What was to blame first
// stays.
func (u Upgrade) rollbackFailed(Event) (Upgrade, []Effect, error) {
	u.State, u.Step = RollbackFailed, StepNone
	return u, []Effect{{Kind: EffectCloseWorkflow}, {Kind: EffectSystemEvent}, {Kind: EffectFreeSlot}}, nil
}

func (u Upgrade) provenByUnits() bool {
	return u.Proof == component.ProofUnits && Proves(u.Proof, u.Type)
}

func (u Upgrade) probe() []Effect {
	if u.Phases()[u.Phase-1].ProbeQueue == ExecNone {
		return nil
	}
	return []Effect{{EffectProbe, u.Phase}}
}

func (u Upgrade) phaseProven() (Upgrade, []Effect, error) {
	if u.Phase < len(u.Phases()) {
		u.State, u.Step = InProgress, StepDeploy
		u.Phase++
		return u, []Effect{{EffectStartWorkflow, u.Phase}, {Kind: EffectResetClock}}, nil
	}
	u.State, u.Step = Completed, StepNone
	return u, []Effect{{Kind: EffectRecordVersion}, {Kind: EffectSystemEvent}, {Kind: EffectFreeSlot}}, nil
}

func (u Upgrade) phaseRestored() (Upgrade, []Effect, error) {
	if u.Phase > 1 {
		u.Phase--
		u.Step = StepDeploy
		return u, []Effect{{EffectRestoreWorkflow, u.Phase}, {Kind: EffectResetClock}}, nil
	}
	u.State, u.Step = RolledBack, StepNone
	return u, []Effect{{Kind: EffectSystemEvent}, {Kind: EffectFreeSlot}}, nil
}

// fail ends the forward movement: back to the proven release if anything was touched, else failed.
func (u Upgrade) fail(e Event) (Upgrade, []Effect, error) {
	u.Touched = u.Touched || e.Touched || u.Phase > 1
	if !u.Proven && u.ProvenBefore && u.Phase > 1 && u.Step == StepDeploy {
		if e.Touched {
			u.Left = u.Phase
		}
		u.Phase, u.Proven = u.Phase-1, true // those before it have to go back, or no pair would fit what is recorded
	}
	if !u.Touched || !u.Proven {
		return u.end(Failed, e)
	}
	u.blame(e)
	u.State, u.Step = RollingBack, StepDeploy
	return u, append(e.quarantine(), Effect{Kind: EffectCloseWorkflow}, Effect{Kind: EffectSystemEvent},
		Effect{EffectRestoreWorkflow, u.Phase}, Effect{Kind: EffectResetClock}), nil
}

func (u Upgrade) end(s State, e Event) (Upgrade, []Effect, error) {
	u.blame(e)
	u.State, u.Step = s, StepNone
	return u, append(e.quarantine(), Effect{Kind: EffectCloseWorkflow}, Effect{Kind: EffectSystemEvent},
		Effect{Kind: EffectFreeSlot}), nil
}

func (u *Upgrade) blame(e Event) { u.Cause, u.Reason, u.Message = e.Cause, e.Reason, e.Message }

func (e Event) quarantine() []Effect {
	if !e.Quarantine {
		return nil
	}
	return []Effect{{Kind: EffectQuarantine}}
}
