package registry

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// RefRow is a SystemComponentRef: the gold standard of one type.
type RefRow struct {
	ID int64 `json:"id" db:"id"`
	component.Ref
	InsertedAt db.Stamp `json:"inserted_at" db:"inserted_at"`
	UpdatedAt  db.Stamp `json:"updated_at" db:"updated_at"`
}

const refColumns = `id, type, source_repo, source_repo_git_ref, auto_upgrade_enabled, follow, inserted_at,
	updated_at`

// EachRef lists the refs by id.
func (s *Registry) EachRef(ctx context.Context, p db.Part, fn func(RefRow) error) error {
	return db.Each(ctx, s.db.Pool, p.Limit, func(r RefRow) int64 { return r.ID }, fn,
		`SELECT `+refColumns+` FROM system_component_refs`)
}

// Ref reads the ref of a type.
func (s *Registry) Ref(ctx context.Context, t component.Type) (RefRow, error) {
	row, err := db.One[RefRow](ctx, s.db.Pool, `SELECT `+refColumns+` FROM system_component_refs WHERE type = $1`, t)
	if err != nil {
		return row, fmt.Errorf("read ref %q: %w", t, err)
	}
	return row, nil
}

// CreateRef stores a new ref. Conflict: the type has one.
func (s *Registry) CreateRef(ctx context.Context, ref component.Ref) error {
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO system_component_refs (type, source_repo, source_repo_git_ref,
			auto_upgrade_enabled, follow)
			VALUES ($1, $2, $3, $4, $5)`, ref.Type, ref.SourceRepo, ref.SourceRepoGitRef, ref.AutoUpgradeEnabled, ref.Follow)
		if err != nil {
			return err
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: "ref/" + string(ref.Type), Code: "ref_created", Inputs: ref})
	})
	if err != nil {
		return fmt.Errorf("create ref %q: %w", ref.Type, err)
	}
	return nil
}

// UpdateRef replaces the ref of its type; updated_at moves only if something changed.
func (s *Registry) UpdateRef(ctx context.Context, ref component.Ref, guard db.Guard[RefRow]) error {
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		old, err := lockRef(ctx, tx, ref.Type, guard)
		if err != nil || old.Equal(ref) {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE system_component_refs SET source_repo = $2, source_repo_git_ref = $3,
			auto_upgrade_enabled = $4, follow = $5, updated_at = now() WHERE id = $1`, old.ID, ref.SourceRepo,
			ref.SourceRepoGitRef, ref.AutoUpgradeEnabled, ref.Follow)
		if err != nil {
			return err
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: "ref/" + string(ref.Type), Code: "ref_changed",
			Inputs: db.Change{Before: old.Ref, After: ref}})
	})
	if err != nil {
		return fmt.Errorf("update ref %q: %w", ref.Type, err)
	}
	return nil
}

// DeleteRef removes the ref of a type; its components stay and are ineligible.
func (s *Registry) DeleteRef(ctx context.Context, t component.Type, guard db.Guard[RefRow]) error {
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		old, err := lockRef(ctx, tx, t, guard)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM system_component_refs WHERE id = $1`, old.ID); err != nil {
			return err
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: "ref/" + string(t), Code: "ref_deleted", Inputs: old.Ref})
	})
	if err != nil {
		return fmt.Errorf("delete ref %q: %w", t, err)
	}
	return nil
}

func lockRef(ctx context.Context, tx *sqlx.Tx, t component.Type, guard db.Guard[RefRow]) (RefRow, error) {
	row, err := db.One[RefRow](ctx, tx, `SELECT `+refColumns+` FROM system_component_refs WHERE type = $1 FOR UPDATE`, t)
	if err != nil {
		return row, err
	}
	return row, guard.Check(row)
}
