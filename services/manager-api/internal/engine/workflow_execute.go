package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/upgrade"

	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// Codes of the refusals of execute.
const (
	CodeWorkflowCompleted = "workflow_completed"
	CodeWorkflowStarted   = "workflow_started"
)

// ExecuteWorkflow begins a workflow that was made over REST: claimed in the database, so that one caller gets nil and
// every other a Conflict with the predecessor's sentence. Stored execute_options win over options. It runs in the
// exchange that it belongs to, else in that of `deploy_messaging_exchange_id`, else in manager-api's own. A milestone
// that no executor knows fails the workflow at once, before anything is touched. NotFound: no such workflow.
func (s *Engine) ExecuteWorkflow(ctx context.Context, id string, options json.RawMessage) error {
	return s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		w, err := lockWorkflow(ctx, tx, id)
		switch {
		case err != nil:
			return db.NotFound(err, "there is no workflow %s", id)
		case w.Completed:
			return fault.New(fault.Conflict, "Workflow has already completed").WithCode(CodeWorkflowCompleted)
		case w.CurrentStep != "" || w.BeganAt != nil || w.UpgradeID != nil:
			return fault.New(fault.Conflict, "Workflow has already been started").WithCode(CodeWorkflowStarted)
		}
		if err := s.claimWorkflow(ctx, tx, w, options); err != nil {
			return err
		}
		if err := db.WriteJournal(ctx, tx, db.Entry{Subject: "workflow/" + id, Code: "workflow_started",
			Message: "the workflow was executed"}); err != nil {
			return err
		}
		failed := w.unknownMilestone()
		if failed == nil {
			if failed, err = s.enterMilestone(ctx, tx, w, w.next("")); err != nil {
				return err
			}
		}
		if failed == nil {
			return nil
		}
		return s.failWorkflow(ctx, tx, chained{workflow: w}, *failed)
	})
}

// claimWorkflow records that the workflow has begun, where and by whom it is executed.
func (s *Engine) claimWorkflow(ctx context.Context, tx *sqlx.Tx, w *workflowRow, options json.RawMessage) error {
	if string(w.ExecuteOptions) == "null" && len(options) > 0 {
		w.ExecuteOptions = options
	}
	ex, err := s.exchangeFor(ctx, tx, w)
	if err != nil {
		return err
	}
	w.ExchangeID, w.Executor = &ex, executorFor(w.milestones())
	err = tx.QueryRowxContext(ctx, `UPDATE workflows SET began_at = now(), workflow_error = false,
		messaging_exchange_id = $2, executor = $3, execute_options = nullif($4::jsonb, 'null'), updated_at = now()
		WHERE id = $1 RETURNING began_at`, w.ID, ex, string(w.Executor), string(w.ExecuteOptions)).Scan(&w.BeganAt)
	if err != nil {
		return fmt.Errorf("begin workflow %s: %w", w.ID, err)
	}
	return nil
}

// exchangeFor is the exchange that the workflow belongs to, else the one that its options name (a number, or one as a
// string), else manager-api's own. Conflict: options that name another than its own.
func (s *Engine) exchangeFor(ctx context.Context, tx *sqlx.Tx, w *workflowRow) (component.ExchangeID, error) {
	var o struct {
		Exchange any `json:"deploy_messaging_exchange_id"`
	}
	_ = json.Unmarshal(w.ExecuteOptions, &o) // what is no object names no exchange
	id, _ := strconv.ParseInt(fmt.Sprint(o.Exchange), 10, 32)
	if f, ok := o.Exchange.(float64); ok {
		id = int64(f)
	}
	if own := w.ExchangeID; own != nil {
		if id != 0 && component.ExchangeID(id) != *own {
			return 0, fault.New(fault.Conflict,
				"the workflow belongs to exchange %d and cannot run in %d: leave deploy_messaging_exchange_id out", *own, id)
		}
		return *own, nil
	}
	var found component.ExchangeID
	err := tx.GetContext(ctx, &found, `SELECT id FROM messaging_exchanges WHERE CASE WHEN $1 = 0 THEN name = $2
		ELSE id = $1 END`, id, s.home)
	if err != nil {
		return 0, conflictIfNone(err, "the workflow has no exchange to run in: set deploy_messaging_exchange_id, or "+
			"register the exchange %q", s.home)
	}
	return found, nil
}

func conflictIfNone(err error, format string, args ...any) error {
	if fault.Is(db.NotFound(err, ""), fault.NotFound) {
		return fault.New(fault.Conflict, format, args...).WithCode("no_exchange")
	}
	return err
}

func executorFor(list []messages.Milestone) upgrade.Executor {
	if slices.Contains(list, messages.MilestoneDeployOA) {
		return upgrade.ExecDeployOA
	}
	return upgrade.ExecDeploy
}

// unknownMilestone refuses a list that cannot be executed to its end.
func (w *workflowRow) unknownMilestone() *failure {
	list := w.milestones()
	if len(list) == 0 {
		return environment("milestone_unknown", "the workflow has no milestones")
	}
	for i, m := range list {
		known := m == messages.MilestoneConfig || m == messages.MilestoneDeploy || m == messages.MilestoneDeployOA
		if !known || slices.Contains(list[:i], m) {
			return environment("milestone_unknown", "milestone %q is unknown or stands twice: use config, deploy or deploy_oa",
				m)
		}
	}
	return nil
}
