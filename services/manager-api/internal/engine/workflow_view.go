package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// WorkflowView is a workflow as the predecessor's family shows it. What a caller may state is WorkflowSpec.
type WorkflowView struct {
	ID string `json:"id" db:"id"`
	WorkflowSpec
	UpgradeID  *string               `json:"upgrade_id" db:"upgrade_id"`
	ExchangeID *component.ExchangeID `json:"messaging_exchange_id" db:"messaging_exchange_id"`
	Begun      bool                  `json:"-" db:"begun"`
	InsertedAt db.Stamp              `json:"inserted_at" db:"inserted_at"`
	UpdatedAt  db.Stamp              `json:"updated_at" db:"updated_at"`
}

// WorkflowSpec is what a caller may state about a workflow.
type WorkflowSpec struct {
	DeploymentRepo       *string   `json:"deployment_repo" db:"deployment_repo"`
	DeploymentRepoGitRef *string   `json:"deployment_repo_git_ref" db:"deployment_repo_git_ref"`
	SourceRepo           *string   `json:"source_repo" db:"source_repo"`
	SourceRepoGitRef     *string   `json:"source_repo_git_ref" db:"source_repo_git_ref"`
	SourceCommitHash     *string   `json:"source_commit_hash" db:"source_commit_hash"`
	Milestones           db.JSON   `json:"milestones" db:"milestones"`
	CurrentStep          *string   `json:"current_step" db:"current_step"`
	ElapsedStepTime      *string   `json:"elapsed_step_time" db:"elapsed_step_time"`
	ElapsedWorkflowTime  *string   `json:"elapsed_workflow_time" db:"elapsed_workflow_time"`
	WorkflowDuration     *string   `json:"workflow_duration" db:"workflow_duration"`
	StepDurations        db.JSON   `json:"workflow_step_durations" db:"workflow_step_durations"`
	Error                *bool     `json:"workflow_error" db:"workflow_error"`
	Completed            bool      `json:"workflow_completed" db:"workflow_completed"`
	EventLog             db.JSON   `json:"event_log" db:"event_log"`
	ScheduledStartTime   *db.Stamp `json:"scheduled_start_time" db:"scheduled_start_time"`
	ExecuteOptions       db.JSON   `json:"execute_options" db:"execute_options"`
}

// restColumns are the stated columns, in the order of values.
const restColumns = `deployment_repo, deployment_repo_git_ref, source_repo, source_repo_git_ref, source_commit_hash,
	milestones, current_step,
	elapsed_step_time, elapsed_workflow_time, workflow_duration, workflow_step_durations, workflow_error,
	workflow_completed, event_log,
	scheduled_start_time, execute_options`

func (w WorkflowSpec) values() []any {
	return []any{w.DeploymentRepo, w.DeploymentRepoGitRef, w.SourceRepo, w.SourceRepoGitRef, w.SourceCommitHash,
		w.Milestones, w.CurrentStep,
		w.ElapsedStepTime, w.ElapsedWorkflowTime, w.WorkflowDuration, w.StepDurations, w.Error, w.Completed, w.EventLog,
		stampValue(w.ScheduledStartTime), w.ExecuteOptions}
}

func stampValue(s *db.Stamp) any {
	if s == nil {
		return nil
	}
	return s.Time
}

const shownColumns = `id, ` + restColumns +
	`, upgrade_id, messaging_exchange_id, began_at IS NOT NULL AS begun, inserted_at, updated_at`

// WorkflowQuery selects workflows: of the last Lookback hours (≤ 0: all), of one deployment repository unless that is
// nil.
type WorkflowQuery struct {
	db.Part
	Lookback       int
	DeploymentRepo *string
}

// EachWorkflow lists workflows by id. Those that ask git hosts for refs are manager-api's own, and are gone in seconds.
func (s *Engine) EachWorkflow(ctx context.Context, q WorkflowQuery, fn func(WorkflowView) error) error {
	return db.Each(ctx, s.db.Pool, q.Limit, func(r WorkflowView) string { return r.ID }, fn,
		`SELECT `+shownColumns+` FROM workflows WHERE ($1 = 0 OR messaging_exchange_id = $1)
		AND current_step IS DISTINCT FROM 'resolve' AND ($2 <= 0 OR inserted_at >= now() - $2 * interval '1 hour')
		AND ($3::text IS NULL OR deployment_repo = $3)`,
		q.Exchange, q.Lookback, q.DeploymentRepo)
}

// Workflow reads one workflow; id must be a uuid.
func (s *Engine) Workflow(ctx context.Context, id string) (WorkflowView, error) {
	row, err := db.One[WorkflowView](ctx, s.db.Pool, `SELECT `+shownColumns+` FROM workflows WHERE id = $1`, id)
	if err != nil {
		return row, fmt.Errorf("read workflow %s: %w", id, err)
	}
	return row, nil
}

// CreateWorkflow stores a workflow that nobody has started, and returns its id. One that belongs to an exchange can run
// there alone; nil leaves it open until it is executed. Invalid: the exchange does not exist.
func (s *Engine) CreateWorkflow(ctx context.Context, spec WorkflowSpec, ex *component.ExchangeID) (string, error) {
	var id string
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) (err error) {
		if id, err = db.NewID(ctx, tx); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO workflows (id, messaging_exchange_id, `+restColumns+`)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)`, append([]any{id, ex},
			spec.values()...)...)
		if err != nil {
			return db.UnknownExchange(err)
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: "workflow/" + id, Code: "workflow_created",
			Inputs: workflowInput(spec)})
	})
	if err != nil {
		return "", fmt.Errorf("create workflow: %w", err)
	}
	return id, nil
}

// workflowInput is what the journal tells of a workflow: not its log, which grows.
func workflowInput(w WorkflowSpec) WorkflowSpec {
	w.EventLog = nil
	return w
}

// CodeUpgradeOwned refuses to touch a workflow of an upgrade: manager-api moves it, by its table.
const CodeUpgradeOwned = "workflow_of_an_upgrade"

// UpdateWorkflow changes a workflow by edit, which gets what is stored. A finished one stays finished, and one that is
// finished here has its orders closed: nobody works on for a result that nobody takes. From its start on the step is
// manager-api's own. Conflict: it belongs to an upgrade, or edit changes the milestones of one that has been started.
func (s *Engine) UpdateWorkflow(ctx context.Context, id string, edit func(*WorkflowSpec) error) error {
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		old, err := lockShown(ctx, tx, id)
		if err != nil {
			return err
		}
		spec := old.WorkflowSpec
		if err := edit(&spec); err != nil {
			return err
		}
		if old.Begun {
			spec.CurrentStep = old.CurrentStep
			if !slices.Equal(milestonesOf(spec.Milestones), milestonesOf(old.Milestones)) {
				return fault.New(fault.Conflict, "Workflow has already been started: its milestones stay, make another workflow").
					WithCode(CodeWorkflowStarted)
			}
		}
		spec.Completed = spec.Completed || old.Completed
		_, err = tx.ExecContext(ctx, `UPDATE workflows SET (`+restColumns+`) = ROW ($2::text, $3::text, $4::text, $5::text,
			$6::text, $7::jsonb,
			$8::text, $9::text, $10::text, $11::text, $12::jsonb, $13::boolean, $14::boolean, $15::jsonb, $16::timestamptz,
			$17::jsonb),
			ended_at = CASE WHEN $14 THEN coalesce(ended_at, now()) END, updated_at = now() WHERE id = $1`,
			slices.Concat([]any{id}, spec.values())...)
		if err != nil {
			return err
		}
		if spec.Completed && !old.Completed {
			if err := closeOrders(ctx, tx, id); err != nil {
				return err
			}
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: "workflow/" + id, Code: "workflow_changed",
			Inputs: db.Change{Before: workflowInput(old.WorkflowSpec), After: workflowInput(spec)}})
	})
	if err != nil {
		return fmt.Errorf("update workflow %s: %w", id, err)
	}
	return nil
}

func lockShown(ctx context.Context, tx *sqlx.Tx, id string) (WorkflowView, error) {
	row, err := db.One[WorkflowView](ctx, tx, `SELECT `+shownColumns+` FROM workflows WHERE id = $1 FOR UPDATE`, id)
	if err == nil && row.UpgradeID != nil {
		return row, fault.New(fault.Conflict, "the workflow belongs to upgrade %s", *row.UpgradeID).WithCode(CodeUpgradeOwned)
	}
	return row, err
}

// DeleteWorkflow removes a workflow with its orders; executors drop what they still have of it. Conflict: it belongs to
// an upgrade.
func (s *Engine) DeleteWorkflow(ctx context.Context, id string) error {
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		old, err := lockShown(ctx, tx, id)
		if err != nil {
			return err
		}
		for _, statement := range []string{
			`DELETE FROM leases WHERE name IN (SELECT ` + ordersLease + ` FROM orders o WHERE o.workflow_id = $1)`,
			`DELETE FROM workflows WHERE id = $1`,
		} {
			if _, err := tx.ExecContext(ctx, statement, id); err != nil {
				return err
			}
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: "workflow/" + id, Code: "workflow_deleted",
			Inputs: workflowInput(old.WorkflowSpec)})
	})
	if err != nil {
		return fmt.Errorf("delete workflow %s: %w", id, err)
	}
	return nil
}
