package db

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

// CodeHeld refuses a claim or leadership that another holder has.
const CodeHeld = "held"

// CodeStaleTerm is the code of a judgement whose maker does not lead any more.
const CodeStaleTerm = "stale_term"

// LeaderLease is the name of the lease of an exchange's leader.
func LeaderLease(ex component.ExchangeID) string { return fmt.Sprintf("overseer/%d", ex) }

// RequireTerm fences a write by its leader's term: it must hold now and holds until the transaction ends.
func RequireTerm(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, term int64) error {
	err := lease.Valid(ctx, tx, LeaderLease(ex), term)
	if fault.CodeOf(err) == lease.CodeSuperseded {
		return fault.New(fault.Conflict, "term %d does not lead exchange %d any more", term, ex).WithCode(CodeStaleTerm)
	}
	return err
}

type leaderRow struct {
	Holder       string     `db:"holder"`
	Token        int64      `db:"token"`
	ExpiresInMS  int64      `db:"expires_in_ms"`
	CoveredSince *time.Time `db:"covered_since"`
	CoveredUntil *time.Time `db:"covered_until"`
	Covering     bool       `db:"covering"`
}

// FindLeader reads who leads; NotFound while nobody does.
func (s *DB) FindLeader(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID) (managerapi.Lease, error) {
	var l leaderRow
	err := tx.GetContext(ctx, &l, `SELECT l.holder, l.token, (extract(epoch
		FROM l.expires_at - clock_timestamp()) * 1000)::bigint AS expires_in_ms,
			c.covered_since, c.covered_until, coalesce(c.covered_until > now() - $3 * interval '1 millisecond',
			false) AS covering
		FROM leases l LEFT JOIN coverage c ON c.messaging_exchange_id = $1 AND c.term = l.token
		WHERE l.name = $2 AND l.expires_at > clock_timestamp()`, ex, LeaderLease(ex), s.times.LiveWithin.Milliseconds())
	if err != nil {
		return managerapi.Lease{}, NotFound(err, "nobody leads exchange %d", ex)
	}
	return managerapi.Lease{Holder: l.Holder, Term: l.Token, ExpiresInMS: l.ExpiresInMS, CoveredSince: UTC(l.CoveredSince),
		CoveredUntil: UTC(l.CoveredUntil), Covering: l.Covering}, nil
}

// JudgeCovers says whether the exchange has a covering leader: only then does a verification's clock run.
func (s *DB) JudgeCovers(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID) (bool, error) {
	l, err := s.FindLeader(ctx, tx, ex)
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return l.Covering, err
}
