package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

type quarantineRow struct {
	ID               string               `db:"id"`
	ExchangeID       component.ExchangeID `db:"messaging_exchange_id"`
	ComponentType    component.Type       `db:"component_type"`
	SourceRepo       string               `db:"source_repo"`
	SourceRepoGitRef string               `db:"source_repo_git_ref"`
	SourceCommit     string               `db:"source_commit_hash"`     // that is refused; '' is any
	DeploymentCommit string               `db:"deployment_commit_hash"` // that is refused; '' is any
	UpgradeID        *upgrade.ID          `db:"upgrade_id"`
	Reason           string               `db:"reason"`
	Message          string               `db:"message"`
	CreatedAt        time.Time            `db:"created_at"`
	ExpiresAt        *time.Time           `db:"expires_at"`
}

const quarantineColumns = `id, messaging_exchange_id, component_type, source_repo, source_repo_git_ref,
	source_commit_hash, deployment_commit_hash, upgrade_id, reason, message, created_at, expires_at`

func (q quarantineRow) wire() managerapi.Quarantine {
	out := managerapi.Quarantine{ID: q.ID, ExchangeID: q.ExchangeID, ComponentType: q.ComponentType,
		SourceRepo:       q.SourceRepo,
		SourceRepoGitRef: q.SourceRepoGitRef, SourceCommitHash: q.SourceCommit,
		DeploymentCommitHash: q.DeploymentCommit, Reason: q.Reason, Message: q.Message, CreatedAt: q.CreatedAt.UTC(),
		ExpiresAt: db.UTC(q.ExpiresAt)}
	if q.UpgradeID != nil {
		out.UpgradeID = *q.UpgradeID
	}
	return out
}

// quarantineTarget refuses the upgrade's target in its exchange from now on, until an operator clears it or it expires.
// The quarantine binds the two commits that failed: another commit on either side is tried again. A ref has one
// quarantine: a new failure binds its own commits, for the new reason and for the full time. (The former release
// arbitrates by the ref alone, so there cannot be a row for each pair of commits yet.)
func (s *Engine) quarantineTarget(ctx context.Context, tx *sqlx.Tx, row *upgradeRow) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO quarantines (id, messaging_exchange_id, component_type, source_repo,
		source_repo_git_ref, upgrade_id, reason, message, expires_at, source_commit_hash, deployment_commit_hash)
		VALUES (new_id(), $1, $2, $3, $4, $5, $6, $7,
			CASE WHEN $8 > 0 THEN now() + $8 * interval '1 millisecond' END, $9, $10)
		ON CONFLICT ON CONSTRAINT quarantines_target_key DO UPDATE SET
			source_commit_hash = excluded.source_commit_hash, deployment_commit_hash = excluded.deployment_commit_hash,
			upgrade_id = excluded.upgrade_id, reason = excluded.reason, message = excluded.message,
			created_at = excluded.created_at, expires_at = excluded.expires_at`,
		row.ExchangeID, string(row.ComponentType), row.To.SourceRepo, row.To.SourceRepoGitRef, string(row.ID),
		row.VerdictCode,
		row.VerdictMessage, s.times.QuarantineExpiry.Milliseconds(), row.To.SourceCommitHash, row.To.DeploymentCommitHash)
	if err != nil {
		return fmt.Errorf("quarantine %s: %w", row.To.SourceRepoGitRef, err)
	}
	return db.WriteJournal(ctx, tx, db.Entry{Subject: db.ExchangeSubject(row.ExchangeID), Code: "quarantined",
		Message: fmt.Sprintf("%s %s is refused from now on: %s", row.ComponentType, row.To.SourceRepoGitRef,
			row.VerdictMessage),
		Inputs: map[string]any{"upgrade_id": row.ID}})
}

// endQuarantine ends the quarantine of the upgrade's target, if there is one: it was tried by force, and is proven. A
// quarantine of other commits stays: they have failed.
func endQuarantine(ctx context.Context, tx *sqlx.Tx, row *upgradeRow) error {
	var rows []quarantineRow
	err := tx.SelectContext(ctx, &rows, `SELECT `+quarantineColumns+` FROM quarantines
		WHERE messaging_exchange_id = $1 AND component_type = $2 AND source_repo = $3 AND source_repo_git_ref = $4
		FOR UPDATE`, row.ExchangeID, string(row.ComponentType), row.To.SourceRepo, row.To.SourceRepoGitRef)
	if err != nil {
		return fmt.Errorf("read quarantine of %s: %w", row.To.SourceRepoGitRef, err)
	}
	for _, q := range rows {
		if !q.wire().Version().Same(row.To) {
			continue
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM quarantines WHERE id = $1`, q.ID); err != nil {
			return fmt.Errorf("end quarantine of %s: %w", row.To.SourceRepoGitRef, err)
		}
		if err := q.lifted(ctx, tx, "quarantine_disproven", "is proven and not refused any more", q.wire()); err != nil {
			return err
		}
	}
	return nil
}

// lifted journals the end of a quarantine.
func (q quarantineRow) lifted(ctx context.Context, tx *sqlx.Tx, code, what string, inputs any) error {
	return db.WriteJournal(ctx, tx, db.Entry{Subject: db.ExchangeSubject(q.ExchangeID), Code: code,
		Message: fmt.Sprintf("%s %s %s", q.ComponentType, q.SourceRepoGitRef, what), Inputs: inputs})
}

// Quarantines lists what is refused, newest first; 0 is every exchange.
func (s *Engine) Quarantines(ctx context.Context, ex component.ExchangeID, before string,
	limit int) ([]managerapi.Quarantine, error) {
	out := []managerapi.Quarantine{}
	err := s.db.View(ctx, func(tx *sqlx.Tx) error {
		var rows []quarantineRow
		out = out[:0]
		err := tx.SelectContext(ctx, &rows, `SELECT `+quarantineColumns+` FROM quarantines
			WHERE ($1 = 0 OR messaging_exchange_id = $1) AND id < $2
			AND (expires_at IS NULL OR expires_at > now()) ORDER BY id DESC LIMIT $3`, ex, db.OlderThan(before), limit)
		for _, r := range rows {
			out = append(out, r.wire())
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list quarantines: %w", err)
	}
	return out, nil
}

const mayTry = "may be tried again"

// ClearQuarantine lets a version be tried again; 0 is any exchange.
func (s *Engine) ClearQuarantine(ctx context.Context, id string, ex component.ExchangeID) error {
	return s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		var q quarantineRow
		err := tx.GetContext(ctx, &q, `DELETE FROM quarantines WHERE id = $1 AND ($2 = 0 OR messaging_exchange_id = $2)
			RETURNING `+quarantineColumns, db.ParseID(id), ex)
		if err != nil {
			return db.NotFound(err, "there is no quarantine %s", id)
		}
		if err := q.lifted(ctx, tx, "quarantine_cleared", mayTry, q.wire()); err != nil {
			return err
		}
		return db.RingOverseer(ctx, tx, q.ExchangeID, 0, "")
	})
}

// expireQuarantines removes the quarantines whose time is over.
func expireQuarantines(ctx context.Context, tx *sqlx.Tx) error {
	var rows []quarantineRow
	if err := tx.SelectContext(ctx, &rows, `DELETE FROM quarantines WHERE expires_at <= now()
		RETURNING `+quarantineColumns); err != nil {
		return fmt.Errorf("expire quarantines: %w", err)
	}
	for _, q := range rows {
		if err := q.lifted(ctx, tx, "quarantine_expired", mayTry, nil); err != nil {
			return err
		}
	}
	return nil
}
