package presence

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// ModuleRow is a MessagingExchangeModule as the predecessor's family shows it; updated_at is its last beat.
type ModuleRow struct {
	ID                   int64                `json:"id" db:"id"`
	ExchangeID           component.ExchangeID `json:"messaging_exchange_id" db:"messaging_exchange_id"`
	Hostname             string               `json:"hostname" db:"hostname"`
	Type                 string               `json:"type" db:"type"`
	Status               string               `json:"status" db:"status"`
	Workload             db.JSON              `json:"workload" db:"workload"`
	SourceRepo           *string              `json:"source_repo" db:"source_repo"`
	SourceRepoGitRef     *string              `json:"source_repo_git_ref" db:"source_repo_git_ref"`
	DeploymentRepo       *string              `json:"deployment_repo" db:"deployment_repo"`
	DeploymentRepoGitRef *string              `json:"deployment_repo_git_ref" db:"deployment_repo_git_ref"`
	Service              string               `json:"service" db:"service"`
	InsertedAt           db.Stamp             `json:"inserted_at" db:"inserted_at"`
	UpdatedAt            db.Stamp             `json:"updated_at" db:"updated_at"`
	// RivalBootID is another boot that beats under this hostname, last at RivalSeen: two hosts have one name. BootID is
	// the boot that counts. The three are shown only while both boots are alive.
	BootID      *string   `json:"boot_id,omitempty" db:"shown_boot_id"`
	RivalBootID *string   `json:"rival_boot_id,omitempty" db:"shown_rival_boot_id"`
	RivalSeen   *db.Stamp `json:"rival_seen,omitempty" db:"shown_rival_seen"`
}

// moduleShown: what nobody has stated is null, as it was. $1 is live_within in milliseconds.
const moduleShown = `id, messaging_exchange_id, hostname, type, status, workload,
	nullif(source_repo, '') AS source_repo,
	nullif(source_repo_git_ref, '') AS source_repo_git_ref, nullif(deployment_repo, '') AS deployment_repo,
	nullif(deployment_repo_git_ref, '') AS deployment_repo_git_ref, service, inserted_at, updated_at,
	CASE WHEN rival_again >= now() - $1 * interval '1 millisecond' THEN boot_id END AS shown_boot_id,
	CASE WHEN rival_again >= now() - $1 * interval '1 millisecond' THEN rival_boot_id END AS shown_rival_boot_id,
	CASE WHEN rival_again >= now() - $1 * interval '1 millisecond' THEN rival_again END AS shown_rival_seen`

// EachModule lists the modules of an exchange by id, inactive ones included.
func (s *Presence) EachModule(ctx context.Context, p db.Part, fn func(ModuleRow) error) error {
	return db.Each(ctx, s.db.Pool, p.Limit, func(r ModuleRow) int64 { return r.ID }, fn,
		`SELECT `+moduleShown+` FROM messaging_exchange_modules
		WHERE messaging_exchange_id = $2`,
		s.times.LiveWithin.Milliseconds(), p.Exchange)
}

// Module reads one module of an exchange.
func (s *Presence) Module(ctx context.Context, exchange component.ExchangeID, hostname string) (ModuleRow, error) {
	row, err := db.One[ModuleRow](ctx, s.db.Pool, `SELECT `+moduleShown+` FROM messaging_exchange_modules
		WHERE messaging_exchange_id = $2 AND hostname = $3`,
		s.times.LiveWithin.Milliseconds(), exchange, hostname)
	if err != nil {
		return row, fmt.Errorf("read module %q of exchange %d: %w", hostname, exchange, err)
	}
	return row, nil
}

// DeleteModule forgets a module; its next beat registers it again.
func (s *Presence) DeleteModule(ctx context.Context, exchange component.ExchangeID, hostname string) error {
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM messaging_exchange_modules WHERE messaging_exchange_id = $1
			AND hostname = $2`, exchange, hostname)
		if err != nil {
			return err
		}
		if n, _ := res.RowsAffected(); n == 0 {
			return fault.New(fault.NotFound, "no such module")
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: db.ExchangeSubject(exchange), Code: "module_deleted",
			Inputs: map[string]string{"hostname": hostname}})
	})
	if err != nil {
		return fmt.Errorf("delete module %q of exchange %d: %w", hostname, exchange, err)
	}
	return nil
}
