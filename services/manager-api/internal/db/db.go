// Package db is what every part of manager-api's memory stands on: transactions, the journal, outbox and inbox,
// idempotency keys, the fence by term. It knows no policy.
//
// Invariants of all packages that speak SQL: an exported method owns one transaction, an unexported function takes tx.
// Every change writes its journal row in the same transaction. Rows are locked in the order lease, upgrade, workflow,
// order, component, so that writers that meet wait and do not deadlock. All instants come from the database's clock.
// Errors carry the kinds of pkg/fault.
package db

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/postgres"
	"github.com/openaperture/openaperture/pkg/times"
)

// DB is the database as manager-api uses it. It is safe for concurrent use, also by several processes.
type DB struct {
	Pool   *postgres.DB
	Leases *postgres.DB // a pool of its own for leadership and claims
	times  times.Times
	ring   func([]component.ExchangeID)

	unsettled *unsettled
}

// Config is what a DB needs.
type Config struct {
	Pool   *postgres.DB
	Leases *postgres.DB // nil uses Pool
	Times  times.Times
	// Ring is called after a commit that left messages, with the exchanges that they are for. It must not block. nil
	// means that nobody listens.
	Ring func([]component.ExchangeID)
}

// New makes a DB. New does not touch the database: Migrate does, and Usable says whether it has.
func New(c Config) *DB {
	if c.Ring == nil {
		c.Ring = func([]component.ExchangeID) {}
	}
	if c.Leases == nil {
		c.Leases = c.Pool
	}
	return &DB{Pool: c.Pool, Leases: c.Leases, times: c.Times, ring: c.Ring, unsettled: &unsettled{}}
}

// Over returns the same DB over another pool, for work that must not wait for the connections of this one.
func (s *DB) Over(pool *postgres.DB) *DB {
	over := *s
	over.Pool = pool
	return &over
}

// Tx runs fn in one transaction and rings for the messages that it has left in the outbox. fn may run several times
// after deadlocks: it must do nothing but SQL and set what it returns.
func (s *DB) Tx(ctx context.Context, fn func(tx *sqlx.Tx) error) error {
	var left []component.ExchangeID // by the last run of fn
	err := s.Pool.InTx(ctx, func(tx *sqlx.Tx) error {
		leaving.begin(tx)
		defer func() { left = leaving.end(tx) }()
		return fn(tx)
	})
	if err != nil {
		return err
	}
	if len(left) > 0 {
		s.ring(left)
	}
	return nil
}

// View runs fn over one unchanging view of the data (repeatable read, read only).
func (s *DB) View(ctx context.Context, fn func(tx *sqlx.Tx) error) error {
	return s.Pool.InReadTx(ctx, fn)
}

// Ping says whether the database answers.
func (s *DB) Ping(ctx context.Context) error { return s.Pool.Ping(ctx) }

// Now is the instant of the database's clock.
func (s *DB) Now(ctx context.Context) (time.Time, error) {
	var now time.Time
	if err := s.Pool.GetContext(ctx, &now, `SELECT now()`); err != nil {
		return now, fmt.Errorf("read the database's clock: %w", postgres.Translate(err))
	}
	return now.UTC(), nil
}

// NewID draws a fresh UUIDv7 by the database's clock: ids of new resources sort by age, whichever replica made them.
func NewID(ctx context.Context, tx *sqlx.Tx) (id string, err error) {
	if err := tx.GetContext(ctx, &id, `SELECT new_id()`); err != nil {
		return "", fmt.Errorf("draw an id: %w", err)
	}
	return id, nil
}

// ParseID is an id from outside, to be compared with a uuid column by its index. What is no UUID becomes NULL, which
// equals none.
func ParseID(text string) uuid.NullUUID {
	id, err := uuid.Parse(text)
	return uuid.NullUUID{UUID: id, Valid: err == nil}
}

// OlderThan bounds a page of ids, newest first, by the cursor where the one before ended; "" begins with the newest.
func OlderThan(cursor string) uuid.NullUUID {
	if cursor == "" {
		return uuid.NullUUID{UUID: uuid.Max, Valid: true}
	}
	return ParseID(cursor)
}

// JSONText encodes a value for a jsonb column.
func JSONText(v any) (string, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encode %T: %w", v, err)
	}
	return string(raw), nil
}

// TextArray passes a list of texts as an array parameter.
func TextArray(list []string) any { return pq.Array(list) }
