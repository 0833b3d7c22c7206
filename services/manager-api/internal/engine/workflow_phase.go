package engine

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/upgrade"

	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// beginPhase makes the forward workflow of a phase and sends its first order: [config, deploy] on the component's
// repository, or the deploy of a stored release where the upgrade is an operator's rollback or a repair.
func (s *Engine) beginPhase(ctx context.Context, tx *sqlx.Tx, row *upgradeRow, number int) (*failure, error) {
	phase := upgrade.PhasesOf(row.ComponentType)[number-1]
	if row.Trigger == upgrade.TriggerRollback {
		r, err := s.storedRelease(ctx, tx, row, number)
		if err != nil {
			return nil, err
		}
		return s.deployRelease(ctx, tx, row, r, position{row.ID, number, false})
	}
	stored, err := repairRelease(ctx, tx, row, number)
	if err != nil {
		return nil, err
	}
	if stored != nil {
		return s.deployRelease(ctx, tx, row, stored, position{row.ID, number, false})
	}
	repo, ref, err := deploymentOf(ctx, tx, row)
	if err != nil {
		return nil, err
	}
	w := &workflowRow{DeploymentRepo: phase.DeploymentRepo(repo), DeploymentRepoGitRef: ref, SourceRepo: row.To.SourceRepo,
		SourceRepoGitRef: row.To.SourceRepoGitRef,
		Phase:            number, Executor: phase.Milestone}
	return s.beginWorkflow(ctx, tx, row, w, messages.MilestoneConfig, messages.Milestone(phase.Milestone))
}

// repairRelease is the stored release that a repair deploys in a phase, nil if the upgrade is no repair. A repair
// brings back the proven release of the recorded version, without git: it never brings a moved tag, or another commit
// of the deployment repository. A version that was only stated to run has no release: its repair renders one.
func repairRelease(ctx context.Context, tx *sqlx.Tx, row *upgradeRow, number int) (*releaseRow, error) {
	if !upgrade.Repairs(row.From, row.To, row.Trigger, row.Force) {
		return nil, nil
	}
	var wanted *releaseRow
	for i := range upgrade.PhasesOf(row.ComponentType) {
		r, err := oneRelease(ctx, tx, `WHERE component_id = $1 AND phase = $2 AND proven_at IS NOT NULL
			AND source_repo = $3 AND source_repo_git_ref = $4 ORDER BY `+db.LastProven+` LIMIT 1`, row.ComponentID, i+1,
			row.From.SourceRepo, row.From.SourceRepoGitRef)
		if fault.Is(err, fault.NotFound) {
			return nil, nil // all phases or none: a version is no mixture
		}
		if err != nil {
			return nil, err
		}
		if i+1 == number {
			wanted = r
		}
	}
	return wanted, nil
}

// deploymentOf is the deployment repository of an upgrade and its ref: the component's when the first phase began. A
// later change of the component is the next upgrade's, or one recorded version would be a mixture.
func deploymentOf(ctx context.Context, tx *sqlx.Tx, row *upgradeRow) (repo, ref string, err error) {
	first, err := workflowAt(ctx, tx, position{row.ID, 1, false})
	if err != nil {
		return "", "", err
	}
	if first != nil {
		return first.DeploymentRepo, first.DeploymentRepoGitRef, nil // no first phase has a suffix
	}
	err = tx.QueryRowxContext(ctx, `SELECT deployment_repo, deployment_repo_git_ref FROM system_components WHERE id = $1`,
		row.ComponentID).Scan(&repo, &ref)
	if err != nil {
		return "", "", fmt.Errorf("read deployment repository of component %d: %w", row.ComponentID, err)
	}
	return repo, ref, nil
}

// restorePhase makes the workflow that returns a phase to its proven release.
func (s *Engine) restorePhase(ctx context.Context, tx *sqlx.Tx, row *upgradeRow, number int) (*failure, error) {
	r, err := provenRelease(ctx, tx, row.ComponentID, number)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, fault.New(fault.Conflict, "phase %d of component %d has no proven release", number,
			row.ComponentID).WithCode(CodeNoRelease)
	}
	return s.deployRelease(ctx, tx, row, r, position{row.ID, number, true})
}

// deployRelease makes a workflow without config: no git, no rendering.
func (s *Engine) deployRelease(ctx context.Context, tx *sqlx.Tx, row *upgradeRow, r *releaseRow,
	p position) (*failure, error) {
	phase := upgrade.PhasesOf(row.ComponentType)[p.Phase-1]
	w := &workflowRow{DeploymentRepo: r.DeploymentRepo, DeploymentRepoGitRef: r.DeploymentRepoGitRef,
		SourceRepo:       r.SourceRepo,
		SourceRepoGitRef: r.SourceRepoGitRef, Phase: p.Phase, Restoring: p.Restoring, Executor: phase.Milestone,
		ReleaseID: &r.ID}
	return s.beginWorkflow(ctx, tx, row, w, messages.Milestone(phase.Milestone))
}

// beginWorkflow inserts a workflow of an upgrade and enters its first milestone.
func (s *Engine) beginWorkflow(ctx context.Context, tx *sqlx.Tx, row *upgradeRow, w *workflowRow,
	list ...messages.Milestone) (*failure, error) {
	text, err := db.JSONText(list)
	if err != nil {
		return nil, err
	}
	if w.ID, err = db.NewID(ctx, tx); err != nil {
		return nil, err
	}
	w.Milestones = []byte(text)
	_, err = tx.ExecContext(ctx, `INSERT INTO workflows (id, deployment_repo, deployment_repo_git_ref, source_repo,
		source_repo_git_ref, source_commit_hash,
			milestones, workflow_error, upgrade_id, messaging_exchange_id, component_type, phase, restoring, executor,
			release_id, began_at)
		VALUES ($1, $2, $3, $4, $5, (SELECT source_commit_hash FROM releases WHERE id = $13), $6, false, $7, $8, $9, $10, $11,
		$12, $13, now())`,
		w.ID, w.DeploymentRepo, w.DeploymentRepoGitRef, w.SourceRepo, w.SourceRepoGitRef, text, string(row.ID),
		row.ExchangeID,
		string(row.ComponentType), w.Phase, w.Restoring, string(w.Executor), w.ReleaseID)
	if err != nil {
		return nil, fmt.Errorf("create workflow of phase %d: %w", w.Phase, err)
	}
	if w, err = lockWorkflow(ctx, tx, w.ID); err != nil {
		return nil, err
	}
	failed, err := s.enterMilestone(ctx, tx, w, list[0])
	if err != nil || failed == nil {
		return nil, err
	}
	return failed, w.fail(ctx, tx, *failed)
}

// orderProbe orders the executor that was replaced to answer: alive is not enough, it must hear.
func (s *Engine) orderProbe(ctx context.Context, tx *sqlx.Tx, row *upgradeRow, number int) error {
	w, err := workflowAt(ctx, tx, position{row.ID, number, row.restoring()})
	if err != nil {
		return err
	}
	if w == nil {
		return fmt.Errorf("upgrade %s has no workflow in phase %d", row.ID, number)
	}
	return s.storeOrder(ctx, tx, w, queueOf(upgrade.PhasesOf(row.ComponentType)[number-1].ProbeQueue),
		s.baseOrder(w, messages.MilestoneProbe))
}
