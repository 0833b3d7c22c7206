package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/blame"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/postgres"
	"github.com/openaperture/openaperture/pkg/upgrade"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// Codes of the refusals of a move.
const (
	CodeIllegalMove = "illegal_move" // the state does not know the event
	CodeSlotTaken   = "slot_taken"   // another upgrade of the exchange runs
	CodeNoRelease   = "no_release"   // there is no stored release to return to
)

// moveUpgrade is the one place where an upgrade changes its state: the table decides, and everything that follows from
// the decision happens in this transaction. The caller has locked the row. Conflict: the state does not know the event,
// or the exchange's slot is taken; the transaction is then lost.
func (s *Engine) moveUpgrade(ctx context.Context, tx *sqlx.Tx, row *upgradeRow, e upgrade.Event, inputs any) error {
	before, err := row.domain(ctx, tx)
	if err != nil {
		return err
	}
	after, effects, err := before.Apply(e)
	var illegal upgrade.ErrIllegal
	if errors.As(err, &illegal) {
		return fault.New(fault.Conflict, "%s", illegal.Error()).WithCode(CodeIllegalMove)
	}
	after.Message = blame.Outcome(after, e)
	current := position{row.ID, row.Phase, row.restoring()}
	row.take(after)
	if err := row.save(ctx, tx); err != nil {
		if postgres.Constraint(err) == "upgrades_one_running" {
			return fault.Wrap(fault.Conflict, err, "another upgrade of this exchange runs").WithCode(CodeSlotTaken)
		}
		return err
	}
	if err := journalMove(ctx, tx, row, before, e, inputs); err != nil { // the cause comes before its effects
		return err
	}
	failed, err := s.performEffects(ctx, tx, row, current, effects)
	if err != nil {
		return err
	}
	if err := s.showOnComponent(ctx, tx, row); err != nil {
		return err
	}
	if row.Step == upgrade.StepVerify || !row.State.Open() { // a judgement is wanted, or the slot is free
		if err := db.RingOverseer(ctx, tx, row.ExchangeID, row.ComponentID, string(row.ID)); err != nil {
			return err
		}
	}
	if failed == nil {
		return nil
	}
	// A workflow that could not even begin has failed.
	return s.moveUpgrade(ctx, tx, row, failed.event(upgrade.EventWorkflowFailed), nil)
}

// performEffects does what the table demands, in its order. A failure is that of the workflow which an effect was to
// begin. EffectFreeSlot needs nothing here: every end of an upgrade rings the overseer.
func (s *Engine) performEffects(ctx context.Context, tx *sqlx.Tx, row *upgradeRow, current position,
	effects []upgrade.Effect) (failed *failure, err error) {
	for _, effect := range effects {
		switch effect.Kind {
		case upgrade.EffectStartWorkflow:
			failed, err = s.beginPhase(ctx, tx, row, effect.Phase)
		case upgrade.EffectRestoreWorkflow:
			failed, err = s.restorePhase(ctx, tx, row, effect.Phase)
		case upgrade.EffectCloseWorkflow:
			err = closeWorkflow(ctx, tx, current, failure{Message: row.VerdictMessage, Touched: row.Touched,
				Verdict: blame.Verdict{Cause: upgrade.Cause(row.Cause.String), Reason: blame.Reason(row.VerdictCode)}})
		case upgrade.EffectProbe:
			err = s.orderProbe(ctx, tx, row, effect.Phase)
		case upgrade.EffectRecordVersion:
			err = recordVersion(ctx, tx, row)
		case upgrade.EffectQuarantine:
			err = s.quarantineTarget(ctx, tx, row)
		case upgrade.EffectSystemEvent:
			err = raiseUpgrade(ctx, tx, row)
		case upgrade.EffectResetClock:
			err = row.saveClock(ctx, tx, upgrade.Clock{Left: s.times.ProgressDeadline})
		case upgrade.EffectFreeSlot:
		}
		if err != nil {
			return nil, fmt.Errorf("%s of upgrade %s: %w", effect.Kind, row.ID, err)
		}
	}
	return failed, nil
}

// raiseUpgrade tells people how an upgrade ended, or that it has failed and is being rolled back.
func raiseUpgrade(ctx context.Context, tx *sqlx.Tx, row *upgradeRow) error {
	kind, severity := "upgrade_failed", db.SeverityError
	from, to := row.From.Beside(row.To), row.To.Beside(row.From)
	message := fmt.Sprintf("the upgrade of %s to %s has failed: %s", row.ComponentType, to, row.VerdictMessage)
	switch row.State {
	case upgrade.Completed:
		kind, severity = "upgrade_completed", db.SeverityInfo
		message = fmt.Sprintf("%s has been upgraded from %s to %s", row.ComponentType, from, to)
	case upgrade.RollingBack:
		message = fmt.Sprintf("the upgrade of %s to %s has failed and is being rolled back: %s", row.ComponentType, to,
			row.VerdictMessage)
	case upgrade.RolledBack:
		kind, severity = "upgrade_rolled_back", db.SeverityWarning
		message = fmt.Sprintf("%s has been rolled back from %s: %s", row.ComponentType, to, row.VerdictMessage)
	case upgrade.RollbackFailed:
		kind = "upgrade_rollback_failed"
		message = fmt.Sprintf("%s could not be rolled back from %s: %s", row.ComponentType, to, row.VerdictMessage)
	case upgrade.Requested, upgrade.InProgress, upgrade.Verifying, upgrade.Ineligible, upgrade.Canceled, upgrade.Expired,
		upgrade.Failed:
	}
	return db.RaiseEvent(ctx, tx, &row.ExchangeID, kind, severity, message, map[string]any{
		"upgrade_id": row.ID, "component_id": row.ComponentID, "component_type": row.ComponentType,
		"messaging_exchange_id": row.ExchangeID,
		"state":                 row.State, "cause": row.Cause.String, "reason": row.VerdictCode, "from": row.From,
		"to": row.To})
}

// Values of system_components.status; the predecessor's four.
const (
	statusInProgress = "upgrade_in_progress"
	statusCompleted  = "upgrade_completed"
	statusFailed     = "upgrade_failed"
	statusIneligible = "ineligible_for_upgrade"
)

// showOnComponent keeps the predecessor's status and upgrade_status true. It never touches the recorded version.
func (s *Engine) showOnComponent(ctx context.Context, tx *sqlx.Tx, row *upgradeRow) error {
	status := statusFailed
	switch row.State {
	case upgrade.Requested:
		return nil
	case upgrade.InProgress, upgrade.Verifying, upgrade.RollingBack:
		status = statusInProgress
	case upgrade.Completed:
		status = statusCompleted
	case upgrade.Ineligible:
		status = statusIneligible
	case upgrade.Canceled, upgrade.Expired, upgrade.Failed, upgrade.RolledBack, upgrade.RollbackFailed:
	}
	detail, err := s.upgradeStatus(ctx, tx, row)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE system_components SET status = $2, upgrade_status = $3, updated_at = now()
		WHERE id = $1`, row.ComponentID, status, detail)
	if err != nil {
		return fmt.Errorf("show upgrade %s on its component: %w", row.ID, err)
	}
	return nil
}

// upgradeStatus has the predecessor's keys; null after success.
func (s *Engine) upgradeStatus(ctx context.Context, tx *sqlx.Tx, row *upgradeRow) (any, error) {
	if row.State == upgrade.Completed {
		return nil, nil
	}
	ids, err := workflowIDs(ctx, tx, row.ID)
	if err != nil {
		return nil, err
	}
	status := map[string]any{"upgrade_id": row.ID, "workflows": ids, "current_workflow": nil,
		"target_source_repo": row.To.SourceRepo, "target_source_repo_git_ref": row.To.SourceRepoGitRef}
	if row.State.Running() && len(ids) > 0 {
		status["current_workflow"] = ids[len(ids)-1]
	}
	if row.StartedAt != nil {
		status["upgrade_start_time"] = row.StartedAt.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
	}
	if row.Cause.Valid || row.State == upgrade.Ineligible || row.State == upgrade.Canceled ||
		row.State == upgrade.Expired {
		status["failure_reason"] = row.VerdictMessage
	}
	return db.JSONText(status)
}

// journalMove writes the decision: the code is the enumerated reason, or the event where there is none.
func journalMove(ctx context.Context, tx *sqlx.Tx, row *upgradeRow, before upgrade.Upgrade, e upgrade.Event,
	inputs any) error {
	code, message := e.Reason, e.Message
	if code == "" {
		code = string(e.Kind)
	}
	if message == "" {
		message = fmt.Sprintf("%s: %s is %s", e.Kind, row.ComponentType, row.State)
	}
	return db.WriteJournal(ctx, tx, db.Entry{Subject: row.subject(), Code: code, Message: message, Inputs: map[string]any{
		"event": e.Kind, "cause": e.Cause, "from_state": before.State, "to_state": row.State, "phase": row.Phase,
		"step": row.Step, "term": e.Term, "inputs": inputs}})
}

// resetClock gives a running upgrade its full time again: something has moved.
func (s *Engine) resetClock(ctx context.Context, tx *sqlx.Tx, row *upgradeRow) error {
	if !row.State.Running() {
		return nil
	}
	return row.saveClock(ctx, tx, upgrade.Clock{Left: s.times.ProgressDeadline})
}
