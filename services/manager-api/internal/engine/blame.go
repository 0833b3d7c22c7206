package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/openaperture/openaperture/pkg/blame"
	"github.com/openaperture/openaperture/pkg/release"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// failure is why a workflow or an upgrade cannot go on: a judgement of pkg/blame, in a sentence.
type failure struct {
	blame.Verdict
	Message string // one sentence
	Touched bool
	Log     string // end of the failing instance's log; for the journal and the workflow's event log alone
}

// judge asks pkg/blame whose fault a failure was, what people are told about it, and whether anything was touched.
// Every failure of the engine comes from here.
func judge(f blame.Facts) failure {
	v := blame.Judge(f)
	return failure{Verdict: v, Message: blame.Advice(v.Reason, v.Cause, f), Touched: blame.Touched(f)}
}

// refused is the failure of a workflow that manager-api does not let go on.
func refused(reason blame.Reason, format string, args ...any) *failure {
	return new(judge(blame.Facts{Failure: blame.Refused, Reason: reason, Told: fmt.Sprintf(format, args...)}))
}

// event tells the table of upgrades.
func (f failure) event(kind upgrade.EventKind) upgrade.Event {
	return upgrade.Event{Kind: kind, Cause: f.Cause, Reason: string(f.Reason), Message: f.Message, Touched: f.Touched,
		Quarantine: f.Quarantine}
}

// inputs is what the journal keeps of a failed workflow beside the verdict.
func (f failure) inputs(workflowID string) map[string]any {
	in := map[string]any{"workflow_id": workflowID}
	if f.Log != "" {
		in["log"] = f.Log
	}
	return in
}

// factsOf are the facts of a failure that stand in the rows where it happened; each of the rows may be nil.
func (s *Engine) factsOf(what blame.Failure, x orderChain) blame.Facts {
	f := blame.Facts{Failure: what}
	if w := x.workflow; w != nil {
		f.Type = w.ComponentType
	}
	if o := x.order; o != nil {
		f.Milestone, f.Queue, f.Exchange, f.Attempts = string(o.Milestone), string(o.Queue), int64(o.ExchangeID), o.Attempt
		f.Outside, f.Unclaimed = o.outside(), o.State == orderOpen
		f.Touch.Deploys, f.Touch.TakenOver = replaces(o.Milestone), o.TakenOver
	}
	if u := x.upgrade; u != nil {
		f.Upgrade, f.Type, f.Limit = true, u.ComponentType, s.times.ProgressDeadline
		f.Rollback, f.Restoring = u.Trigger == upgrade.TriggerRollback, u.restoring()
		f.Recorded, f.RunsTarget = u.From.AtRef() == u.To.AtRef(), s.version == u.To.SourceRepoGitRef
	}
	return f
}

// replaces tells whether a milestone replaces instances.
func replaces(m messages.Milestone) bool {
	return m == messages.MilestoneDeploy || m == messages.MilestoneDeployOA
}

// judgeReported judges what an executor has told of its failure. An executor of the former release sends the log behind
// the first line of its message.
func (s *Engine) judgeReported(ctx context.Context, tx *sqlx.Tx, x orderChain, r messages.Result) (failure, error) {
	message, log := r.Message, r.Log
	if log == "" {
		message, log, _ = strings.Cut(r.Message, "\n")
	}
	facts := s.factsOf(blame.Reported, x)
	facts.Cause, facts.Reason, facts.Told = upgrade.Cause(r.Cause), blame.Reason(r.Reason), message
	facts.Touch.Told, facts.Touch.Undone = r.Touched, r.Undone
	var err error
	if facts.ProvenBefore, err = provenBefore(ctx, tx, x.upgrade); err != nil {
		return failure{}, err
	}
	if facts.DatabaseRestarted, err = databaseRestarted(ctx, tx, x.order); err != nil {
		return failure{}, err
	}
	f := judge(facts)
	f.Log = log
	return f, nil
}

// touchedBy tells whether a deploy that was completed has changed an instance.
func touchedBy(r messages.Result) bool {
	return blame.Touched(blame.Facts{Failure: blame.None, Touch: blame.Touch{Told: r.Touched}})
}

// judgeDeadline judges an upgrade whose time is over: the version did not prove itself, nobody took the order, or who
// took it went silent.
func (s *Engine) judgeDeadline(ctx context.Context, tx *sqlx.Tx, row *upgradeRow) (failure, error) {
	facts := s.factsOf(blame.Silent, orderChain{upgrade: row})
	var err error
	if facts.Touch.Claimed, err = everClaimed(ctx, tx, row); err != nil {
		return failure{}, err
	}
	if row.Step == upgrade.StepVerify {
		return s.judgeUnproven(ctx, tx, row, facts)
	}
	err = tx.GetContext(ctx, &facts.Unclaimed, `SELECT EXISTS (SELECT 1 FROM orders o
		JOIN workflows w ON w.id = o.workflow_id
		WHERE w.upgrade_id = $1 AND w.phase = $2 AND w.restoring = $3 AND o.state = 'open'
		AND o.token = 0)`, string(row.ID), row.Phase, row.restoring())
	if err != nil {
		return failure{}, fmt.Errorf("look for unclaimed orders of upgrade %s: %w", row.ID, err)
	}
	return judge(facts), nil
}

// judgeUnproven judges an upgrade whose proof did not come in time.
func (s *Engine) judgeUnproven(ctx context.Context, tx *sqlx.Tx, row *upgradeRow, facts blame.Facts) (failure, error) {
	proof, err := s.judgeProof(ctx, tx, row)
	if err != nil {
		return failure{}, err
	}
	facts.Failure, facts.Proof = blame.Unproven, proof.String()
	facts.ProofHolds, facts.Disputed = proof.OK(), proof.Reason == upgrade.ProofDisputed
	if facts.ProvenBefore, err = provenBefore(ctx, tx, row); err != nil {
		return failure{}, err
	}
	return judge(facts), nil
}

// everClaimed tells whether an executor has claimed a deploy order of the current phase. The orders stay locked: a
// claim that is under way is waited for, a later one finds them as the caller leaves them.
func everClaimed(ctx context.Context, tx *sqlx.Tx, row *upgradeRow) (bool, error) {
	var tokens []int64
	err := tx.SelectContext(ctx, &tokens, `SELECT o.token FROM orders o JOIN workflows w ON w.id = o.workflow_id
		WHERE w.upgrade_id = $1 AND w.phase = $2 AND w.restoring = $3 AND o.milestone IN ('deploy', 'deploy_oa')
		FOR UPDATE OF o`,
		string(row.ID), row.Phase, row.restoring())
	if err != nil {
		return false, fmt.Errorf("look for claimed orders of upgrade %s: %w", row.ID, err)
	}
	return slices.ContainsFunc(tokens, func(token int64) bool { return token > 0 }), nil
}

// databaseRestarted tells whether the database was started after an order was made. An order that was completed does
// not count: manager-api was ready then.
func databaseRestarted(ctx context.Context, tx *sqlx.Tx, o *orderRow) (restarted bool, err error) {
	if o.State == orderCompleted {
		return false, nil
	}
	err = tx.GetContext(ctx, &restarted, `SELECT pg_postmaster_start_time() > created_at FROM orders WHERE id = $1`, o.ID)
	if err != nil {
		return false, fmt.Errorf("ask when the database was started: %w", err)
	}
	return restarted, nil
}

// provenBefore reads the facts for release.ProvenBefore: what the current phase deploys, and the releases of that phase
// that were proven.
func provenBefore(ctx context.Context, tx *sqlx.Tx, row *upgradeRow) (bool, error) {
	if row == nil || row.StartedAt == nil {
		return false, nil
	}
	w, err := workflowAt(ctx, tx, position{row.ID, row.Phase, row.restoring()})
	if err != nil || w == nil || w.ReleaseID == nil {
		return false, err
	}
	deployed, err := releaseByID(ctx, tx, *w.ReleaseID)
	if err != nil {
		return false, err
	}
	var rows []struct {
		upgrade.Version
		StoredAt time.Time `db:"inserted_at"`
	}
	err = tx.SelectContext(ctx, &rows, `SELECT source_repo, source_repo_git_ref, source_commit_hash,
			deployment_commit_hash, inserted_at
		FROM releases WHERE component_id = $1 AND phase = $2 AND proven_at IS NOT NULL`, row.ComponentID, deployed.Phase)
	if err != nil {
		return false, fmt.Errorf("read proven releases of component %d: %w", row.ComponentID, err)
	}
	proven := make([]release.Proven, len(rows))
	for i, r := range rows {
		proven[i] = release.Proven{Version: r.Version, StoredAt: r.StoredAt}
	}
	return release.ProvenBefore(deployed.version(), *row.StartedAt, proven), nil
}
