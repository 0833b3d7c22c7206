package engine

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/openaperture/openaperture/pkg/blame"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/postgres"
	"github.com/openaperture/openaperture/pkg/upgrade"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// RecordPresence records that manager-api is there, in one replica at least. The caller beats by a loop of its own, so
// that a slow sweep does not count as an absence. After a gap of more than tick_gap, time before now counts against no
// upgrade, and every claim that is held gets its full time: a claim expires only over time in which it could have been
// renewed. A claim that was released, or whose order is open to the next executor, is not prolonged. gap reports that.
func (s *Engine) RecordPresence(ctx context.Context) (gap bool, err error) {
	err = s.db.Leases.InTx(ctx, func(tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO ticks (name, ticked_at) VALUES ('sweeper', now())
			ON CONFLICT DO NOTHING`); err != nil {
			return fmt.Errorf("begin ticks: %w", err)
		}
		err := tx.GetContext(ctx, &gap, `SELECT now() - ticked_at > $1 * interval '1 millisecond' FROM ticks
			WHERE name = 'sweeper' FOR UPDATE`, s.times.TickGap.Milliseconds())
		if err != nil {
			return fmt.Errorf("read tick: %w", err)
		}
		if gap {
			_, err := tx.ExecContext(ctx, `UPDATE leases l
				SET expires_at = clock_timestamp() + $1 * interval '1 millisecond'
				FROM orders o
				WHERE o.state = 'claimed' AND l.name = `+ordersLease+` AND l.holder <> ''`, s.times.Claim.Milliseconds())
			if err != nil {
				return fmt.Errorf("prolong claims: %w", err)
			}
		}
		if _, err := tx.ExecContext(ctx, `UPDATE ticks SET ticked_at = greatest(ticked_at, now()),
			present_since = CASE WHEN $1 THEN now() ELSE present_since END
			WHERE name = 'sweeper'`, gap); err != nil {
			return fmt.Errorf("tick: %w", err)
		}
		return nil
	})
	return gap, err
}

// clockSQL moves the clocks of all running upgrades in one statement, by the rule of upgrade.Clock.Tick, and returns
// the upgrades whose time is over. An upgrade that somebody keeps locked is left out: its clock moves when its row is
// free, over all of the time in which manager-api was there.
var clockSQL = `
WITH present AS (
	SELECT coalesce(max(present_since), now()) AS since FROM ticks WHERE name = 'sweeper'
), running AS (
	SELECT u.id,
		u.messaging_exchange_id = ANY($1) AND (u.step <> 'verify' OR u.component_type = 'overseer'
				OR ` + db.LeaderCovers("u.messaging_exchange_id", "$2") + `)
			AND NOT EXISTS (
				SELECT 1 FROM workflows w
				JOIN orders waits ON waits.workflow_id = w.id AND waits.state = 'open'
				JOIN orders o ON o.messaging_exchange_id = waits.messaging_exchange_id AND o.queue = waits.queue
				JOIN leases l ON ` + heldClaim + `
				WHERE w.upgrade_id = u.id) AS runs,
		greatest(extract(epoch FROM now() - u.clock_ticked_at) * 1000, 0)::bigint AS elapsed,
		greatest(extract(epoch FROM now() - greatest(u.clock_ticked_at, p.since)) * 1000, 0)::bigint AS counted
	FROM upgrades u, present p
	WHERE u.state IN ` + RunningStates + ` AND (u.messaging_exchange_id = ANY($1)
		OR u.clock_ticked_at <= now() - $3 * interval '1 millisecond') -- another replica may consume there
	ORDER BY u.id FOR UPDATE OF u SKIP LOCKED
), moved AS (
	UPDATE upgrades u SET
		clock_left = CASE WHEN r.runs THEN u.clock_left - r.counted ELSE u.clock_left END,
		clock_stalled = CASE WHEN r.runs THEN 0 ELSE u.clock_stalled + r.elapsed END,
		clock_ticked_at = now()
	FROM running r WHERE r.id = u.id
	RETURNING u.id, u.messaging_exchange_id, u.clock_left, u.clock_stalled
)
SELECT id, messaging_exchange_id FROM moved WHERE clock_left <= 0 OR clock_stalled > $4 ORDER BY id`

// TickUpgrades moves the clocks of all running upgrades. consuming lists the exchanges from whose brokers this process
// has consumed for the settle time. An upgrade that runs out of time has failed. An upgrade whose clock stood still for
// abandon_after is abandoned.
func (s *Engine) TickUpgrades(ctx context.Context, consuming []component.ExchangeID) error {
	var due []dueItem
	err := s.db.Pool.SelectContext(ctx, &due, clockSQL, pq.Array(db.ExchangeIDs(consuming)),
		s.times.LiveWithin.Milliseconds(), (s.times.TickGap / 2).Milliseconds(), s.times.AbandonAfter.Milliseconds())
	if err != nil {
		return fmt.Errorf("move the clocks of upgrades: %w", postgres.Translate(err))
	}
	return s.forEachItem(ctx, due, func(ctx context.Context, tx *sqlx.Tx, id string) error {
		row, err := lockUpgrade(ctx, tx, upgrade.ID(id))
		if err != nil || !row.State.Running() {
			return err
		}
		return s.endByClock(ctx, tx, row)
	})
}

// endByClock ends an upgrade whose time is over. Progress that was recorded meanwhile has given it time again.
func (s *Engine) endByClock(ctx context.Context, tx *sqlx.Tx, row *upgradeRow) error {
	switch row.clock().Over(s.times.AbandonAfter) {
	case upgrade.TickDeadline:
		f, err := s.judgeDeadline(ctx, tx, row)
		if err != nil {
			return err
		}
		return s.moveUpgrade(ctx, tx, row, f.event(upgrade.EventDeadline), nil)
	case upgrade.TickAbandon:
		facts := s.factsOf(blame.Forsaken, orderChain{upgrade: row})
		facts.Limit = s.times.AbandonAfter
		return s.moveUpgrade(ctx, tx, row, judge(facts).event(upgrade.EventAbandon), nil)
	case upgrade.TickGoesOn:
	}
	return nil
}
