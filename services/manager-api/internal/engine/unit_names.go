package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/openaperture/openaperture/pkg/blame"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/release"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// CodeUnitTaken refuses a release that has a unit name of another component.
const CodeUnitTaken = "unit_taken"

// unitNames is, in SQL, the array of the unit names of the releases r.
const unitNames = `ARRAY(SELECT jsonb_array_elements(r.units)->>'name')`

// leavingUnits are the names of the units that leave with a deploy: the facts for release.Leaving.
func leavingUnits(ctx context.Context, tx *sqlx.Tx, w *workflowRow, r *releaseRow,
	wanted []messages.UnitDefinition) ([]string, error) {
	former, lastProof, err := formerReleases(ctx, tx, w, r)
	if err != nil || len(former) == 0 {
		return nil, err
	}
	others, err := holdingsBeside(ctx, tx, r)
	if err != nil {
		return nil, err
	}
	var known bool
	err = tx.GetContext(ctx, &known, `SELECT NOT EXISTS (SELECT 1 FROM system_components c
		WHERE c.messaging_exchange_id = $1 AND NOT EXISTS (SELECT 1 FROM releases WHERE component_id = c.id))`, w.ExchangeID)
	if err != nil {
		return nil, fmt.Errorf("look for components without release: %w", err)
	}
	return release.Leaving(former, lastProof, namesOf(wanted), others, known), nil
}

// formerReleases reads the releases of a component's phase in the cluster where it is deployed, and when a release of
// the phase was proven last, in whichever cluster.
func formerReleases(ctx context.Context, tx *sqlx.Tx, w *workflowRow, r *releaseRow) ([]release.Former, time.Time,
	error) {
	var rows []struct {
		ID        string         `db:"id"`
		Units     pq.StringArray `db:"units"`
		StoredAt  time.Time      `db:"inserted_at"`
		ProvenAt  *time.Time     `db:"proven_at"`
		LastProof *time.Time     `db:"last_proof"`
		OfUpgrade bool           `db:"of_upgrade"`
	}
	err := tx.SelectContext(ctx, &rows, `
		SELECT r.id, `+unitNames+` AS units, r.inserted_at, r.proven_at,
			(SELECT max(proven_at) FROM releases WHERE component_id = $1 AND phase = $2) AS last_proof,
			EXISTS (SELECT 1 FROM workflows w JOIN orders o ON o.workflow_id = w.id
				WHERE w.release_id = r.id AND w.upgrade_id = $4 AND o.milestone IN ('deploy', 'deploy_oa')) AS of_upgrade
		FROM releases r
		WHERE r.component_id = $1 AND r.phase = $2 AND lower(r.etcd_token) = lower($3)`,
		*r.ComponentID, r.Phase, r.EtcdToken, w.UpgradeID)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("list former releases of component %d: %w", *r.ComponentID, err)
	}
	if len(rows) == 0 {
		return nil, time.Time{}, nil
	}
	ids := make([]string, len(rows))
	for i, row := range rows {
		ids[i] = row.ID
	}
	deployed, err := deployedReleases(ctx, tx, ids)
	if err != nil {
		return nil, time.Time{}, err
	}
	former := make([]release.Former, len(rows))
	for i, row := range rows {
		former[i] = release.Former{Units: row.Units, StoredAt: row.StoredAt, ProvenAt: whenOrZero(row.ProvenAt),
			OfUpgrade: row.OfUpgrade, Deployed: deployed[row.ID]}
	}
	return former, whenOrZero(rows[0].LastProof), nil
}

// deployOrder is an order that deployed a release for an upgrade, with what its executor has told.
type deployOrder struct {
	Release   string `db:"release_id"`
	State     string `db:"state"`
	Token     int64  `db:"token"`
	TakenOver bool   `db:"taken_over"`
	Reported  bool   `db:"reported"` // an executor has told how the order ended
	Told      bool   `db:"told"`     // an executor has told that something was touched
}

// mayHaveTouched tells by pkg/blame whether the order may have touched something. A claimed order may have, unless its
// executor has reported a failure before the first change.
func (o deployOrder) mayHaveTouched() bool {
	f := blame.Facts{Failure: blame.Silent, Touch: blame.Touch{Claimed: o.Token > 0, Deploys: true, Told: o.Told,
		TakenOver: o.TakenOver}}
	if o.State == orderFailed && o.Reported {
		f.Failure = blame.Reported
	}
	return blame.Touched(f)
}

// deployedReleases are those of the releases that a deploy for an upgrade may have brought to machines.
func deployedReleases(ctx context.Context, tx *sqlx.Tx, releases []string) (map[string]bool, error) {
	var orders []deployOrder
	err := tx.SelectContext(ctx, &orders, `
		SELECT w.release_id, o.state, o.token, o.taken_over, coalesce(o.result->>'event_type', '') <> '' AS reported,
			coalesce(o.result->>'touched', '') = 'true' AS told
		FROM workflows w
		JOIN orders o ON o.workflow_id = w.id
		WHERE w.release_id = ANY($1) AND w.upgrade_id IS NOT NULL AND o.milestone IN ('deploy', 'deploy_oa')`,
		db.TextArray(releases))
	if err != nil {
		return nil, fmt.Errorf("list deploys of former releases: %w", err)
	}
	deployed := map[string]bool{}
	for _, o := range orders {
		deployed[o.Release] = deployed[o.Release] || o.mayHaveTouched()
	}
	return deployed, nil
}

// holdingsBeside reads the unit names that other components, and other phases of the same component, have in the
// release's cluster. Releases with the same units are one holding: most of a component's have.
func holdingsBeside(ctx context.Context, tx *sqlx.Tx, r *releaseRow) ([]release.Holding, error) {
	var rows []struct {
		ComponentID    *component.ID  `db:"component_id"`
		Type           component.Type `db:"type"`
		Phase          int            `db:"phase"`
		Units          pq.StringArray `db:"units"`
		StoredAt       time.Time      `db:"stored_at"`
		ProvenStoredAt *time.Time     `db:"proven_stored_at"`
	}
	err := tx.SelectContext(ctx, &rows, `
		SELECT held.*, coalesce(c.type, '') AS type, (
				SELECT inserted_at FROM releases
				WHERE component_id = held.component_id AND phase = held.phase AND proven_at IS NOT NULL
				ORDER BY `+db.LastProven+` LIMIT 1) AS proven_stored_at
		FROM (SELECT component_id, phase, units, max(inserted_at) AS stored_at
			FROM (SELECT r.component_id, r.phase, r.inserted_at, `+unitNames+` AS units FROM releases r
				WHERE (r.component_id IS DISTINCT FROM $1 OR r.phase <> $2) AND lower(r.etcd_token) = lower($3)) beside
			GROUP BY component_id, phase, units) held
		LEFT JOIN system_components c ON c.id = held.component_id
		ORDER BY held.component_id, held.phase, held.stored_at`, r.ComponentID, r.Phase, r.EtcdToken)
	if err != nil {
		return nil, fmt.Errorf("list units of other components: %w", err)
	}
	holdings := make([]release.Holding, len(rows))
	for i, row := range rows {
		holdings[i] = release.Holding{Type: row.Type, Phase: row.Phase, Units: row.Units, StoredAt: row.StoredAt.UTC(),
			ProvenStoredAt: whenOrZero(row.ProvenStoredAt)}
		if row.ComponentID != nil {
			holdings[i].ComponentID = *row.ComponentID
		}
	}
	return holdings, nil
}

// requireOwnNames is a Conflict if a unit name of the release belongs to another component or phase of the cluster
// (trust: a repository names units of its own component alone). The cluster stays locked until the transaction ends, so
// that no two components take one name at once.
func requireOwnNames(ctx context.Context, tx *sqlx.Tx, r *releaseRow) error {
	if r.ComponentID == nil {
		return nil
	}
	_, err := tx.ExecContext(ctx, `SELECT 1 FROM etcd_clusters WHERE lower(etcd_token) = lower($1) FOR NO KEY UPDATE`,
		r.EtcdToken)
	if err != nil {
		return fmt.Errorf("lock cluster %s: %w", r.EtcdToken, err)
	}
	others, err := holdingsBeside(ctx, tx, r)
	if err != nil {
		return err
	}
	name, owner, taken := release.Owner(namesOf(r.definitions), release.Current(others))
	if !taken {
		return nil
	}
	return fault.New(fault.Conflict, "the unit %s belongs to component %d (%s, phase %d) in this cluster: give the unit "+
		"another name in the deployment repository", name, owner.ComponentID, owner.Type, owner.Phase).WithCode(CodeUnitTaken)
}

func namesOf(units []messages.UnitDefinition) []string {
	names := make([]string, len(units))
	for i, u := range units {
		names[i] = u.Name
	}
	return names
}
