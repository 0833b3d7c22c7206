package presence

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/silence"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// limits are the silences after which a module is inactive and is deleted.
func (s *Presence) limits() silence.Limits {
	return silence.Limits{InactiveAfter: s.times.InactiveAfter, DeleteAfter: s.times.DeleteAfter}
}

// sweepState is what a sweep decides on: the covered time of its term, and how many modules are missing
// (silence.Missing).
type sweepState struct {
	Since   time.Time `db:"covered_since"`
	Until   time.Time `db:"covered_until"`
	Missing int       `db:"missing"`
	Total   int       `db:"total"`
}

func (s sweepState) covered() silence.Covered { return silence.Covered{Since: s.Since, Until: s.Until} }

// silenceOf is silence.Covered.Silence in SQL, over expressions.
func silenceOf(lastSeen, coveredSince, coveredUntil string) string {
	return coveredUntil + ` - greatest(` + lastSeen + `, ` + coveredSince + `)`
}

// silenceSQL is the silence of a module in sweepSQL; $2 is covered_until and $3 covered_since.
var silenceSQL = silenceOf(`updated_at`, `$3::timestamptz`, `$2::timestamptz`)

// Expire runs one sweep under the leader's term: silent modules become inactive, then they go. Without covered time
// nothing happens. The conditions stand in the statement itself, so that a module whose beat comes meanwhile survives.
func (s *Presence) Expire(ctx context.Context, ex component.ExchangeID,
	e managerapi.Expiry) (managerapi.ExpiryResult, error) {
	var out managerapi.ExpiryResult
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		out = managerapi.ExpiryResult{Inactivated: []string{}, Deleted: []string{}}
		if err := db.RequireTerm(ctx, tx, ex, e.Term); err != nil {
			return err
		}
		state, err := s.sweepState(ctx, tx, ex, e.Term)
		if err != nil || state == nil {
			return err
		}
		if out.Held, err = s.brake(ctx, tx, ex, *state); err != nil {
			return err
		}
		return s.sweep(ctx, tx, ex, *state, &out)
	})
	return out, err
}

// sweepState is nil while the term covers nothing.
func (s *Presence) sweepState(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID,
	term int64) (*sweepState, error) {
	var state []sweepState
	err := tx.SelectContext(ctx, &state, `SELECT c.covered_since, c.covered_until, count(m.id) AS total,
			count(m.id) FILTER (WHERE `+silenceOf("m.updated_at", "c.covered_since", "c.covered_until")+`
				>= $3 * interval '1 millisecond') AS missing
		FROM coverage c LEFT JOIN messaging_exchange_modules m ON m.messaging_exchange_id = c.messaging_exchange_id
		WHERE c.messaging_exchange_id = $1 AND c.term = $2 AND c.covered_since IS NOT NULL AND c.covered_until IS NOT NULL
		GROUP BY c.covered_since, c.covered_until`, ex, term, s.times.InactiveAfter.Milliseconds())
	if err != nil {
		return nil, fmt.Errorf("read coverage of exchange %d: %w", ex, err)
	}
	if len(state) == 0 {
		return nil, nil
	}
	return &state[0], nil
}

// brake keeps the hold on deletions by the rule of pkg/silence, and says whether deletions are held. A hold begins with
// a SystemEvent and goes with its cause.
func (s *Presence) brake(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, state sweepState) (bool, error) {
	if !silence.Brake(state.Missing, state.Total) {
		_, err := tx.ExecContext(ctx, `DELETE FROM deletion_holds WHERE messaging_exchange_id = $1`, ex)
		if err != nil {
			return false, fmt.Errorf("end hold of exchange %d: %w", ex, err)
		}
		return false, nil
	}
	hold, err := lockHold(ctx, tx, ex)
	if err != nil {
		return false, err
	}
	if hold == nil {
		hold = new(silence.Begin(state.covered()))
		if err := s.tellHeld(ctx, tx, ex, state); err != nil {
			return false, err
		}
	} else {
		*hold = hold.Tick(state.covered())
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO deletion_holds AS h
			(messaging_exchange_id, covered_ms, ticked_at, silent, total)
		VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (messaging_exchange_id) DO UPDATE SET
			covered_ms = excluded.covered_ms,
			ticked_at = excluded.ticked_at,
			silent = excluded.silent,
			total = excluded.total`, ex, hold.Age.Milliseconds(), hold.Ticked, state.Missing, state.Total)
	if err != nil {
		return false, fmt.Errorf("hold deletions of exchange %d: %w", ex, err)
	}
	return hold.Lasts(s.limits()), nil
}

// lockHold reads the hold on the deletions of an exchange and keeps others from changing it; nil: there is none.
func lockHold(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID) (*silence.Hold, error) {
	var rows []struct {
		CoveredMS int64     `db:"covered_ms"`
		TickedAt  time.Time `db:"ticked_at"`
		Released  bool      `db:"released"`
	}
	err := tx.SelectContext(ctx, &rows, `SELECT covered_ms, ticked_at, released FROM deletion_holds
		WHERE messaging_exchange_id = $1 FOR UPDATE`, ex)
	if err != nil {
		return nil, fmt.Errorf("read hold of exchange %d: %w", ex, err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	return &silence.Hold{Age: time.Duration(rows[0].CoveredMS) * time.Millisecond, Ticked: rows[0].TickedAt,
		Released: rows[0].Released}, nil
}

func (s *Presence) tellHeld(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, state sweepState) error {
	message := fmt.Sprintf("%d of %d modules are silent: they are kept for %s of covered time, so look at their hosts "+
		"and broker, or let them go by DELETE /messaging/exchanges/%d/deletion_hold",
		state.Missing, state.Total, silence.HoldFor(s.limits()), ex)
	data := map[string]any{"messaging_exchange_id": ex, "silent": state.Missing, "total": state.Total}
	if err := db.RaiseEvent(ctx, tx, &ex, "module_deletion_held", db.SeverityError, message, data); err != nil {
		return err
	}
	return db.WriteJournal(ctx, tx, db.Entry{Subject: db.ExchangeSubject(ex), Code: "deletion_held", Message: message,
		Inputs: data})
}

// sweepSQL is silence.Judge in SQL: one conditional statement, so that a beat that comes meanwhile is not lost. The
// statement locks rows in the order of batchSQL, by hostname, so that a batch waits and there is no deadlock. A module
// whose beat came while the statement waited is not due any more. $4 is inactive_after, $5 delete_after, $6 whether
// deletions are held.
var sweepSQL = `
	WITH due AS (
		SELECT id, NOT $6 AND ` + silenceSQL + ` > $5 * interval '1 millisecond' AS gone
		FROM messaging_exchange_modules
		WHERE messaging_exchange_id = $1
			AND ` + silenceSQL + ` > $4 * interval '1 millisecond'
			AND (status <> 'inactive' OR (NOT $6 AND ` + silenceSQL + ` > $5 * interval '1 millisecond'))
		ORDER BY hostname COLLATE "C"
		FOR UPDATE),
	gone AS (
		DELETE FROM messaging_exchange_modules m USING due WHERE m.id = due.id AND due.gone
		RETURNING m.hostname, m.type, m.updated_at),
	remembered AS ( -- when the instances of a component were heard last, although their rows go
		INSERT INTO last_heartbeats AS l (component_id, last_at)
		SELECT c.id, max(gone.updated_at) FROM gone
			JOIN system_components c ON c.messaging_exchange_id = $1 AND c.type = gone.type
		GROUP BY c.id ORDER BY c.id
		ON CONFLICT (component_id) DO UPDATE SET last_at = greatest(l.last_at, excluded.last_at)),
	quiet AS (
		UPDATE messaging_exchange_modules m SET status = 'inactive' FROM due WHERE m.id = due.id AND NOT due.gone
		RETURNING m.hostname)
	SELECT hostname, true AS gone FROM gone UNION ALL SELECT hostname, false FROM quiet ORDER BY hostname`

// sweep is one conditional statement over all modules of the exchange.
func (s *Presence) sweep(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, state sweepState,
	out *managerapi.ExpiryResult) error {
	var rows []struct {
		Hostname string `db:"hostname"`
		Gone     bool   `db:"gone"`
	}
	err := tx.SelectContext(ctx, &rows, sweepSQL,
		ex, state.Until, state.Since, s.times.InactiveAfter.Milliseconds(), s.times.DeleteAfter.Milliseconds(), out.Held)
	if err != nil {
		return fmt.Errorf("sweep modules of exchange %d: %w", ex, err)
	}
	for _, r := range rows {
		if r.Gone {
			out.Deleted = append(out.Deleted, r.Hostname)
		} else {
			out.Inactivated = append(out.Inactivated, r.Hostname)
		}
	}
	if err := tellSilent(ctx, tx, ex, "module_inactive", "no heartbeat for more than "+s.times.InactiveAfter.String(),
		out.Inactivated); err != nil {
		return err
	}
	return tellSilent(ctx, tx, ex, "module_deleted", "no heartbeat for more than "+s.times.DeleteAfter.String(),
		out.Deleted)
}

// maxNamed bounds how many hostnames an event lists.
const maxNamed = 200

func tellSilent(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, kind, why string, hostnames []string) error {
	if len(hostnames) == 0 {
		return nil
	}
	data := map[string]any{"messaging_exchange_id": ex, "count": len(hostnames),
		"hostnames": slices.Clone(hostnames[:min(len(hostnames), maxNamed)])}
	message := fmt.Sprintf("%d module(s), the first is %s: %s", len(hostnames), hostnames[0], why)
	if err := db.RaiseEvent(ctx, tx, &ex, kind, db.SeverityWarning, message, data); err != nil {
		return err
	}
	return db.WriteJournal(ctx, tx, db.Entry{Subject: db.ExchangeSubject(ex), Code: kind, Message: message, Inputs: data})
}

// ReleaseHold lets the next sweep delete although much of the exchange is silent. NotFound: nothing is held.
func (s *Presence) ReleaseHold(ctx context.Context, ex component.ExchangeID) error {
	return s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE deletion_holds SET released = true WHERE messaging_exchange_id = $1`, ex)
		if err != nil {
			return fmt.Errorf("release hold of exchange %d: %w", ex, err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return fault.New(fault.NotFound, "no deletion is held in exchange %d", ex)
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: db.ExchangeSubject(ex), Code: "deletion_released",
			Message: "an operator lets silent modules be deleted"})
	})
}
