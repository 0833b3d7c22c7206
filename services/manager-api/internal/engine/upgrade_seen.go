package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
)

// requireSeen refuses a judgement about a requested upgrade if what the judgement rests on has changed since the
// overseer saw it (managerapi.CodeSeenChanged): the overseer judges again. An overseer of the former release does not
// say what it saw; then nothing is compared. The upgrade is locked by the caller; component, ref and quarantines stay
// as they are until the transaction ends.
func requireSeen(ctx context.Context, tx *sqlx.Tx, row *upgradeRow, saw *managerapi.Saw) error {
	if saw == nil {
		return nil
	}
	now, err := lockSeen(ctx, tx, row)
	if err != nil {
		return err
	}
	if what := saw.Changed(now); what != "" {
		return fault.New(fault.Conflict, "%s has changed since upgrade %s was judged: judge it again", what, row.ID).
			WithCode(managerapi.CodeSeenChanged)
	}
	return nil
}

// lockSeen reads what a judgement about a requested upgrade rests on, and keeps others from changing it.
func lockSeen(ctx context.Context, tx *sqlx.Tx, row *upgradeRow) (managerapi.Saw, error) {
	now := managerapi.Saw{Trigger: row.Trigger, Force: row.Force}
	c, err := lockComponent(ctx, tx, row.ComponentID)
	if err != nil {
		return now, err
	}
	now.Component = component.Component{ID: c.ID, ExchangeID: c.ExchangeID, Type: c.Type,
		SourceRepo:       c.Recorded.SourceRepo,
		SourceRepoGitRef: c.Recorded.SourceRepoGitRef, FollowDeployment: c.FollowDeployment, DeploymentRepo: c.DeploymentRepo,
		DeploymentRepoGitRef: c.DeploymentRef,
		Strategy:             c.Strategy}
	var refs []component.Ref
	err = tx.SelectContext(ctx, &refs, `SELECT `+refColumns+` FROM system_component_refs WHERE type = $1 FOR SHARE`,
		string(c.Type))
	if err != nil {
		return now, fmt.Errorf("read ref %s: %w", c.Type, err)
	}
	if len(refs) > 0 {
		now.Ref = &refs[0]
	}
	var quarantines []quarantineRow
	err = tx.SelectContext(ctx, &quarantines, `SELECT `+quarantineColumns+` FROM quarantines
		WHERE messaging_exchange_id = $1 AND component_type = $2 AND (expires_at IS NULL OR expires_at > now())
		FOR SHARE`, c.ExchangeID, string(c.Type))
	if err != nil {
		return now, fmt.Errorf("read quarantines of %s: %w", c.Type, err)
	}
	for _, q := range quarantines {
		now.Quarantines = append(now.Quarantines, q.ID)
	}
	slices.Sort(now.Quarantines)
	return now, nil
}

// requestExpired reports whether a requested upgrade has waited for request_expiry since somebody last asked for it.
// The upgrade is locked: a request that takes it over comes before this look, or finds it expired.
func (s *Engine) requestExpired(ctx context.Context, tx *sqlx.Tx, row *upgradeRow) (expired bool, err error) {
	err = tx.GetContext(ctx, &expired, `SELECT state = 'requested' AND `+askedAt+` < now() - $2 * interval '1 millisecond'
		FROM upgrades WHERE id = $1`, string(row.ID), s.times.RequestExpiry.Milliseconds())
	if err != nil {
		return false, fmt.Errorf("read when upgrade %s was asked for: %w", row.ID, err)
	}
	return expired, nil
}

// askedAt is when somebody last asked for an upgrade.
const askedAt = `coalesce(asked_at, created_at)`
