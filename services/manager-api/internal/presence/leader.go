package presence

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/lease"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// Lead acquires (term 0) or renews leadership over an exchange. Acquiring always gives a new term, to the same host as
// well: it is another process. A lease that has expired cannot be renewed. Covered time goes on only while the same
// term stays covered. Conflict: another leads, or the term is over.
func (s *Presence) Lead(ctx context.Context, ex component.ExchangeID,
	r managerapi.LeaseRequest) (managerapi.Lease, error) {
	ttl := time.Duration(r.TTLMS) * time.Millisecond
	if r.Holder == "" || ttl < time.Second || ttl > time.Minute {
		return managerapi.Lease{}, fault.New(fault.Invalid, "leadership needs a holder and a ttl_ms of 1000 to 60000")
	}
	var out managerapi.Lease
	err := s.db.Leases.InTx(ctx, func(tx *sqlx.Tx) error {
		l, err := takeLead(ctx, tx, ex, r, ttl)
		if err != nil {
			return err
		}
		if err := recordCoverage(ctx, tx, ex, l.Token, r.Covered && r.Term != 0); err != nil {
			return err
		}
		out, err = s.db.FindLeader(ctx, tx, ex)
		return err
	})
	return out, err
}

func takeLead(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, r managerapi.LeaseRequest,
	ttl time.Duration) (lease.Lease, error) {
	name := db.LeaderLease(ex)
	if r.Term != 0 {
		if err := db.RequireTerm(ctx, tx, ex, r.Term); err != nil {
			return lease.Lease{}, err
		}
		return lease.Renew(ctx, tx, name, r.Term, ttl, nil)
	}
	held, err := lease.Get(ctx, tx, name)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return held, err
	}
	if err == nil && held.Holder == r.Holder {
		if _, err := lease.Release(ctx, tx, name, held.Token); err != nil {
			return held, err
		}
	}
	l, ok, err := lease.Acquire(ctx, tx, name, r.Holder, ttl)
	if err != nil {
		return l, err
	}
	if !ok {
		return l, fault.New(fault.Conflict, "%s leads exchange %d", l.Holder, ex).WithCode(db.CodeHeld)
	}
	return l, db.WriteJournal(ctx, tx, db.Entry{Subject: db.ExchangeSubject(ex), Code: "leader_changed",
		Message: r.Holder + " leads the exchange",
		Inputs:  map[string]any{"term": l.Token, "before": held.Holder}})
}

// recordCoverage moves the covered time of a term to now, or starts it anew after any break.
func recordCoverage(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, term int64, covered bool) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO coverage AS c
			(messaging_exchange_id, term, covered_since, covered_until, last_covered)
		SELECT $1, $2, covered, covered, covered FROM (SELECT CASE WHEN $3 THEN now() END AS covered) given
		ON CONFLICT (messaging_exchange_id) DO UPDATE SET
			term = excluded.term,
			covered_until = excluded.covered_until,
			last_covered = coalesce(excluded.covered_until, c.covered_until, c.last_covered),
			covered_since = CASE WHEN c.term = excluded.term AND excluded.covered_until IS NOT NULL
				THEN coalesce(c.covered_since, excluded.covered_since)
				ELSE excluded.covered_since END`, ex, term, covered)
	if err != nil {
		return fmt.Errorf("record coverage of exchange %d: %w", ex, err)
	}
	return nil
}

// Leader reads who leads an exchange; NotFound while nobody does.
func (s *Presence) Leader(ctx context.Context, ex component.ExchangeID) (l managerapi.Lease, err error) {
	err = s.db.View(ctx, func(tx *sqlx.Tx) error {
		l, err = s.db.FindLeader(ctx, tx, ex)
		return err
	})
	return l, err
}

// Resign gives leadership up, so that the next one need not wait for its expiry. A term that is over is no error.
func (s *Presence) Resign(ctx context.Context, ex component.ExchangeID, term int64) error {
	return s.db.Leases.InTx(ctx, func(tx *sqlx.Tx) error {
		released, err := lease.Release(ctx, tx, db.LeaderLease(ex), term)
		if err != nil || !released {
			return err
		}
		if err := recordCoverage(ctx, tx, ex, term, false); err != nil {
			return err
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: db.ExchangeSubject(ex), Code: "leader_resigned",
			Message: "the leader has resigned", Inputs: map[string]any{"term": term}})
	})
}
