// Package store is manager-api's memory: the only place that speaks SQL.
//
// Invariants: an exported method owns one transaction, an unexported one takes tx. Every change writes its journal row
// in the same transaction. The state of an upgrade changes in move alone, by the table of pkg/upgrade. Rows are locked in
// the order lease, upgrade, workflow, order, component, so that writers that meet wait and do not deadlock. All instants
// come from the database's clock. Errors carry the kinds of pkg/fault.
package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/openaperture/openaperture/pkg/postgres"
	"github.com/openaperture/openaperture/pkg/times"
)

// Store reads and changes what manager-api remembers. It is safe for concurrent use, also by several processes.
type Store struct {
	db      *postgres.DB
	leases  *postgres.DB
	times   times.Times
	home    string
	version string
	ring    func()

	unsettled unsettled
}

// Config is what a Store needs.
type Config struct {
	DB     *postgres.DB
	Leases *postgres.DB // a pool of their own for leadership and claims; nil uses DB
	Times  times.Times
	Home   string // name of the exchange that manager-api itself belongs to
	// Version is this manager-api's own: what its upgrade to that version misses is its own fault.
	Version string
	// Ring is called after a commit that left messages to publish; it must not block. nil means nobody listens.
	Ring func()
}

// New makes a Store. It does not touch the database: Migrate does, and Usable says whether it has.
func New(c Config) *Store {
	if c.Ring == nil {
		c.Ring = func() {}
	}
	if c.Leases == nil {
		c.Leases = c.DB
	}
	return &Store{db: c.DB, leases: c.Leases, times: c.Times, home: c.Home, version: c.Version, ring: c.Ring}
}

// tx runs fn in one transaction and rings for the messages that it may have left in the outbox. fn may run several
// times after deadlocks: it must do nothing but SQL and set what it returns.
func (s *Store) tx(ctx context.Context, fn func(tx *sqlx.Tx) error) error {
	if err := s.db.InTx(ctx, fn); err != nil {
		return err
	}
	s.ring()
	return nil
}

// view runs fn over one unchanging view of the data (repeatable read, read only).
func (s *Store) view(ctx context.Context, fn func(tx *sqlx.Tx) error) error {
	return s.db.InReadTx(ctx, fn)
}

// Ping says whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return s.db.Ping(ctx) }

// Now is the instant of the database's clock.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	var now time.Time
	if err := s.db.GetContext(ctx, &now, `SELECT now()`); err != nil {
		return now, fmt.Errorf("read the database's clock: %w", postgres.Translate(err))
	}
	return now.UTC(), nil
}

// newID is a fresh UUIDv7: ids of new resources sort by age.
func newID() string { return uuid.Must(uuid.NewV7()).String() }

// idOf is an id from outside, to be compared with a uuid column by its index. What is no UUID becomes NULL, which equals none.
func idOf(text string) uuid.NullUUID {
	id, err := uuid.Parse(text)
	return uuid.NullUUID{UUID: id, Valid: err == nil}
}

// older bounds a page of ids, newest first, by the cursor where the one before ended; "" begins with the newest.
func older(cursor string) uuid.NullUUID {
	if cursor == "" {
		return uuid.NullUUID{UUID: uuid.Max, Valid: true}
	}
	return idOf(cursor)
}

// jsonText encodes a value for a jsonb column.
func jsonText(v any) (string, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encode %T: %w", v, err)
	}
	return string(raw), nil
}

func textArray(list []string) any { return pq.Array(list) }
