package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// Retention of what is kept to recognise repeats.
const (
	keepInbox  = 14 * 24 * time.Hour
	keepOutbox = 24 * time.Hour
)

// keepRefs is how long it is kept what a ref stands for that nobody asks for any more, and what an executor could do
// that is gone.
const keepRefs = 7 * 24 * time.Hour

// Prune removes what has served its time: expired quarantines, doorbells that nobody could be rung with, old messages
// and keys. Keys that this process could not settle are settled first.
func (s *Engine) Prune(ctx context.Context) error {
	return errors.Join(s.db.SettleKeys(ctx), s.db.Pool.InTx(ctx, func(tx *sqlx.Tx) error {
		if err := expireQuarantines(ctx, tx); err != nil {
			return err
		}
		for _, p := range []struct {
			sql  string
			keep time.Duration
		}{
			{`DELETE FROM outbox WHERE expendable AND published_at IS NULL
				AND created_at < now() - $1 * interval '1 millisecond'`, db.ExpendableAfter},
			{`DELETE FROM outbox WHERE published_at < now() - $1 * interval '1 millisecond'`, keepOutbox},
			{`DELETE FROM inbox WHERE received_at < now() - $1 * interval '1 millisecond'`, keepInbox},
			{`DELETE FROM resolved_refs WHERE asked_at < now() - $1 * interval '1 millisecond'`, keepRefs},
			{`DELETE FROM executors WHERE announced_at < now() - $1 * interval '1 millisecond' AND NOT EXISTS (
				SELECT 1 FROM messaging_exchange_modules m WHERE m.messaging_exchange_id = executors.messaging_exchange_id
					AND m.hostname = executors.hostname)`, keepRefs},
			{`DELETE FROM idempotency_keys WHERE created_at < now() - $1 * interval '1 millisecond'`, db.KeepKey},
		} {
			if _, err := tx.ExecContext(ctx, p.sql, p.keep.Milliseconds()); err != nil {
				return fmt.Errorf("prune: %w", err)
			}
		}
		return nil
	}))
}

// pruneRows bounds what one statement of PruneHistory removes.
const pruneRows = 1000

// PruneHistory removes the history that has served its time, so that what fails every hour leaves a bounded database:
//
//   - upgrades that ended more than keep_history ago, with their workflows and orders. The last keep_upgrades of a
//     component stay, and its last completed one: eligibility reads when the recorded version was proven.
//   - workflows without upgrade that ended so long ago.
//   - releases that are so old, that no workflow or upgrade names any more, and that are not among the last
//
// keep_upgrades
//
//	  proven ones of their component and phase: a rollback may return to those.
//	- system events that are so old, dismissed or not.
//	- rows of the journal that are older than keep_journal.
//
// Every statement is bounded and reads by an index, oldest first. again says that there may be more to remove.
func (s *Engine) PruneHistory(ctx context.Context) (again bool, err error) {
	history, journal, last := s.times.KeepHistory.Milliseconds(), s.times.KeepJournal.Milliseconds(), s.times.KeepUpgrades
	for _, p := range []struct {
		what, sql string
		args      []any
	}{
		{"upgrades", `WITH old AS (
				SELECT u.id FROM upgrades u
				WHERE u.finished_at < now() - $1 * interval '1 millisecond'
					AND (SELECT count(*) FROM (
						SELECT 1 FROM upgrades n WHERE n.component_id = u.component_id AND n.id > u.id LIMIT $2) newer) = $2
					AND (u.state <> 'completed' OR EXISTS (SELECT 1 FROM upgrades n
						WHERE n.component_id = u.component_id AND n.id > u.id AND n.state = 'completed'))
				ORDER BY u.finished_at LIMIT $3),
			gone AS (DELETE FROM workflows WHERE upgrade_id IN (SELECT id FROM old))
			DELETE FROM upgrades WHERE id IN (SELECT id FROM old)`, []any{history, last, pruneRows}},
		{"workflows", `DELETE FROM workflows WHERE id IN (
				SELECT id FROM workflows WHERE workflow_completed AND upgrade_id IS NULL
					AND ended_at < now() - $1 * interval '1 millisecond' ORDER BY ended_at LIMIT $2)`, []any{history, pruneRows}},
		{"releases", `DELETE FROM releases WHERE id IN (
				SELECT r.id FROM releases r
				WHERE r.inserted_at < now() - $1 * interval '1 millisecond'
					AND NOT EXISTS (SELECT 1 FROM workflows w WHERE w.release_id = r.id)
					AND NOT EXISTS (SELECT 1 FROM upgrades u WHERE u.release_id = r.id)
					AND (r.proven_at IS NULL OR (SELECT count(*) FROM (
						SELECT 1 FROM releases n WHERE n.component_id = r.component_id AND n.phase = r.phase
							AND n.proven_at > r.proven_at LIMIT $2) newer) = $2)
				ORDER BY r.inserted_at LIMIT $3)`, []any{history, last, pruneRows}},
		{"system events", `DELETE FROM system_events WHERE id IN (
				SELECT id FROM (SELECT id, inserted_at FROM system_events ORDER BY id LIMIT $2) oldest
				WHERE inserted_at < now() - $1 * interval '1 millisecond')`, []any{history, pruneRows}},
		{"journal", `DELETE FROM journal WHERE seq IN (
				SELECT seq FROM (SELECT seq, at FROM journal ORDER BY seq LIMIT $2) oldest
				WHERE at < now() - $1 * interval '1 millisecond')`, []any{journal, pruneRows}},
	} {
		res, err := s.db.Pool.ExecContext(ctx, p.sql, p.args...)
		if err != nil {
			return false, fmt.Errorf("prune %s: %w", p.what, err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return false, fmt.Errorf("prune %s: %w", p.what, err)
		}
		again = again || n >= pruneRows
	}
	return again, nil
}
