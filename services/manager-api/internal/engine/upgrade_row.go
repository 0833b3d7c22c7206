package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// running and open are the states of the two partial unique indexes.
const (
	RunningStates = `('in_progress', 'verifying', 'rolling_back')`
	OpenStates    = `('requested', 'in_progress', 'verifying', 'rolling_back')`
)

// upgradeRow is one row of upgrades.
type upgradeRow struct {
	ID             upgrade.ID           `db:"id"`
	ComponentID    component.ID         `db:"component_id"`
	ComponentType  component.Type       `db:"component_type"`
	ExchangeID     component.ExchangeID `db:"messaging_exchange_id"`
	Proof          component.ProofKind  `db:"proof"`
	Trigger        upgrade.Trigger      `db:"trigger"`
	RequestedBy    string               `db:"requested_by"`
	Reason         string               `db:"reason"`
	Force          bool                 `db:"force"`
	ReleaseID      *string              `db:"release_id"`
	State          upgrade.State        `db:"state"`
	Phase          int                  `db:"phase"`
	Step           upgrade.Step         `db:"step"`
	VerdictCode    string               `db:"verdict_code"`
	VerdictMessage string               `db:"verdict_message"`
	Cause          sql.NullString       `db:"cause"`
	Touched        bool                 `db:"touched"`
	From           upgrade.Version      `db:"from"`
	To             upgrade.Version      `db:"to"`
	ClockLeft      int64                `db:"clock_left"`
	ClockStalled   int64                `db:"clock_stalled"`
	ClockTickedAt  *time.Time           `db:"clock_ticked_at"`
	CreatedAt      time.Time            `db:"created_at"`
	StartedAt      *time.Time           `db:"started_at"`
	FinishedAt     *time.Time           `db:"finished_at"`
}

const upgradeColumns = `id, component_id, component_type, messaging_exchange_id, proof, trigger, requested_by, reason,
	force, release_id,
	state, phase, step, verdict_code, verdict_message, cause, touched,
	from_source_repo AS "from.source_repo", from_source_repo_git_ref AS "from.source_repo_git_ref",
	from_source_commit_hash AS "from.source_commit_hash", from_deployment_commit_hash AS "from.deployment_commit_hash",
	to_source_repo AS "to.source_repo", to_source_repo_git_ref AS "to.source_repo_git_ref",
	to_source_commit_hash AS "to.source_commit_hash", to_deployment_commit_hash AS "to.deployment_commit_hash",
	clock_left, clock_stalled, clock_ticked_at, created_at, started_at, finished_at`

// lockUpgrade reads an upgrade and keeps it until the transaction ends.
func lockUpgrade(ctx context.Context, tx *sqlx.Tx, id upgrade.ID) (*upgradeRow, error) {
	row, err := oneUpgrade(ctx, tx, `SELECT `+upgradeColumns+` FROM upgrades WHERE id = $1 FOR UPDATE`, id)
	if err != nil {
		return nil, err
	}
	return row, row.requireKnown()
}

// requireKnown refuses to move an upgrade whose state, step or phase is of a newer manager-api beside this one: nobody
// here knows what comes next. Unavailable: the newer one moves the upgrade, and what was to move it is tried again.
func (r *upgradeRow) requireKnown() error {
	unknown := ""
	switch {
	case !slices.Contains(upgrade.States, r.State):
		unknown = "state " + string(r.State)
	case !slices.Contains(upgrade.Steps, r.Step):
		unknown = "step " + string(r.Step)
	case r.Phase < 0 || r.Phase > len(upgrade.PhasesOf(r.ComponentType)):
		unknown = fmt.Sprintf("phase %d", r.Phase)
	default:
		return nil
	}
	return fault.New(fault.Unavailable, "%s of upgrade %s is not known to this manager-api: it is left to a newer one",
		unknown, r.ID)
}

func readUpgrade(ctx context.Context, tx *sqlx.Tx, id upgrade.ID) (*upgradeRow, error) {
	return oneUpgrade(ctx, tx, `SELECT `+upgradeColumns+` FROM upgrades WHERE id = $1`, id)
}

func oneUpgrade(ctx context.Context, tx *sqlx.Tx, query string, id upgrade.ID) (*upgradeRow, error) {
	var row upgradeRow
	err := tx.GetContext(ctx, &row, query, string(id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.New(fault.NotFound, "there is no upgrade %s", id)
	}
	if err != nil {
		return nil, fmt.Errorf("read upgrade %s: %w", id, err)
	}
	return &row, nil
}

// openUpgrade is the component's open upgrade, nil without one.
func openUpgrade(ctx context.Context, tx *sqlx.Tx, id component.ID) (*upgradeRow, error) {
	var row upgradeRow
	err := tx.GetContext(ctx, &row, `SELECT `+upgradeColumns+` FROM upgrades WHERE component_id = $1
		AND state IN `+OpenStates+` FOR UPDATE`, id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read open upgrade of component %d: %w", id, err)
	}
	return &row, nil
}

// domain is the row as the table of pkg/upgrade sees it. Proven says that every phase that a rollback would have to
// undo has a proven release.
func (r *upgradeRow) domain(ctx context.Context, tx *sqlx.Tx) (upgrade.Upgrade, error) {
	phase := max(r.Phase, 1)
	var proven, before int
	err := tx.QueryRowxContext(ctx, `SELECT count(DISTINCT phase), count(DISTINCT phase) FILTER (WHERE phase < $2)
		FROM releases WHERE component_id = $1 AND proven_at IS NOT NULL AND phase BETWEEN 1 AND $2`, r.ComponentID, phase).
		Scan(&proven, &before)
	if err != nil {
		return upgrade.Upgrade{}, fmt.Errorf("count proven releases of component %d: %w", r.ComponentID, err)
	}
	return upgrade.Upgrade{ID: r.ID, Type: r.ComponentType, Proof: r.Proof, Trigger: r.Trigger, State: r.State,
		Phase: r.Phase, Step: r.Step,
		Cause: upgrade.Cause(r.Cause.String), Reason: r.VerdictCode, Message: r.VerdictMessage, Touched: r.Touched,
		Proven: proven == phase, ProvenBefore: before == phase-1, From: r.From, To: r.To}, nil
}

// take copies what the table moved.
func (r *upgradeRow) take(u upgrade.Upgrade) {
	r.State, r.Phase, r.Step, r.Touched = u.State, u.Phase, u.Step, u.Touched
	r.VerdictCode, r.VerdictMessage = u.Reason, u.Message
	r.Cause = sql.NullString{String: string(u.Cause), Valid: u.Cause != ""}
}

// save writes what a move can change. The instants follow from the state: started when it first runs, finished when it
// ends.
func (r *upgradeRow) save(ctx context.Context, tx *sqlx.Tx) error {
	err := tx.QueryRowxContext(ctx, `UPDATE upgrades SET state = $2, phase = $3, step = $4, verdict_code = $5,
		verdict_message = $6, cause = $7, touched = $8,
			from_source_repo = $9, from_source_repo_git_ref = $10, to_source_repo = $11, to_source_repo_git_ref = $12,
			proof = $13, from_source_commit_hash = $14, from_deployment_commit_hash = $15, to_source_commit_hash = $16,
			to_deployment_commit_hash = $17,
			started_at = CASE WHEN $2 IN `+RunningStates+` THEN coalesce(started_at, now()) ELSE started_at END,
			finished_at = CASE WHEN $2 IN `+OpenStates+` THEN NULL ELSE now() END
		WHERE id = $1 RETURNING started_at, finished_at`,
		string(r.ID), string(r.State), r.Phase, string(r.Step), r.VerdictCode, r.VerdictMessage, r.Cause, r.Touched,
		r.From.SourceRepo, r.From.SourceRepoGitRef, r.To.SourceRepo, r.To.SourceRepoGitRef, string(r.Proof),
		r.From.SourceCommitHash, r.From.DeploymentCommitHash, r.To.SourceCommitHash,
		r.To.DeploymentCommitHash).Scan(&r.StartedAt, &r.FinishedAt)
	if err != nil {
		return fmt.Errorf("save upgrade %s: %w", r.ID, err)
	}
	return nil
}

// saveClock writes the clock; ticked at the database's now.
func (r *upgradeRow) saveClock(ctx context.Context, tx *sqlx.Tx, c upgrade.Clock) error {
	r.ClockLeft, r.ClockStalled = c.Left.Milliseconds(), c.Stalled.Milliseconds()
	err := tx.GetContext(ctx, &r.ClockTickedAt, `UPDATE upgrades SET clock_left = $2, clock_stalled = $3,
		clock_ticked_at = now() WHERE id = $1 RETURNING clock_ticked_at`,
		string(r.ID), r.ClockLeft, r.ClockStalled)
	if err != nil {
		return fmt.Errorf("save clock of upgrade %s: %w", r.ID, err)
	}
	return nil
}

func (r *upgradeRow) clock() upgrade.Clock {
	c := upgrade.Clock{Left: time.Duration(r.ClockLeft) * time.Millisecond,
		Stalled: time.Duration(r.ClockStalled) * time.Millisecond}
	if r.ClockTickedAt != nil {
		c.TickedAt = *r.ClockTickedAt
	}
	return c
}

func (r *upgradeRow) subject() string { return "upgrade/" + string(r.ID) }

func (r *upgradeRow) restoring() bool { return r.State == upgrade.RollingBack }

// wire is the upgrade as the API shows it (docs/rest.md#upgrades).
func (r *upgradeRow) wire(workflowIDs []string) managerapi.Upgrade {
	u := managerapi.Upgrade{ID: r.ID, ComponentID: r.ComponentID, ComponentType: r.ComponentType, ExchangeID: r.ExchangeID,
		Trigger:     r.Trigger,
		RequestedBy: r.RequestedBy, Reason: r.Reason, Force: r.Force, State: r.State, Phase: r.Phase, Step: r.Step,
		Verdict: managerapi.Verdict{Code: r.VerdictCode, Message: r.VerdictMessage}, From: r.From, To: r.To,
		Cause: upgrade.Cause(r.Cause.String), WorkflowIDs: workflowIDs, CreatedAt: r.CreatedAt.UTC(),
		StartedAt: db.UTC(r.StartedAt), FinishedAt: db.UTC(r.FinishedAt)}
	if workflowIDs == nil {
		u.WorkflowIDs = []string{}
	}
	if r.State.Running() && r.ClockTickedAt != nil {
		at := r.ClockTickedAt.Add(time.Duration(r.ClockLeft) * time.Millisecond).UTC()
		u.DeadlineAt = &at
	}
	return u
}
