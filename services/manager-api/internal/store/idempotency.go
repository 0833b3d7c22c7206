package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/openaperture/openaperture/pkg/fault"
)

// Codes of a refused Idempotency-Key.
const (
	CodeKeyUnanswered = "idempotency_key_unanswered" // the first request with it has not ended, or nobody knows how
	CodeKeyReused     = "idempotency_key_reused"     // it was used for another request
)

// keyKept is how long a key is kept, with its answer or without: a request that died with its process, or lost its
// COMMIT, may have had its effect, so it is not repeated.
const keyKept = 24 * time.Hour

// KeptAnswer is what the first request with a key was answered.
type KeptAnswer struct {
	Status  int
	Headers JSON
	Body    []byte
}

// TakeKey takes an Idempotency-Key for a request of this hash. It returns the answer that is kept for it, or nil if the
// caller now has to do the work and to call KeepAnswer, or DropKey if it is certain that there was no effect. Conflict: it
// has no answer yet, or was used otherwise.
func (s *Store) TakeKey(ctx context.Context, caller, key string, hash []byte) (*KeptAnswer, error) {
	var kept *KeptAnswer
	err := s.tx(ctx, func(tx *sqlx.Tx) error {
		kept = nil
		_, err := tx.ExecContext(ctx, `DELETE FROM idempotency_keys WHERE created_at < now() - $1 * interval '1 second'`, keyKept.Seconds())
		if err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, `INSERT INTO idempotency_keys (caller, key, request_hash) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, caller, key, hash)
		if err != nil {
			return err
		}
		if n, _ := res.RowsAffected(); n == 1 {
			return nil
		}
		kept, err = keptAnswer(ctx, tx, caller, key, hash)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("take idempotency key: %w", err)
	}
	return kept, nil
}

func keptAnswer(ctx context.Context, tx *sqlx.Tx, caller, key string, hash []byte) (*KeptAnswer, error) {
	row, err := one[struct {
		Same    bool   `db:"same"`
		Status  *int   `db:"status"`
		Headers JSON   `db:"headers"`
		Body    []byte `db:"body"`
	}](ctx, tx, `SELECT request_hash = $3 AS same, status, headers, body FROM idempotency_keys WHERE caller = $1 AND key = $2`, caller, key, hash)
	switch {
	case err != nil:
		return nil, err
	case !row.Same:
		return nil, fault.New(fault.Conflict, "the idempotency key was used for another request").WithCode(CodeKeyReused)
	case row.Status == nil:
		return nil, fault.New(fault.Conflict, "the first request with this idempotency key is running, or was lost before its outcome was known: "+
			"try again in a moment, and if this stays, look whether it has had its effect before you use another key").WithCode(CodeKeyUnanswered)
	}
	return &KeptAnswer{Status: *row.Status, Headers: row.Headers, Body: row.Body}, nil
}

// KeepAnswer keeps the answer of the request that took the key.
func (s *Store) KeepAnswer(ctx context.Context, caller, key string, a KeptAnswer) error {
	err := s.tx(ctx, func(tx *sqlx.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE idempotency_keys SET status = $3, headers = $4, body = $5 WHERE caller = $1 AND key = $2`,
			caller, key, a.Status, a.Headers, a.Body)
		return err
	})
	if err != nil {
		return fmt.Errorf("keep answer of idempotency key: %w", err)
	}
	return nil
}

// DropKey gives a key back after a request without effect.
func (s *Store) DropKey(ctx context.Context, caller, key string) error {
	err := s.tx(ctx, func(tx *sqlx.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM idempotency_keys WHERE caller = $1 AND key = $2 AND status IS NULL`, caller, key)
		return err
	})
	if err != nil {
		return fmt.Errorf("drop idempotency key: %w", err)
	}
	return nil
}
