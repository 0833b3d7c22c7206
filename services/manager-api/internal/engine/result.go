package engine

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/blame"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"

	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// Applied says what became of a result.
type Applied string

// What can become of a result.
const (
	AppliedDone       Applied = "applied"
	AppliedDuplicate  Applied = "duplicate"  // its message id was there before
	AppliedSuperseded Applied = "superseded" // somebody else has taken the order over
	AppliedIgnored    Applied = "ignored"    // the order has ended, nobody wants to know
	AppliedUnknown    Applied = "unknown"    // no such order
	AppliedForeign    Applied = "foreign"    // nobody who was given the order can have sent it
)

// Delivered says how a result came.
type Delivered struct {
	MessageID string
	Queue     string // that it was taken from; "" is not known
}

// ApplyResult takes one result from the queue: the message id is recorded in the transaction of the effect. The late
// result of an expired claim that nobody has taken over counts; one under another token than the order's last does not,
// nor one from another exchange's queue.
func (s *Engine) ApplyResult(ctx context.Context, d Delivered, r messages.Result) (Applied, error) {
	var out Applied
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		foreign, err := fromElsewhere(ctx, tx, d, r)
		if err != nil || foreign {
			out = AppliedForeign
			return err
		}
		fresh, err := db.RecordMessage(ctx, tx, resultID(d.MessageID, r))
		if err != nil {
			return err
		}
		if !fresh {
			out = AppliedDuplicate
			return nil
		}
		x, err := s.lockChain(ctx, tx, r.OrderID)
		if fault.Is(err, fault.NotFound) {
			out = AppliedUnknown // of a deleted workflow; the inbox remembers it
			return nil
		}
		if err != nil {
			return err
		}
		out, err = s.applyResult(ctx, tx, x, r)
		return err
	})
	return out, err
}

// fromElsewhere says, also in the journal, that a result came from the queue of another exchange than its order's. Its
// message id is not recorded: the true result may bear it. An order that is unknown is nobody's.
func fromElsewhere(ctx context.Context, tx *sqlx.Tx, d Delivered, r messages.Result) (bool, error) {
	var at struct {
		Workflow   string `db:"workflow_id"`
		Name       string `db:"name"`
		RoutingKey string `db:"routing_key"`
	}
	err := tx.GetContext(ctx, &at, `SELECT o.workflow_id, x.name, x.routing_key FROM orders o JOIN messaging_exchanges x
		ON x.id = o.messaging_exchange_id
		WHERE o.id = $1`, db.ParseID(r.OrderID))
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read exchange of order %s: %w", r.OrderID, err)
	}
	own := messages.Address{Name: at.Name, RoutingKey: at.RoutingKey}.QueueName(messages.QueueWorkflowOrchestration)
	if d.Queue == "" || d.Queue == own {
		return false, nil
	}
	return true, db.WriteJournal(ctx, tx, db.Entry{Subject: "workflow/" + at.Workflow, Code: "queue_foreign",
		Message: fmt.Sprintf("a result from the queue %s was ignored: the order's executor sends its own to %s", d.Queue,
			own),
		Inputs: map[string]any{"order_id": r.OrderID, "token": r.Token, "event": r.EventType}})
}

// resultID stands in for an id that the sender left out: the same result has the same one.
func resultID(messageID string, r messages.Result) string {
	if messageID != "" {
		return messageID
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %d %s", r.OrderID, r.EventType, r.Token, r.At.UTC()))
	return hex.EncodeToString(sum[:])
}

// orderChain is an order with what it belongs to, locked in the order upgrade, workflow, order. Upgrade may be nil.
type orderChain struct {
	upgrade  *upgradeRow
	workflow *workflowRow
	order    *orderRow
}

func (s *Engine) lockChain(ctx context.Context, tx *sqlx.Tx, orderID string) (orderChain, error) {
	var x orderChain
	var ids struct {
		Workflow string      `db:"workflow_id"`
		Upgrade  *upgrade.ID `db:"upgrade_id"`
	}
	err := tx.GetContext(ctx, &ids, `SELECT o.workflow_id, w.upgrade_id FROM orders o JOIN workflows w
		ON w.id = o.workflow_id WHERE o.id = $1`, db.ParseID(orderID))
	if err != nil {
		return x, db.NotFound(err, "there is no order %s", orderID)
	}
	if ids.Upgrade != nil {
		if x.upgrade, err = lockUpgrade(ctx, tx, *ids.Upgrade); err != nil {
			return x, err
		}
	}
	if x.workflow, err = lockWorkflow(ctx, tx, ids.Workflow); err != nil {
		return x, err
	}
	x.order, err = lockOrder(ctx, tx, orderID)
	return x, err
}

func (s *Engine) applyResult(ctx context.Context, tx *sqlx.Tx, x orderChain, r messages.Result) (Applied, error) {
	if r.Token != x.order.Token || r.Token == 0 {
		return refuseToken(ctx, tx, x, r)
	}
	if r.EventType == messages.EventMilestoneFailed && r.Undone {
		return s.applyUndone(ctx, tx, x, r)
	}
	if x.order.ended() {
		return AppliedIgnored, nil
	}
	switch r.EventType {
	case messages.EventMilestoneProgress:
		return AppliedDone, s.applyProgress(ctx, tx, x, r)
	case messages.EventMilestoneCompleted:
		return AppliedDone, s.milestoneCompleted(ctx, tx, x, r)
	case messages.EventMilestoneFailed:
		return AppliedDone, s.milestoneFailed(ctx, tx, x, r)
	default:
		return AppliedIgnored, nil
	}
}

// refuseToken journals a result under a token that is not the order's: an old one was taken over from, and as a claim
// commits its token before it answers, nobody can have been given a higher one, nor any of an order that is unclaimed.
func refuseToken(ctx context.Context, tx *sqlx.Tx, x orderChain, r messages.Result) (Applied, error) {
	applied, code, message := AppliedSuperseded, "superseded", "a result under an old token was ignored"
	if r.Token >= x.order.Token {
		applied, code, message = AppliedForeign, "token_unknown", "a result under a token that nobody was given was ignored"
	}
	return applied, db.WriteJournal(ctx, tx, db.Entry{Subject: "workflow/" + x.workflow.ID, Code: code, Message: message,
		Inputs: map[string]any{"order_id": x.order.ID, "token": r.Token, "event": r.EventType}})
}

// applyProgress resets the clocks: the executor works. The order's own deadline moves too, because that bounds silence.
func (s *Engine) applyProgress(ctx context.Context, tx *sqlx.Tx, x orderChain, r messages.Result) error {
	_, err := tx.ExecContext(ctx, `UPDATE orders SET deadline = now() + $2 * interval '1 millisecond' WHERE id = $1`,
		x.order.ID, s.times.OrderDeadline.Milliseconds())
	if err != nil {
		return fmt.Errorf("record progress of order %s: %w", x.order.ID, err)
	}
	_, err = tx.ExecContext(ctx, `UPDATE workflows SET elapsed_step_time = $2, elapsed_workflow_time = $3 WHERE id = $1`,
		x.workflow.ID, humanDuration(x.workflow.since(x.workflow.StepBeganAt)),
		humanDuration(x.workflow.since(x.workflow.BeganAt)))
	if err != nil {
		return fmt.Errorf("record elapsed time of workflow %s: %w", x.workflow.ID, err)
	}
	if r.Message != "" {
		if err := x.workflow.log(ctx, tx, "%s", r.Message); err != nil {
			return err
		}
	}
	if x.upgrade == nil {
		return nil
	}
	return s.resetClock(ctx, tx, x.upgrade)
}

func (s *Engine) milestoneCompleted(ctx context.Context, tx *sqlx.Tx, x orderChain, r messages.Result) error {
	if x.order.Milestone == messages.MilestoneResolve {
		return s.resolved(ctx, tx, x, r.Resolved)
	}
	if err := endOrder(ctx, tx, x.order, orderCompleted, r); err != nil {
		return err
	}
	if x.order.Milestone == messages.MilestoneProbe {
		return s.probeAnswered(ctx, tx, x)
	}
	if x.workflow.Completed {
		return nil
	}
	if err := x.workflow.log(ctx, tx, "Milestone %s completed", x.order.Milestone); err != nil {
		return err
	}
	var failed *failure
	var adopted []db.Entry
	var err error
	switch x.order.Milestone {
	case messages.MilestoneConfig:
		failed, err = s.storeConfigured(ctx, tx, x, r)
	case messages.MilestoneDeploy, messages.MilestoneDeployOA:
		failed, adopted, err = s.recordDeployed(ctx, tx, x, r)
	case messages.MilestoneProbe, messages.MilestoneResolve, messages.MilestoneBuild,
		messages.MilestoneSchedule:
	}
	if err != nil {
		return err
	}
	if failed != nil {
		return s.failWorkflow(ctx, tx, x, *failed)
	}
	if err := s.continueWorkflow(ctx, tx, x, r); err != nil {
		return err
	}
	return db.WriteJournal(ctx, tx, adopted...)
}

// continueWorkflow enters the milestone after the completed one, or completes the workflow and tells its upgrade.
func (s *Engine) continueWorkflow(ctx context.Context, tx *sqlx.Tx, x orderChain, r messages.Result) error {
	if next := x.workflow.next(x.order.Milestone); next != "" {
		failed, err := s.enterMilestone(ctx, tx, x.workflow, next)
		if err != nil {
			return err
		}
		if failed != nil {
			return s.failWorkflow(ctx, tx, x, *failed)
		}
		if x.upgrade == nil {
			return nil
		}
		return s.resetClock(ctx, tx, x.upgrade)
	}
	if err := x.workflow.succeed(ctx, tx); err != nil {
		return err
	}
	if x.upgrade == nil {
		return db.WriteJournal(ctx, tx, db.Entry{Subject: "workflow/" + x.workflow.ID, Code: "workflow_completed",
			Message: "the workflow has completed"})
	}
	return s.moveUpgrade(ctx, tx, x.upgrade, upgrade.Event{Kind: upgrade.EventWorkflowCompleted, Touched: touchedBy(r)},
		map[string]any{"workflow_id": x.workflow.ID, "instances": r.Instances, "steps": r.Steps})
}

// storeConfigured stores the release that config produced.
func (s *Engine) storeConfigured(ctx context.Context, tx *sqlx.Tx, x orderChain, r messages.Result) (*failure, error) {
	if x.workflow.next(messages.MilestoneConfig) == "" {
		return nil, nil // nothing is to be deployed
	}
	if _, failed, err := clusterOf(ctx, tx, r.EtcdToken, x.workflow.ExchangeID); failed != nil || err != nil {
		return failed, err
	}
	if len(r.DeployableUnits) == 0 {
		return refused("no_units", "config found no unit in the deployment repository: add a .service file to its root"),
			nil
	}
	if failed := x.unplanned(r); failed != nil {
		return failed, nil
	}
	release := releaseFrom(x.workflow, r)
	if x.upgrade != nil {
		release.ComponentID = &x.upgrade.ComponentID
	}
	if err := requireOwnNames(ctx, tx, release); fault.CodeOf(err) == CodeUnitTaken {
		return refused(CodeUnitTaken, "%s", fault.Public(err).Message), nil
	} else if err != nil {
		return nil, err
	}
	if err := release.insert(ctx, tx); err != nil {
		return nil, err
	}
	x.workflow.ReleaseID = &release.ID
	_, err := tx.ExecContext(ctx, `UPDATE workflows SET release_id = $2, source_commit_hash = nullif($3, '')
		WHERE id = $1`, x.workflow.ID, release.ID, r.SourceCommitHash)
	if err != nil {
		return nil, fmt.Errorf("record release of workflow %s: %w", x.workflow.ID, err)
	}
	if x.upgrade == nil {
		return nil, nil
	}
	return nil, x.upgrade.targetRelease(ctx, tx, release)
}

// unplanned fails a config that rendered other commits than were planned, as an executor of the former release does: it
// does not know of planned commits, and a ref was moved meanwhile. No other code is deployed in their place.
func (x orderChain) unplanned(r messages.Result) *failure {
	if x.upgrade == nil {
		return nil
	}
	planned := x.upgrade.planned(x.workflow.Phase)
	if upgrade.CommitsDiffer(planned.SourceCommitHash, r.SourceCommitHash) {
		return refused("git_commit_gone",
			"the source's ref %s stood for commit %s when the upgrade was planned, and stands "+
				"for %s now: the next check plans with what it stands for then", planned.SourceRepoGitRef,
			planned.SourceCommitHash, r.SourceCommitHash)
	}
	if upgrade.CommitsDiffer(planned.DeploymentCommitHash, r.DeploymentCommitHash) {
		return refused("git_commit_gone", "the deployment repository's ref %s stood for commit %s when the upgrade was "+
			"planned, and stands for %s now: the next check plans with what it stands for then",
			x.workflow.DeploymentRepoGitRef, planned.DeploymentCommitHash, r.DeploymentCommitHash)
	}
	return nil
}

// planned is the target of one phase: the commits that config must render, as far as they are known.
func (r *upgradeRow) planned(phase int) upgrade.Version {
	v := r.To
	v.DeploymentCommitHash = upgrade.CommitOf(v.DeploymentCommitHash, phase)
	return v
}

// targetRelease makes the commits of a rendered release those of the upgrade's target: they are what is deployed,
// proven or quarantined.
func (r *upgradeRow) targetRelease(ctx context.Context, tx *sqlx.Tx, rendered *releaseRow) error {
	r.To.SourceCommitHash = rendered.SourceCommitHash
	if r.To.DeploymentCommitHash == "" {
		var commits []string
		err := tx.SelectContext(ctx, &commits, `SELECT d.deployment_commit_hash FROM workflows w
			JOIN releases d ON d.id = w.release_id WHERE w.upgrade_id = $1 AND NOT w.restoring ORDER BY w.phase`, string(r.ID))
		if err != nil {
			return fmt.Errorf("read commits of upgrade %s: %w", r.ID, err)
		}
		if len(commits) == len(upgrade.PhasesOf(r.ComponentType)) {
			r.To.DeploymentCommitHash = upgrade.JoinCommits(commits...)
		}
	}
	return r.save(ctx, tx)
}

// recordDeployed records which instances a deploy left running. An executor that announced at its claim that it names
// them must do so: without the names any module of the type would prove the version.
func (s *Engine) recordDeployed(ctx context.Context, tx *sqlx.Tx, x orderChain, r messages.Result) (*failure,
	[]db.Entry, error) {
	var named any
	if slices.Contains(x.order.Capabilities, managerapi.CapInstances) {
		if len(r.Deployed) == 0 {
			return new(judge(s.factsOf(blame.Unnamed, x))), nil, nil
		}
		text, err := db.JSONText(r.Deployed)
		if err != nil {
			return nil, nil, err
		}
		named = text
	}
	if _, err := tx.ExecContext(ctx, `UPDATE workflows SET instances = $2, deployed = $3 WHERE id = $1`,
		x.workflow.ID, r.Instances, named); err != nil {
		return nil, nil, fmt.Errorf("record instances of workflow %s: %w", x.workflow.ID, err)
	}
	adopted, err := s.adoptReplaced(ctx, tx, x, r)
	return nil, adopted, err
}

func (s *Engine) probeAnswered(ctx context.Context, tx *sqlx.Tx, x orderChain) error {
	if x.upgrade == nil {
		return nil
	}
	if err := db.WriteJournal(ctx, tx, db.Entry{Subject: x.upgrade.subject(), Code: "probe_answered",
		Message: "the executor has answered its probe",
		Inputs:  map[string]any{"order_id": x.order.ID}}); err != nil {
		return err
	}
	return db.RingOverseer(ctx, tx, x.upgrade.ExchangeID, x.upgrade.ComponentID, string(x.upgrade.ID))
}

func (s *Engine) milestoneFailed(ctx context.Context, tx *sqlx.Tx, x orderChain, r messages.Result) error {
	if err := endOrder(ctx, tx, x.order, orderFailed, r); err != nil {
		return err
	}
	if x.order.Milestone == messages.MilestoneProbe || x.workflow.Completed {
		return nil // an unanswered probe is the proof's business
	}
	adopted, err := s.adoptReplaced(ctx, tx, x, r)
	if err != nil {
		return err
	}
	f, err := s.judgeReported(ctx, tx, x, r)
	if err != nil {
		return err
	}
	if err := s.failWorkflow(ctx, tx, x, f); err != nil {
		return err
	}
	return db.WriteJournal(ctx, tx, adopted...)
}

// failWorkflow ends a workflow and tells its upgrade, or people where it has none.
func (s *Engine) failWorkflow(ctx context.Context, tx *sqlx.Tx, x orderChain, f failure) error {
	if x.workflow.CurrentStep == string(messages.MilestoneResolve) {
		return s.unresolved(ctx, tx, x.workflow, f)
	}
	if err := x.workflow.fail(ctx, tx, f); err != nil {
		return err
	}
	if x.upgrade != nil {
		return s.moveUpgrade(ctx, tx, x.upgrade, f.event(upgrade.EventWorkflowFailed), f.inputs(x.workflow.ID))
	}
	if err := db.RaiseEvent(ctx, tx, x.workflow.ExchangeID, "workflow_failed", db.SeverityError,
		fmt.Sprintf("workflow %s has failed: %s", x.workflow.ID, f.Message),
		map[string]any{"workflow_id": x.workflow.ID, "cause": f.Cause, "reason": f.Reason}); err != nil {
		return err
	}
	return db.WriteJournal(ctx, tx, db.Entry{Subject: "workflow/" + x.workflow.ID, Code: string(f.Reason),
		Message: f.Message, Inputs: f.inputs(x.workflow.ID)})
}

// applyUndone hears that the executor took a confirmed deploy back, because nobody told it that the phase was proven.
// It counts while that phase waits for its proof, and while its order is open: the manager-api that was deployed has
// lost the confirmed result, and its predecessor, which is back, must not have that version deployed once more.
func (s *Engine) applyUndone(ctx context.Context, tx *sqlx.Tx, x orderChain, r messages.Result) (Applied, error) {
	if !x.order.ended() {
		return AppliedDone, s.milestoneFailed(ctx, tx, x, r)
	}
	u := x.upgrade
	if u == nil || u.Step != upgrade.StepVerify || u.Phase != x.workflow.Phase || u.restoring() != x.workflow.Restoring ||
		x.order.State != orderCompleted {
		return AppliedIgnored, nil
	}
	if err := x.workflow.log(ctx, tx, "The deploy was undone: %s", r.Message); err != nil {
		return "", err
	}
	f, err := s.judgeReported(ctx, tx, x, r)
	if err != nil {
		return "", err
	}
	return AppliedDone, s.moveUpgrade(ctx, tx, u, f.event(upgrade.EventUndone),
		map[string]any{"workflow_id": x.workflow.ID})
}
