package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// slack is how much longer than the server's own timeout the socket waits.
const slack = 2 * time.Second

// DB is a pool. Its Query and Exec methods are those of sqlx; pass their errors
// through Translate.
type DB struct{ *sqlx.DB }

// Open makes the pool for requests. It does not connect: an unreachable server is
// no error here, only a wrong configuration is.
func Open(c Config) (*DB, error) { return c.open(c.MaxOpen, c.StatementTimeout, c.LockTimeout) }

// OpenForLeases makes a second, small pool whose statements end sooner: a renewal
// must neither queue behind requests nor hang (it needs LeaseTimeout + 2 s at
// worst, on a server that went silent).
func OpenForLeases(c Config) (*DB, error) {
	return c.open(2, c.LeaseTimeout, min(c.LockTimeout, c.LeaseTimeout))
}

// loopConnections is the size of the pool of OpenForLoops: the relays, the sweeper's workers and its beat.
const loopConnections = 6

// OpenForLoops makes a pool of its own for a service's periodic work, so that no number of requests, nor clients that
// read slowly, keep the work from its turn.
func OpenForLoops(c Config) (*DB, error) {
	return c.open(loopConnections, c.StatementTimeout, c.LockTimeout)
}

// OpenForMigrations makes a pool without statement timeout and socket deadline,
// because a migration may take long. LockTimeout holds: a migration that waits for
// a lock stalls everything behind it.
func OpenForMigrations(c Config) (*DB, error) { return c.open(2, 0, c.LockTimeout) }

func (c Config) open(maxOpen int, statement, lock time.Duration) (*DB, error) {
	u, err := c.endpoint()
	if err != nil {
		return nil, err
	}
	dial, err := pq.NewConnector(c.dsn(u, statement, lock))
	if err != nil {
		return nil, fmt.Errorf("url: a parameter is not understood") // the driver's error may show the password
	}
	limit := time.Duration(0)
	if statement > 0 {
		limit = statement + slack
	}
	dial.Dialer(dialer{read: limit, write: limit})
	pool := sql.OpenDB(connector{dial})
	pool.SetMaxOpenConns(maxOpen)
	pool.SetMaxIdleConns(maxOpen)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	pool.SetConnMaxLifetime(20*time.Minute + rand.N(10*time.Minute)) // jittered: replicas do not reconnect together
	return &DB{DB: sqlx.NewDb(pool, "postgres")}, nil
}

// Ping says whether the server answers within the limits and takes writes; it suits Health.Add.
func (db *DB) Ping(ctx context.Context) error { return Translate(db.PingContext(ctx)) }
