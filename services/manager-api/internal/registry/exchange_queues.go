package registry

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/routing"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

// reserved is what RabbitMQ keeps for itself: no name of ours may be this, a dot, and more.
const reserved = "amq"

// CodeExchangeBusy is the code of a change that would lose the messages of what runs in an exchange.
const CodeExchangeBusy = "exchange_busy"

// requireIdle is Conflict if an upgrade or a workflow runs in one of the exchanges, whose messages on their way would
// be lost. The exchanges are locked first: what begins there meanwhile is waited for, what begins later goes the new
// way.
func requireIdle(ctx context.Context, tx *sqlx.Tx, cut []component.ExchangeID) error {
	ids := pq.Array(db.ExchangeIDs(cut))
	if _, err := tx.ExecContext(ctx, `SELECT 1 FROM messaging_exchanges WHERE id = ANY($1) ORDER BY id FOR UPDATE`,
		ids); err != nil {
		return fmt.Errorf("lock exchanges whose messages go another way: %w", err)
	}
	var running []string
	err := tx.SelectContext(ctx, &running, `
		SELECT 'upgrade ' || id || ' runs in MessagingExchange ' || messaging_exchange_id FROM upgrades
			WHERE messaging_exchange_id = ANY($1) AND state IN `+engine.RunningStates+`
		UNION ALL SELECT 'workflow ' || id || ' runs in MessagingExchange ' || messaging_exchange_id FROM workflows
			WHERE messaging_exchange_id = ANY($1) AND upgrade_id IS NULL AND `+engine.OpenWorkflow+` LIMIT 1`, ids)
	if err != nil {
		return fmt.Errorf("look for what runs in exchanges whose messages go another way: %w", err)
	}
	if len(running) > 0 {
		return fault.New(fault.Conflict,
			"%s, and its results would wait in a queue that nobody reads any more: wait until it has ended, or end it; "+
				"of a broker that has moved, change the connections instead", running[0]).WithCode(CodeExchangeBusy)
	}
	return nil
}

// rearrange is tx for a change of addresses or brokers of exchanges. It lets one through at a time: two that are each
// harmless could make a cycle together, or queues with two owners. It refuses one after which two exchanges share
// queues that did not before: the heartbeats of the one would prove versions of the other. And it refuses one that
// takes the address or the broker away from under what runs: its results would wait in a queue that nobody reads.
func (s *Registry) rearrange(ctx context.Context, change func(tx *sqlx.Tx) error) error {
	return s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		if err := lockTree(ctx, tx); err != nil {
			return err
		}
		before, err := s.arrangement(ctx, tx)
		if err != nil {
			return err
		}
		if err := change(tx); err != nil {
			return err
		}
		after, err := s.arrangement(ctx, tx)
		if err != nil {
			return err
		}
		if shared, ok := routing.NewlyShared(before, after); ok {
			return fault.New(fault.Conflict, "%s", shared).WithCode("queues_shared")
		}
		return requireIdle(ctx, tx, routing.Cut(before, after))
	})
}
