package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// ComponentView is a SystemComponent with its status. What an operator states is Spec; the rest is the server's.
type ComponentView struct {
	ID component.ID `json:"id" db:"id"`
	ComponentSpec
	SourceRepo       string `json:"source_repo" db:"source_repo"`
	SourceRepoGitRef string `json:"source_repo_git_ref" db:"source_repo_git_ref"`
	// The commits of the recorded version, "" where nobody knows them.
	SourceCommitHash     string    `json:"source_commit_hash" db:"source_commit_hash"`
	DeploymentCommitHash string    `json:"deployment_commit_hash" db:"deployment_commit_hash"`
	Status               *string   `json:"status" db:"status"`
	UpgradeStatus        db.JSON   `json:"upgrade_status" db:"upgrade_status"`
	NextCheckAt          *db.Stamp `json:"next_check_at" db:"next_check_at"`
	LastCheckAt          *db.Stamp `json:"-" db:"last_check_at"`
	LastVerdict          string    `json:"-" db:"last_verdict"`
	LastMessage          string    `json:"-" db:"last_verdict_message"`
	InsertedAt           db.Stamp  `json:"inserted_at" db:"inserted_at"`
	UpdatedAt            db.Stamp  `json:"updated_at" db:"updated_at"`
}

// ComponentSpec is what an operator states about a component.
type ComponentSpec struct {
	ExchangeID           component.ExchangeID `json:"messaging_exchange_id" db:"messaging_exchange_id"`
	Type                 component.Type       `json:"type" db:"type"`
	DeploymentRepo       string               `json:"deployment_repo" db:"deployment_repo"`
	DeploymentRepoGitRef string               `json:"deployment_repo_git_ref" db:"deployment_repo_git_ref"`
	Strategy             component.Strategy   `json:"upgrade_strategy" db:"upgrade_strategy"`
	Proof                component.ProofKind  `json:"proof" db:"proof"`
	FollowDeployment     bool                 `json:"follow_deployment" db:"follow_deployment"`
}

// lastCheck is the last automatic check as the API shows it.
type lastCheck struct {
	At      db.Stamp `json:"at"`
	Verdict struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"verdict"`
}

// MarshalJSON shows the row with its last check, which is null before the first one.
func (c ComponentView) MarshalJSON() ([]byte, error) {
	type plain ComponentView
	shown := struct {
		plain
		LastCheck *lastCheck `json:"last_check"`
	}{plain: plain(c)}
	if c.LastCheckAt != nil {
		shown.LastCheck = &lastCheck{At: *c.LastCheckAt}
		shown.LastCheck.Verdict.Code, shown.LastCheck.Verdict.Message = c.LastVerdict, c.LastMessage
	}
	return json.Marshal(shown)
}

// selectComponents selects the components c.
const selectComponents = `SELECT c.id, c.messaging_exchange_id, c.type, c.source_repo, c.source_repo_git_ref,
		recorded.source_commit_hash, recorded.deployment_commit_hash, c.deployment_repo, c.deployment_repo_git_ref,
		c.follow_deployment, c.upgrade_strategy, c.proof, c.status, c.upgrade_status, c.next_check_at, c.last_check_at,
		c.last_verdict, c.last_verdict_message, c.inserted_at, c.updated_at
	FROM system_components c CROSS JOIN ` + db.RecordedCommits + ` `

// EachComponent lists components by id, of one type unless that is nil.
func (s *Registry) EachComponent(ctx context.Context, p db.Part, t *component.Type,
	fn func(ComponentView) error) error {
	return db.Each(ctx, s.db.Pool, p.Limit, func(r ComponentView) int64 { return int64(r.ID) }, fn,
		selectComponents+`WHERE ($1 = 0 OR messaging_exchange_id = $1) AND ($2::text IS NULL OR type = $2)`, p.Exchange, t)
}

// Component reads one component.
func (s *Registry) Component(ctx context.Context, id component.ID) (ComponentView, error) {
	row, err := db.One[ComponentView](ctx, s.db.Pool, selectComponents+`WHERE c.id = $1`, id)
	if err != nil {
		return row, fmt.Errorf("read component %d: %w", id, err)
	}
	return row, nil
}

// Adoption is the version that an operator states when a component is created: what runs already.
type Adoption struct {
	SourceRepo       string `json:"source_repo"`
	SourceRepoGitRef string `json:"source_repo_git_ref"`
}

// CreateComponent stores a component with what runs already, if that is known. Conflict: the exchange has one of this
// type. Invalid: the exchange does not exist.
func (s *Registry) CreateComponent(ctx context.Context, spec ComponentSpec, runs Adoption) (component.ID, error) {
	var id component.ID
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &id, `INSERT INTO system_components (messaging_exchange_id, type, source_repo,
			source_repo_git_ref,
			deployment_repo, deployment_repo_git_ref, upgrade_strategy, proof, follow_deployment)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
			RETURNING id`,
			spec.ExchangeID, spec.Type, runs.SourceRepo, runs.SourceRepoGitRef, spec.DeploymentRepo, spec.DeploymentRepoGitRef,
			spec.Strategy, spec.Proof, spec.FollowDeployment)
		if err != nil {
			return db.UnknownExchange(err)
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: componentSubject(id), Code: "component_created", Inputs: struct {
			ComponentSpec
			Adoption
		}{spec, runs}})
	})
	if err != nil {
		return 0, fmt.Errorf("create component %q: %w", spec.Type, err)
	}
	return id, nil
}

func componentSubject(id component.ID) string { return "component/" + strconv.FormatInt(int64(id), 10) }

// UpdateComponent replaces what an operator states; the recorded version, status and upgrade_status stay. A change of
// type or exchange waits until no upgrade is open, and forgets them: nothing was proven there.
func (s *Registry) UpdateComponent(ctx context.Context, id component.ID, spec ComponentSpec,
	guard db.Guard[ComponentView]) error {
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		old, err := lockComponentRow(ctx, tx, id, guard)
		if err != nil || old.ComponentSpec == spec {
			return err
		}
		if old.Type != spec.Type || old.ExchangeID != spec.ExchangeID {
			if err := noOpenUpgrade(ctx, tx, id); err != nil {
				return err
			}
			if err := forgetVersion(ctx, tx, id); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, `UPDATE system_components SET messaging_exchange_id = $2, type = $3,
			deployment_repo = $4,
			deployment_repo_git_ref = $5, upgrade_strategy = $6, proof = $7, follow_deployment = $8, updated_at = now(),
			next_check_at = CASE WHEN upgrade_strategy = $6 THEN next_check_at END WHERE id = $1`,
			id, spec.ExchangeID, spec.Type, spec.DeploymentRepo, spec.DeploymentRepoGitRef, spec.Strategy, spec.Proof,
			spec.FollowDeployment)
		if err != nil {
			return db.UnknownExchange(err)
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: componentSubject(id), Code: "component_changed",
			Inputs: db.Change{Before: old.ComponentSpec, After: spec}})
	})
	if err != nil {
		return fmt.Errorf("update component %d: %w", id, err)
	}
	return nil
}

// forgetVersion makes a component one that was never checked nor upgraded. Its releases go, as those of a component
// that is deleted. Otherwise stale units would stop other components from removing units of the same name.
func forgetVersion(ctx context.Context, tx *sqlx.Tx, id component.ID) error {
	for _, statement := range []string{
		`UPDATE system_components SET source_repo = '', source_repo_git_ref = '', status = NULL, upgrade_status = NULL,
		next_check_at = NULL,
			last_check_at = NULL, last_verdict = '', last_verdict_message = '' WHERE id = $1`,
		`DELETE FROM releases WHERE component_id = $1`,
	} {
		if _, err := tx.ExecContext(ctx, statement, id); err != nil {
			return err
		}
	}
	return nil
}

// DeleteComponent removes a component without open upgrade; the journal keeps its history.
func (s *Registry) DeleteComponent(ctx context.Context, id component.ID, guard db.Guard[ComponentView]) error {
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		old, err := lockComponentRow(ctx, tx, id, guard)
		if err != nil {
			return err
		}
		if err := noOpenUpgrade(ctx, tx, id); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM system_components WHERE id = $1`, id); err != nil {
			return err
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: componentSubject(id), Code: "component_deleted",
			Inputs: old.ComponentSpec})
	})
	if err != nil {
		return fmt.Errorf("delete component %d: %w", id, err)
	}
	return nil
}

func lockComponentRow(ctx context.Context, tx *sqlx.Tx, id component.ID,
	guard db.Guard[ComponentView]) (ComponentView, error) {
	row, err := db.One[ComponentView](ctx, tx, selectComponents+`WHERE c.id = $1 FOR UPDATE OF c`,
		id)
	if err != nil {
		return row, err
	}
	return row, guard.Check(row)
}

// noOpenUpgrade is InUse while an upgrade of the component is open. The component's row is locked: a new upgrade, which
// refers to it, waits.
func noOpenUpgrade(ctx context.Context, tx *sqlx.Tx, id component.ID) error {
	return db.FindUses(ctx, tx, fmt.Sprintf("SystemComponent %d", id),
		`SELECT 'upgrade' AS kind, id::text AS id, state AS name FROM upgrades
		WHERE component_id = $1 AND state IN ('requested', 'in_progress', 'verifying', 'rolling_back')`, id)
}
