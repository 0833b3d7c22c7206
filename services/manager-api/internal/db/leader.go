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

// LeaderLeaseOf is LeaderLease in SQL: exchange is an expression for the id.
func LeaderLeaseOf(exchange string) string { return `'overseer/' || ` + exchange }

// LeaderCovers is, in SQL, whether an exchange has a leader who covers it: the lease holds, and the leader has reported
// coverage under its term within live_within. exchange is an expression for the id, live is the placeholder of
// live_within in milliseconds.
func LeaderCovers(exchange, live string) string {
	return `EXISTS (SELECT 1 FROM leases lead
		JOIN coverage reported ON reported.messaging_exchange_id = ` + exchange + ` AND reported.term = lead.token
		WHERE lead.name = ` + LeaderLeaseOf(exchange) + ` AND lead.expires_at > clock_timestamp()
			AND reported.covered_until > now() - ` + live + ` * interval '1 millisecond')`
}

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
			c.covered_since, c.covered_until, `+LeaderCovers("$1::bigint", "$3")+` AS covering
		FROM leases l LEFT JOIN coverage c ON c.messaging_exchange_id = $1 AND c.term = l.token
		WHERE l.name = $2 AND l.expires_at > clock_timestamp()`, ex, LeaderLease(ex), s.times.LiveWithin.Milliseconds())
	if err != nil {
		return managerapi.Lease{}, NotFound(err, "nobody leads exchange %d", ex)
	}
	return managerapi.Lease{Holder: l.Holder, Term: l.Token, ExpiresInMS: l.ExpiresInMS, CoveredSince: UTC(l.CoveredSince),
		CoveredUntil: UTC(l.CoveredUntil), Covering: l.Covering}, nil
}
