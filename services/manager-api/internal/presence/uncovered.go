package presence

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// TellCoverage tells people of the exchanges that no overseer has covered for uncovered_after, and when one is covered
// again: a SystemEvent and a journal row, once each. Only an exchange with components needs an overseer. Time in which
// manager-api was away does not count: nobody could have told it of coverage.
func (s *Presence) TellCoverage(ctx context.Context) error {
	return s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO coverage (messaging_exchange_id, term)
			SELECT DISTINCT messaging_exchange_id, 0 FROM system_components c
			WHERE NOT EXISTS (SELECT 1 FROM coverage v WHERE v.messaging_exchange_id = c.messaging_exchange_id)
			ON CONFLICT DO NOTHING`)
		if err != nil {
			return fmt.Errorf("note exchanges that were never covered: %w", err)
		}
		var rows []coverageNews
		err = tx.SelectContext(ctx, &rows, coverageNewsSQL, s.times.UncoveredAfter.Milliseconds(),
			s.times.LiveWithin.Milliseconds())
		if err != nil {
			return fmt.Errorf("look for exchanges that nobody covers: %w", err)
		}
		for _, r := range rows {
			if err := r.tell(ctx, tx, s.times.UncoveredAfter); err != nil {
				return err
			}
		}
		return nil
	})
}

// coverageNewsSQL flips uncovered_told where that is due and returns what is to be told. A row that somebody keeps
// locked has its turn at the next pass.
var coverageNewsSQL = `
WITH present AS (
	SELECT coalesce(max(present_since), now()) AS since FROM ticks WHERE name = 'sweeper'
), seen AS (
	SELECT c.messaging_exchange_id AS id, c.uncovered_told AS told,
		greatest(c.last_covered, c.covered_until) AS last,
		greatest(c.last_covered, c.covered_until, p.since, needed.since) AS counted,
		needed.since IS NOT NULL AS needed
	FROM coverage c CROSS JOIN present p CROSS JOIN LATERAL (
		SELECT min(inserted_at) AS since FROM system_components s
		WHERE s.messaging_exchange_id = c.messaging_exchange_id) needed
), due AS (
	SELECT c.messaging_exchange_id AS id, s.last, s.needed FROM coverage c JOIN seen s ON s.id = c.messaging_exchange_id
	WHERE CASE WHEN s.told
		THEN NOT s.needed OR coalesce(s.last > now() - $2 * interval '1 millisecond', false)
		ELSE s.needed AND s.counted < now() - greatest($1, $2) * interval '1 millisecond' END
	ORDER BY c.messaging_exchange_id FOR UPDATE OF c SKIP LOCKED
)
UPDATE coverage c SET uncovered_told = NOT c.uncovered_told FROM due WHERE due.id = c.messaging_exchange_id
RETURNING c.messaging_exchange_id, c.uncovered_told, due.needed, due.last,
	coalesce((SELECT holder FROM leases l
		WHERE l.name = ` + db.LeaderLeaseOf("due.id") + ` AND l.expires_at > now()), '') AS leader`

// coverageNews is an exchange whose coverage people have to hear of.
type coverageNews struct {
	ExchangeID component.ExchangeID `db:"messaging_exchange_id"`
	Uncovered  bool                 `db:"uncovered_told"`
	Needed     bool                 `db:"needed"`
	Last       *time.Time           `db:"last"` // when somebody last covered the exchange; nil: never
	Leader     string               `db:"leader"`
}

func (n coverageNews) tell(ctx context.Context, tx *sqlx.Tx, after time.Duration) error {
	kind, severity, message := "exchange_covered", db.SeverityInfo, "an overseer covers the exchange again"
	switch {
	case n.Uncovered && n.Leader == "":
		kind, severity = "exchange_uncovered", db.SeverityError
		message = fmt.Sprintf("no overseer leads the exchange, for %s at least: nothing is checked, proven or expired "+
			"there; start its overseers, or look at their logs", after)
	case n.Uncovered:
		kind, severity = "exchange_uncovered", db.SeverityError
		message = fmt.Sprintf("no overseer has heard the exchange for %s at least, though %s leads: nothing is proven or "+
			"expired there; look at the overseers' logs and at the exchange's broker", after, n.Leader)
	case !n.Needed:
		message = "the exchange has no components any more: it needs no overseer"
	}
	data := map[string]any{"messaging_exchange_id": n.ExchangeID, "last_covered": db.UTC(n.Last), "leader": n.Leader}
	if err := db.RaiseEvent(ctx, tx, &n.ExchangeID, kind, severity, message, data); err != nil {
		return err
	}
	return db.WriteJournal(ctx, tx, db.Entry{Subject: db.ExchangeSubject(n.ExchangeID), Code: kind, Message: message,
		Inputs: data})
}
