package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/blame"
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
// every other a Conflict with the predecessor's sentence. Stored execute_options win over options. The workflow runs in
// the exchange that it belongs to, else in that of `deploy_messaging_exchange_id`, else in manager-api's own. A
// milestone that no executor knows fails the workflow at once, before anything is touched. NotFound: no such workflow.
func (s *Engine) ExecuteWorkflow(ctx context.Context, id string, options json.RawMessage) error {
	return s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		w, err := lockWorkflow(ctx, tx, id)
		if err != nil {
			return db.NotFound(err, "there is no workflow %s", id)
		}
		return s.beginExecution(ctx, tx, w, options, "the workflow was executed")
	})
}

// beginExecution begins a locked workflow.
func (s *Engine) beginExecution(ctx context.Context, tx *sqlx.Tx, w *workflowRow, options json.RawMessage,
	why string) error {
	switch {
	case w.Completed:
		return fault.New(fault.Conflict, "Workflow has already completed").WithCode(CodeWorkflowCompleted)
	case w.CurrentStep != "" || w.BeganAt != nil || w.UpgradeID != nil:
		return fault.New(fault.Conflict, "Workflow has already been started").WithCode(CodeWorkflowStarted)
	}
	if err := s.claimWorkflow(ctx, tx, w, options); err != nil {
		return err
	}
	err := db.WriteJournal(ctx, tx, db.Entry{Subject: "workflow/" + w.ID, Code: "workflow_started", Message: why})
	if err != nil {
		return err
	}
	if failed := w.unknownMilestone(); failed != nil {
		return s.failWorkflow(ctx, tx, orderChain{workflow: w}, *failed)
	}
	return s.enterOrFail(ctx, tx, w, w.next(""))
}

// enterOrFail enters a milestone of a workflow without upgrade. If the milestone cannot be ordered the workflow fails.
func (s *Engine) enterOrFail(ctx context.Context, tx *sqlx.Tx, w *workflowRow, m messages.Milestone) error {
	failed, err := s.enterMilestone(ctx, tx, w, m)
	if err != nil || failed == nil {
		return err
	}
	return s.failWorkflow(ctx, tx, orderChain{workflow: w}, *failed)
}

// StartScheduled begins the workflows whose scheduled_start_time has come and that nobody has executed, and lets those
// go on that wait in the milestone scheduled. Each starts once, also if manager-api was away at the time. A time from
// before the rule does nothing: such workflows were stored when nothing came of a time.
func (s *Engine) StartScheduled(ctx context.Context) error {
	return s.forEachDue(ctx, `SELECT w.id, coalesce(w.messaging_exchange_id, 0) AS messaging_exchange_id
		FROM workflows w
		WHERE NOT w.workflow_completed AND w.upgrade_id IS NULL AND w.scheduled_start_time <= now()
			AND (w.current_step = 'scheduled' OR w.began_at IS NULL AND coalesce(w.current_step, '') = ''
				AND w.scheduled_start_time > (SELECT schedules_since FROM schema_info))
			AND NOT EXISTS (SELECT 1 FROM freezes f
				WHERE coalesce(f.messaging_exchange_id, 0) IN (0, w.messaging_exchange_id) AND `+holding+`)
		ORDER BY w.scheduled_start_time`,
		func(ctx context.Context, tx *sqlx.Tx, id string) error {
			w, err := lockWorkflow(ctx, tx, id)
			if err != nil || w.Completed || w.ScheduledAt == nil || w.ScheduledAt.After(w.Now) {
				return err
			}
			if w.CurrentStep == string(messages.MilestoneSchedule) {
				return s.goOnFromSchedule(ctx, tx, w)
			}
			err = s.beginExecution(ctx, tx, w, nil, "the workflow's scheduled_start_time has come")
			switch {
			case fault.CodeOf(err) == CodeFrozen:
				return nil // it waits
			case fault.CodeOf(err) == CodeWorkflowStarted || fault.CodeOf(err) == CodeWorkflowCompleted:
				return nil // somebody was first
			case fault.Is(err, fault.Conflict): // nobody is there to read the refusal
				return s.failWorkflow(ctx, tx, orderChain{workflow: w},
					*refused("not_started", "%s", fault.Public(err).Message))
			default:
				return err
			}
		})
}

// goOnFromSchedule enters the milestone after scheduled, or completes the workflow.
func (s *Engine) goOnFromSchedule(ctx context.Context, tx *sqlx.Tx, w *workflowRow) error {
	next := w.next(messages.MilestoneSchedule)
	if next != "" {
		return s.enterOrFail(ctx, tx, w, next)
	}
	if err := w.succeed(ctx, tx); err != nil {
		return err
	}
	return db.WriteJournal(ctx, tx, db.Entry{Subject: "workflow/" + w.ID, Code: "workflow_completed",
		Message: "the workflow has completed"})
}

// AbandonWorkflows ends the workflows without upgrade in which nothing has moved for abandon_after: their exchange
// cannot be reached, or what was ordered cannot be sent. (An upgrade's workflows end with the upgrade.) A workflow that
// waits for its scheduled_start_time waits on purpose.
func (s *Engine) AbandonWorkflows(ctx context.Context) error {
	return s.forEachDue(ctx, `SELECT w.id, coalesce(w.messaging_exchange_id, 0) AS messaging_exchange_id
		FROM workflows w
		WHERE `+abandonedWorkflow+` ORDER BY w.id`,
		func(ctx context.Context, tx *sqlx.Tx, id string) error {
			w, err := lockWorkflow(ctx, tx, id)
			if err != nil {
				return err
			}
			var due bool
			err = tx.GetContext(ctx, &due, `SELECT EXISTS (SELECT 1 FROM workflows w WHERE w.id = $3 AND `+abandonedWorkflow+`)`,
				s.times.AbandonAfter.Milliseconds(), s.times.OrderDeadline.Milliseconds(), id)
			if err != nil || !due {
				return err
			}
			x := orderChain{workflow: w}
			facts := s.factsOf(blame.Forsaken, x)
			facts.Limit = s.times.AbandonAfter
			return s.failWorkflow(ctx, tx, x, judge(facts))
		}, s.times.AbandonAfter.Milliseconds(), s.times.OrderDeadline.Milliseconds())
}

// abandonedWorkflow is, in SQL, the condition of AbandonWorkflows over the workflows w: $1 is abandon_after, $2 is
// order_deadline, which progress adds to the clock of its order.
const abandonedWorkflow = `w.upgrade_id IS NULL AND w.began_at IS NOT NULL AND NOT w.workflow_completed
	AND coalesce(w.current_step, '') <> 'scheduled'
	AND coalesce(w.step_began_at, w.began_at) < now() - $1 * interval '1 millisecond'
	AND NOT EXISTS (SELECT 1 FROM orders o WHERE o.workflow_id = w.id AND o.state IN ('open', 'claimed')
		AND o.deadline - $2 * interval '1 millisecond' >= now() - $1 * interval '1 millisecond')`

// claimWorkflow records that the workflow has begun, where and by whom it is executed.
func (s *Engine) claimWorkflow(ctx context.Context, tx *sqlx.Tx, w *workflowRow, options json.RawMessage) error {
	if string(w.ExecuteOptions) == "null" && len(options) > 0 {
		w.ExecuteOptions = options
	}
	ex, err := s.exchangeFor(ctx, tx, w)
	if err != nil {
		return err
	}
	if err := requireThawed(ctx, tx, ex); err != nil {
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
	id, _ := strconv.ParseInt(fmt.Sprint(o.Exchange), 10, 64)
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
		return refused("milestone_unknown", "the workflow has no milestones")
	}
	known := []messages.Milestone{messages.MilestoneSchedule, messages.MilestoneConfig, messages.MilestoneBuild,
		messages.MilestoneDeploy, messages.MilestoneDeployOA}
	for i, m := range list {
		if !slices.Contains(known, m) || slices.Contains(list[:i], m) {
			return refused("milestone_unknown",
				"milestone %q is unknown or stands twice: use scheduled, config, build, deploy or deploy_oa", m)
		}
	}
	return nil
}
