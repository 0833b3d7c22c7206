// Package lease is the one mechanism for leadership and for claims: a row that
// says who holds a name until when, and under which token.
//
// Invariants:
//   - The database's clock alone decides (clock_timestamp, not the start of the
//     transaction): no process compares its own clock with a row.
//   - Tokens come from one global sequence and only rise. A new token is given
//     whenever the holder changes or the lease had expired, so whoever holds a
//     token lower than the row's has been superseded.
//   - A lease alone is an efficiency. Safety is that every write made under it
//     checks the token in the same transaction: Valid.
//
// The table leases and the sequence lease_tokens are in the migrations of the
// service that uses it.
//
// On failure of the database nothing is decided: errors are returned as faults, and
// a holder stops trusting its lease before the row can expire.
package lease

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/postgres"
)

// CodeSuperseded is the code of the Conflict that tells a holder to stop.
const CodeSuperseded = "superseded"

// Lease is one row. ExpiresAt and Now are of the database's clock and belong
// together; compare neither with time.Now.
type Lease struct {
	Name      string          `db:"name"`
	Holder    string          `db:"holder"`
	Token     int64           `db:"token"`
	ExpiresAt time.Time       `db:"expires_at"`
	Data      json.RawMessage `db:"data"`
	Now       time.Time       `db:"now"`
}

// Expired says whether the lease had run out when it was read.
func (l Lease) Expired() bool { return !l.ExpiresAt.After(l.Now) }

// Remaining is how long the lease had to run when it was read, never negative.
func (l Lease) Remaining() time.Duration { return max(0, l.ExpiresAt.Sub(l.Now)) }

// MissedRenewal says whether the holder had missed a renewal when the lease was read: a holder renews at a third of
// ttl, and two fifths have passed since the last renewal.
func (l Lease) MissedRenewal(ttl time.Duration) bool { return l.Remaining() <= ttl-ttl*2/5 }

const columns = ` name, holder, token, expires_at, data, clock_timestamp() AS now`

// acquireSQL takes a free, an expired or the caller's own lease. The token and the
// data stay only if the holder goes on without a gap. A row of someone else that
// is not expired is not updated and so not returned.
const acquireSQL = `
INSERT INTO leases AS l (name, holder, token, expires_at)
VALUES ($1, $2, nextval('lease_tokens'), clock_timestamp() + make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE SET
	holder = excluded.holder,
	token = CASE WHEN l.holder = excluded.holder AND l.expires_at > clock_timestamp() THEN l.token
	ELSE nextval('lease_tokens') END,
	data = CASE WHEN l.holder = excluded.holder AND l.expires_at > clock_timestamp() THEN l.data ELSE '{}' END,
	expires_at = clock_timestamp() + make_interval(secs => $3)
WHERE l.holder = excluded.holder OR l.expires_at <= clock_timestamp()
RETURNING` + columns

// Acquire takes the lease for holder if it is free, expired or holder's own, and
// returns it with true. Otherwise it returns the lease of the one who has it and
// false. A new holder, or one whose lease had expired, gets a new token and empty
// data. holder names one process, not one host: after a restart the same host is
// another holder.
func Acquire(ctx context.Context, tx sqlx.ExtContext, name, holder string, ttl time.Duration) (Lease, bool, error) {
	if name == "" || holder == "" || ttl <= 0 {
		return Lease{}, false, fault.New(fault.Internal,
			"acquire lease %q for %q over %s: name, holder and a positive ttl are needed", name, holder, ttl)
	}
	var l Lease
	err := sqlx.GetContext(ctx, tx, &l, acquireSQL, name, holder, ttl.Seconds())
	if err == nil {
		return l, true, nil
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return Lease{}, false, fmt.Errorf("acquire lease %s: %w", name, postgres.Translate(err))
	}
	l, err = Get(ctx, tx, name)
	if fault.Is(err, fault.NotFound) {
		return Lease{}, false, nil // its holder released it at this instant: the next attempt may win
	}
	return l, false, err
}

const renewSQL = `
UPDATE leases SET expires_at = clock_timestamp() + make_interval(secs => $3), data = COALESCE($4, data)
WHERE name = $1 AND token = $2
RETURNING` + columns

// Renew extends the lease that was taken under token by ttl from now, and replaces
// its data unless data is nil. A lease that has expired but that nobody has taken
// over is extended: only a higher token ends a hold. Otherwise the error is a
// Conflict with code "superseded".
func Renew(ctx context.Context, tx sqlx.ExtContext, name string, token int64, ttl time.Duration,
	data json.RawMessage) (Lease, error) {
	var l Lease
	var text any
	if data != nil {
		text = string(data)
	}
	err := sqlx.GetContext(ctx, tx, &l, renewSQL, name, token, ttl.Seconds(), text)
	if errors.Is(err, sql.ErrNoRows) {
		return Lease{}, superseded(name, token)
	}
	if err != nil {
		return Lease{}, fmt.Errorf("renew lease %s: %w", name, postgres.Translate(err))
	}
	return l, nil
}

// releaseSQL keeps the row under a new token of nobody. Deleting it would let the
// insert of another, whose token was drawn before, bring the token of the name down.
const releaseSQL = `
UPDATE leases SET holder = '', token = nextval('lease_tokens'), data = '{}', expires_at = clock_timestamp()
WHERE name = $1 AND token = $2`

// Release ends the lease that was taken under token, so that the next one need not
// wait for its expiry; a renewal that is still under way is refused. It reports
// whether there was anything to release; a lease that somebody else holds by now
// is left alone and is no error. The row stays: its owner deletes the rows of
// names that are never used again.
func Release(ctx context.Context, tx sqlx.ExtContext, name string, token int64) (bool, error) {
	result, err := tx.ExecContext(ctx, releaseSQL, name, token)
	if err != nil {
		return false, fmt.Errorf("release lease %s: %w", name, postgres.Translate(err))
	}
	n, err := result.RowsAffected()
	return n > 0, postgres.Translate(err)
}

// validSQL locks the row: nobody takes the lease over before the transaction that
// writes under it has ended.
const validSQL = `SELECT` + columns + ` FROM leases WHERE name = $1 FOR SHARE`

// Valid returns nil if token holds the lease and it has not expired, and otherwise
// a Conflict with code "superseded". Called in the transaction of a write it
// fences that write: until the transaction ends, the lease does not change hands,
// and its renewals wait, so keep it short. A read-only transaction cannot call it.
func Valid(ctx context.Context, tx sqlx.ExtContext, name string, token int64) error {
	var l Lease
	err := sqlx.GetContext(ctx, tx, &l, validSQL, name)
	if errors.Is(err, sql.ErrNoRows) || err == nil && (l.Token != token || l.Expired()) {
		return superseded(name, token)
	}
	if err != nil {
		return fmt.Errorf("check lease %s: %w", name, postgres.Translate(err))
	}
	return nil
}

// Get reads the lease, expired or not; NotFound if nobody ever took it or the last
// holder released it.
func Get(ctx context.Context, tx sqlx.ExtContext, name string) (Lease, error) {
	var l Lease
	err := sqlx.GetContext(ctx, tx, &l, `SELECT`+columns+` FROM leases WHERE name = $1`, name)
	if errors.Is(err, sql.ErrNoRows) || err == nil && l.Holder == "" {
		return Lease{}, fault.New(fault.NotFound, "nobody holds the lease %s", name)
	}
	if err != nil {
		return Lease{}, fmt.Errorf("read lease %s: %w", name, postgres.Translate(err))
	}
	return l, nil
}

func superseded(name string, token int64) error {
	return fault.New(fault.Conflict, "token %d does not hold the lease %s any more", token, name).WithCode(CodeSuperseded)
}
