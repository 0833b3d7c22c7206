package engine

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// recordVersion makes the target the component's recorded version and its releases the proven ones: the only writer of
// both. What is proven is in quarantine no more.
func recordVersion(ctx context.Context, tx *sqlx.Tx, row *upgradeRow) error {
	_, err := tx.ExecContext(ctx, `UPDATE releases SET proven_at = now(),
		first_proven_at = coalesce(first_proven_at, proven_at) WHERE id IN (SELECT release_id FROM workflows
		WHERE upgrade_id = $1 AND NOT restoring)`, string(row.ID))
	if err != nil {
		return fmt.Errorf("mark releases as proven: %w", err)
	}
	_, err = tx.ExecContext(ctx, `UPDATE system_components SET source_repo = $2, source_repo_git_ref = $3,
		updated_at = now() WHERE id = $1`,
		row.ComponentID, row.To.SourceRepo, row.To.SourceRepoGitRef)
	if err != nil {
		return fmt.Errorf("record version of component %d: %w", row.ComponentID, err)
	}
	return endQuarantine(ctx, tx, row)
}
