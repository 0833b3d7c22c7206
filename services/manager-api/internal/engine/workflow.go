package engine

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/upgrade"

	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

const OpenWorkflow = `began_at IS NOT NULL AND NOT workflow_completed`

// EndWorkflows ends what runs in an exchange that goes: its orders go with it, and nobody else would end them. The
// exchange is locked, so that nothing begins there any more. An upgrade goes with its component; people hear of the
// others.
func (s *Engine) EndWorkflows(ctx context.Context, tx *sqlx.Tx, id component.ExchangeID) error {
	var open []workflowRow
	err := tx.SelectContext(ctx, &open, `SELECT `+workflowColumns+` FROM workflows WHERE messaging_exchange_id = $1
		AND `+OpenWorkflow+` ORDER BY id FOR UPDATE`, id)
	if err != nil {
		return fmt.Errorf("list workflows of exchange %d: %w", id, err)
	}
	deleted := refused("exchange_deleted",
		"exchange %d was deleted while it ran there: what it has deployed is left alone, so look at it", id)
	for i := range open {
		if open[i].UpgradeID != nil {
			err = open[i].fail(ctx, tx, *deleted)
		} else {
			err = s.failWorkflow(ctx, tx, orderChain{workflow: &open[i]}, *deleted)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// workflowRow is what the engine needs of a workflow; the predecessor's other columns are workflow_view.go's.
type workflowRow struct {
	ID                   string                `db:"id"`
	DeploymentRepo       string                `db:"deployment_repo"`
	DeploymentRepoGitRef string                `db:"deployment_repo_git_ref"`
	SourceRepo           string                `db:"source_repo"`
	SourceRepoGitRef     string                `db:"source_repo_git_ref"`
	Milestones           json.RawMessage       `db:"milestones"`
	CurrentStep          string                `db:"current_step"`
	Completed            bool                  `db:"workflow_completed"`
	Failed               bool                  `db:"workflow_error"`
	ExecuteOptions       json.RawMessage       `db:"execute_options"`
	StepDurations        json.RawMessage       `db:"workflow_step_durations"`
	UpgradeID            *upgrade.ID           `db:"upgrade_id"`
	ExchangeID           *component.ExchangeID `db:"messaging_exchange_id"`
	ComponentType        component.Type        `db:"component_type"`
	Phase                int                   `db:"phase"`
	Restoring            bool                  `db:"restoring"`
	Executor             upgrade.Executor      `db:"executor"`
	ReleaseID            *string               `db:"release_id"`
	Instances            int                   `db:"instances"`
	Deployed             json.RawMessage       `db:"deployed"` // []messages.Deployed; null: not named
	BeganAt              *time.Time            `db:"began_at"`
	StepBeganAt          *time.Time            `db:"step_began_at"`
	EndedAt              *time.Time            `db:"ended_at"`
	ScheduledAt          *time.Time            `db:"scheduled_start_time"`
	Now                  time.Time             `db:"now"`
}

const workflowColumns = `id, coalesce(deployment_repo, '') AS deployment_repo,
	coalesce(deployment_repo_git_ref, '') AS deployment_repo_git_ref,
	coalesce(source_repo, '') AS source_repo, coalesce(source_repo_git_ref, '') AS source_repo_git_ref,
	coalesce(milestones, '[]') AS milestones, coalesce(current_step, '') AS current_step,
	workflow_completed, coalesce(workflow_error, false) AS workflow_error,
	coalesce(execute_options, 'null') AS execute_options,
	coalesce(workflow_step_durations, '{}') AS workflow_step_durations,
	upgrade_id, messaging_exchange_id, component_type, phase, restoring, executor, release_id, instances,
	coalesce(deployed, 'null') AS deployed,
	began_at, step_began_at, ended_at, scheduled_start_time, now() AS now`

func lockWorkflow(ctx context.Context, tx *sqlx.Tx, id string) (*workflowRow, error) {
	var w workflowRow
	if err := tx.GetContext(ctx, &w, `SELECT `+workflowColumns+` FROM workflows WHERE id = $1 FOR UPDATE`,
		id); err != nil {
		return nil, fmt.Errorf("read workflow %s: %w", id, err)
	}
	return &w, nil
}

// position is where an upgrade stands; it has one workflow there.
type position struct {
	UpgradeID upgrade.ID
	Phase     int
	Restoring bool
}

// workflowAt is the workflow of a position, nil before it has one.
func workflowAt(ctx context.Context, tx *sqlx.Tx, p position) (*workflowRow, error) {
	var w workflowRow
	err := tx.GetContext(ctx, &w, `SELECT `+workflowColumns+` FROM workflows WHERE upgrade_id = $1 AND phase = $2
		AND restoring = $3`,
		string(p.UpgradeID), p.Phase, p.Restoring)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read workflow of phase %d of upgrade %s: %w", p.Phase, p.UpgradeID, err)
	}
	return &w, nil
}

func workflowIDs(ctx context.Context, tx *sqlx.Tx, id upgrade.ID) ([]string, error) {
	ids := []string{}
	if err := tx.SelectContext(ctx, &ids, `SELECT id FROM workflows WHERE upgrade_id = $1 ORDER BY inserted_at, id`,
		string(id)); err != nil {
		return nil, fmt.Errorf("list workflows of upgrade %s: %w", id, err)
	}
	return ids, nil
}

func (w *workflowRow) milestones() []messages.Milestone { return milestonesOf(w.Milestones) }

func milestonesOf(raw []byte) []messages.Milestone {
	var list []messages.Milestone
	if json.Unmarshal(raw, &list) != nil {
		return nil // whatever a user wrote there is no list of milestones; execute refuses it
	}
	return list
}

// next is the milestone after one, "" after the last; the first one after "".
func (w *workflowRow) next(after messages.Milestone) messages.Milestone {
	list := w.milestones()
	if after == "" && len(list) > 0 {
		return list[0]
	}
	for i, m := range list[:max(len(list)-1, 0)] {
		if m == after {
			return list[i+1]
		}
	}
	return ""
}

// log is one line of the predecessor's event_log.
func (w *workflowRow) log(ctx context.Context, tx *sqlx.Tx, format string, args ...any) error {
	line, err := db.JSONText([]string{fmt.Sprintf("[OA][%s][%s] %s", w.ID, w.DeploymentRepo,
		fmt.Sprintf(format, args...))})
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE workflows SET event_log = coalesce(event_log, '[]') || $2::jsonb,
		updated_at = now() WHERE id = $1`, w.ID, line)
	if err != nil {
		return fmt.Errorf("write event log of workflow %s: %w", w.ID, err)
	}
	return nil
}

// enterMilestone makes a milestone the current step and sends its order. A failure says why the milestone cannot be
// ordered.
func (s *Engine) enterMilestone(ctx context.Context, tx *sqlx.Tx, w *workflowRow,
	m messages.Milestone) (*failure, error) {
	durations, err := w.durations()
	if err != nil {
		return nil, err
	}
	w.CurrentStep, w.StepBeganAt = string(m), &w.Now
	_, err = tx.ExecContext(ctx, `UPDATE workflows SET current_step = $2, step_began_at = now(),
		workflow_step_durations = $3,
			elapsed_step_time = $4, elapsed_workflow_time = $5, updated_at = now() WHERE id = $1`,
		w.ID, string(m), durations, humanDuration(0), humanDuration(w.since(w.BeganAt)))
	if err != nil {
		return nil, fmt.Errorf("enter milestone %s of workflow %s: %w", m, w.ID, err)
	}
	if err := w.log(ctx, tx, "Requesting milestone %s", m); err != nil {
		return nil, err
	}
	return s.sendOrder(ctx, tx, w, m)
}

// succeed ends a workflow whose last milestone is done.
func (w *workflowRow) succeed(ctx context.Context, tx *sqlx.Tx) error {
	if err := w.end(ctx, tx, failure{}); err != nil {
		return err
	}
	return w.log(ctx, tx, "Workflow completed")
}

// fail ends a workflow and closes its orders.
func (w *workflowRow) fail(ctx context.Context, tx *sqlx.Tx, f failure) error {
	if err := w.end(ctx, tx, f); err != nil {
		return err
	}
	if err := closeOrders(ctx, tx, w.ID); err != nil {
		return err
	}
	if err := w.log(ctx, tx, "Milestone %s failed (%s): %s", w.CurrentStep, f.Reason, f.Message); err != nil ||
		f.Log == "" {
		return err
	}
	return w.log(ctx, tx, "The log of the failing instance ends so:\n%s", f.Log)
}

func (w *workflowRow) end(ctx context.Context, tx *sqlx.Tx, f failure) error {
	durations, err := w.durations()
	if err != nil {
		return err
	}
	w.Completed, w.Failed, w.EndedAt = true, f.Reason != "", &w.Now
	_, err = tx.ExecContext(ctx, `UPDATE workflows SET workflow_completed = true, workflow_error = $2, failure_cause = $3,
		failure_reason = $4, ended_at = now(),
			workflow_step_durations = $5, elapsed_step_time = $6, elapsed_workflow_time = $7, workflow_duration = $7,
			updated_at = now() WHERE id = $1`,
		w.ID, w.Failed, string(f.Cause), string(f.Reason), durations,
		humanDuration(w.since(w.StepBeganAt)), humanDuration(w.since(w.BeganAt)))
	if err != nil {
		return fmt.Errorf("end workflow %s: %w", w.ID, err)
	}
	return nil
}

// durations is workflow_step_durations with the current step added.
func (w *workflowRow) durations() (string, error) {
	steps := map[string]any{}
	if err := json.Unmarshal(w.StepDurations, &steps); err != nil {
		steps = map[string]any{} // a user may have put anything there
	}
	if w.CurrentStep != "" && w.StepBeganAt != nil {
		steps[w.CurrentStep] = humanDuration(w.since(w.StepBeganAt))
	}
	text, err := db.JSONText(steps)
	w.StepDurations = json.RawMessage(text)
	return text, err
}

func (w *workflowRow) since(t *time.Time) time.Duration {
	if t == nil {
		return -1
	}
	return max(w.Now.Sub(*t), 0)
}

// humanDuration is a duration in the predecessor's words: its largest whole unit.
func humanDuration(d time.Duration) string {
	day := 24 * time.Hour
	switch {
	case d < 0:
		return "<unknown>"
	case d < time.Minute:
		return fmt.Sprintf("%d second(s)", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d minute(s)", d/time.Minute)
	case d < day:
		return fmt.Sprintf("%d hour(s)", d/time.Hour)
	case d < 7*day:
		return fmt.Sprintf("%d day(s)", d/day)
	default:
		return fmt.Sprintf("%d week(s)", d/(7*day))
	}
}

// closeWorkflow ends the workflow of a position from outside: nobody wants its result any more.
func closeWorkflow(ctx context.Context, tx *sqlx.Tx, p position, f failure) error {
	w, err := workflowAt(ctx, tx, p)
	if err != nil || w == nil {
		return err
	}
	if w.Completed {
		return closeOrders(ctx, tx, w.ID) // probes
	}
	return w.fail(ctx, tx, f)
}
