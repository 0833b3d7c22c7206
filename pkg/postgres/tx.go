package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jmoiron/sqlx"
)

const (
	maxAttempts = 5
	firstPause  = 20 * time.Millisecond
)

// InTx runs fn in one transaction (read committed) and commits it when fn returns
// nil. After a deadlock or a serialization failure the whole of fn runs again, at
// most five times in all, with full jitter and within ctx: fn must do nothing but
// SQL. An unknown outcome of the commit is not repeated (ErrCommitUnknown). A
// panic rolls back. Errors come translated.
func (db *DB) InTx(ctx context.Context, fn func(tx *sqlx.Tx) error) error {
	return db.retry(ctx, &sql.TxOptions{}, fn)
}

// InReadTx is InTx over one unchanging view of the data: repeatable read, read
// only.
func (db *DB) InReadTx(ctx context.Context, fn func(tx *sqlx.Tx) error) error {
	return db.retry(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}, fn)
}

func (db *DB) retry(ctx context.Context, options *sql.TxOptions, fn func(tx *sqlx.Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := db.once(ctx, options, fn)
		if attempt == maxAttempts || !Retryable(err) {
			return Translate(err)
		}
		select {
		case <-ctx.Done():
			return Translate(err)
		case <-time.After(rand.N(firstPause << attempt)):
		}
	}
}

func (db *DB) once(ctx context.Context, options *sql.TxOptions, fn func(tx *sqlx.Tx) error) error {
	tx, err := db.BeginTxx(ctx, options)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing; a panic of fn passes through here
	if err := fn(tx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err() // known: nothing was committed
	}
	if err := commitError(tx.Commit()); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}
