package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/lease"
	"github.com/openaperture/openaperture/pkg/managerapi"
)

// CodeStaleTerm is the code of a judgement whose maker does not lead any more.
const CodeStaleTerm = "stale_term"

func leaseOfLeader(ex component.ExchangeID) string { return fmt.Sprintf("overseer/%d", ex) }

// valid fences a write by its leader's term: it must hold now and holds until the transaction ends.
func valid(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, term int64) error {
	err := lease.Valid(ctx, tx, leaseOfLeader(ex), term)
	if fault.CodeOf(err) == lease.CodeSuperseded {
		return fault.New(fault.Conflict, "term %d does not lead exchange %d any more", term, ex).WithCode(CodeStaleTerm)
	}
	return err
}

// Lead acquires (term 0) or renews leadership over an exchange. Acquiring always gives a new term, to the same host as
// well: it is another process. A lease that has expired cannot be renewed. Covered time goes on only while the same
// term stays covered. Conflict: another leads, or the term is over.
func (s *Store) Lead(ctx context.Context, ex component.ExchangeID, r managerapi.LeaseRequest) (managerapi.Lease, error) {
	ttl := time.Duration(r.TTLMS) * time.Millisecond
	if r.Holder == "" || ttl < time.Second || ttl > time.Minute {
		return managerapi.Lease{}, fault.New(fault.Invalid, "leadership needs a holder and a ttl_ms of 1000 to 60000")
	}
	var out managerapi.Lease
	err := s.leases.InTx(ctx, func(tx *sqlx.Tx) error {
		l, err := takeLead(ctx, tx, ex, r, ttl)
		if err != nil {
			return err
		}
		if err := cover(ctx, tx, ex, l.Token, r.Covered && r.Term != 0); err != nil {
			return err
		}
		out, err = s.leaderIn(ctx, tx, ex)
		return err
	})
	return out, err
}

func takeLead(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, r managerapi.LeaseRequest, ttl time.Duration) (lease.Lease, error) {
	name := leaseOfLeader(ex)
	if r.Term != 0 {
		if err := valid(ctx, tx, ex, r.Term); err != nil {
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
		return l, fault.New(fault.Conflict, "%s leads exchange %d", l.Holder, ex).WithCode(CodeHeld)
	}
	return l, journal(ctx, tx, entry{Subject: exchangeSubject(ex), Code: "leader_changed", Message: r.Holder + " leads the exchange",
		Inputs: map[string]any{"term": l.Token, "before": held.Holder}})
}

// cover moves the covered time of a term to now, or starts it anew after any break.
func cover(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, term int64, covered bool) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO coverage AS c (messaging_exchange_id, term, covered_since, covered_until)
		VALUES ($1, $2, CASE WHEN $3 THEN now() END, CASE WHEN $3 THEN now() END)
		ON CONFLICT (messaging_exchange_id) DO UPDATE SET term = excluded.term, covered_until = excluded.covered_until,
			covered_since = CASE WHEN c.term = excluded.term AND excluded.covered_until IS NOT NULL THEN coalesce(c.covered_since, excluded.covered_since)
				ELSE excluded.covered_since END`, ex, term, covered)
	if err != nil {
		return fmt.Errorf("record coverage of exchange %d: %w", ex, err)
	}
	return nil
}

type leaderRow struct {
	Holder       string     `db:"holder"`
	Token        int64      `db:"token"`
	ExpiresInMS  int64      `db:"expires_in_ms"`
	CoveredSince *time.Time `db:"covered_since"`
	CoveredUntil *time.Time `db:"covered_until"`
	Covering     bool       `db:"covering"`
}

// leaderIn reads who leads; NotFound while nobody does.
func (s *Store) leaderIn(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID) (managerapi.Lease, error) {
	var l leaderRow
	err := tx.GetContext(ctx, &l, `SELECT l.holder, l.token, (extract(epoch FROM l.expires_at - clock_timestamp()) * 1000)::bigint AS expires_in_ms,
			c.covered_since, c.covered_until, coalesce(c.covered_until > now() - $3 * interval '1 millisecond', false) AS covering
		FROM leases l LEFT JOIN coverage c ON c.messaging_exchange_id = $1 AND c.term = l.token
		WHERE l.name = $2 AND l.expires_at > clock_timestamp()`, ex, leaseOfLeader(ex), s.times.LiveWithin.Milliseconds())
	if err != nil {
		return managerapi.Lease{}, notFound(err, "nobody leads exchange %d", ex)
	}
	return managerapi.Lease{Holder: l.Holder, Term: l.Token, ExpiresInMS: l.ExpiresInMS, CoveredSince: utc(l.CoveredSince), CoveredUntil: utc(l.CoveredUntil), Covering: l.Covering}, nil
}

// Leader reads who leads an exchange; NotFound while nobody does.
func (s *Store) Leader(ctx context.Context, ex component.ExchangeID) (l managerapi.Lease, err error) {
	err = s.view(ctx, func(tx *sqlx.Tx) error {
		l, err = s.leaderIn(ctx, tx, ex)
		return err
	})
	return l, err
}

// Resign gives leadership up, so that the next one need not wait for its expiry. A term that is over is no error.
func (s *Store) Resign(ctx context.Context, ex component.ExchangeID, term int64) error {
	return s.leases.InTx(ctx, func(tx *sqlx.Tx) error {
		released, err := lease.Release(ctx, tx, leaseOfLeader(ex), term)
		if err != nil || !released {
			return err
		}
		if err := cover(ctx, tx, ex, term, false); err != nil {
			return err
		}
		return journal(ctx, tx, entry{Subject: exchangeSubject(ex), Code: "leader_resigned", Message: "the leader has resigned", Inputs: map[string]any{"term": term}})
	})
}

// judgeCovers says whether the exchange has a covering leader: only then does a verification's clock run.
func (s *Store) judgeCovers(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID) (bool, error) {
	l, err := s.leaderIn(ctx, tx, ex)
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return l.Covering, err
}
