package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// Announce records what an executor of an exchange can do. What it said before is forgotten: it may be another release
// now. An executor of the former release announces nothing, and a new boot of it ends what the one before announced.
func (s *Engine) Announce(ctx context.Context, ex component.ExchangeID, e managerapi.Executor) error {
	return s.db.Tx(ctx, func(tx *sqlx.Tx) error { return announce(ctx, tx, ex, e) })
}

func announce(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, e managerapi.Executor) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO executors (messaging_exchange_id, hostname, boot_id, capabilities)
		VALUES ($1, $2, $3, $4)
		ON CONFLICT (messaging_exchange_id, hostname) DO UPDATE SET boot_id = excluded.boot_id,
			capabilities = excluded.capabilities, announced_at = now()
		WHERE (executors.boot_id, executors.capabilities) IS DISTINCT FROM (excluded.boot_id, excluded.capabilities)`,
		ex, e.Hostname, e.BootID, db.TextArray(knownCapabilities(e.Capabilities)))
	if err != nil {
		return fmt.Errorf("record executor %s: %w", e.Hostname, err)
	}
	return nil
}

// capableExecutors are the executors of an exchange that perform a milestone of a capability: those whose every live
// process has announced it. The one process that has not might claim the order, and would fail it. Who is live follows
// from the heartbeats; what a process can do follows from its announcement alone.
func (s *Engine) capableExecutors(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID,
	capability string) (map[upgrade.Executor]bool, error) {
	var services pq.StringArray
	err := tx.GetContext(ctx, &services, `SELECT coalesce(array_agg(service), '{}') FROM (
			SELECT m.service FROM messaging_exchange_modules m
			LEFT JOIN executors e ON e.messaging_exchange_id = m.messaging_exchange_id AND e.hostname = m.hostname
				AND e.boot_id = m.boot_id
			WHERE m.messaging_exchange_id = $1 AND m.type = 'deployer' AND `+liveModule("m", "$2")+`
			GROUP BY m.service HAVING bool_and(coalesce($3 = ANY(e.capabilities), false))) capable`,
		ex, s.times.LiveWithin.Milliseconds(), capability)
	if err != nil {
		return nil, fmt.Errorf("look for executors of exchange %d: %w", ex, err)
	}
	out := map[upgrade.Executor]bool{}
	for _, e := range []upgrade.Executor{upgrade.ExecDeployOA, upgrade.ExecDeploy} {
		out[e] = slices.Contains(services, e.Service())
	}
	return out, nil
}
