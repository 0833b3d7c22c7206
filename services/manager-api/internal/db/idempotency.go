package db

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/postgres"
)

// Codes of a refused Idempotency-Key.
const (
	CodeKeyUnanswered = "idempotency_key_unanswered" // the first request with it has not ended, or nobody knows how
	CodeKeyReused     = "idempotency_key_reused"     // it was used for another request
)

// KeepKey is how long a key is kept, with its answer or without: a request that died with its process, or lost its
// COMMIT, may have had its effect, so it is not repeated.
const KeepKey = 24 * time.Hour

// Key is an Idempotency-Key that a request has taken. Who took it tells it from the same key in other hands.
type Key struct {
	Caller, Name string
	taken        time.Time
}

// KeptAnswer is what the first request with a key was answered.
type KeptAnswer struct {
	Status  int
	Headers JSON
	Body    []byte
}

// TakeKey takes an Idempotency-Key for a request of this hash. It returns the answer that is kept for it, or nil if the
// caller now has to do the work and to call SettleKey, unless nobody knows whether there was an effect. Conflict: it
// has no answer yet, or was used otherwise.
func (s *DB) TakeKey(ctx context.Context, caller, key string, hash []byte) (Key, *KeptAnswer, error) {
	k := Key{Caller: caller, Name: key}
	var kept *KeptAnswer
	err := s.Tx(ctx, func(tx *sqlx.Tx) error {
		kept = nil
		_, err := tx.ExecContext(ctx, `DELETE FROM idempotency_keys WHERE caller = $1 AND key = $2
			AND created_at < now() - $3 * interval '1 millisecond'`,
			caller, key, KeepKey.Milliseconds())
		if err != nil {
			return err
		}
		var taken []time.Time
		err = tx.SelectContext(ctx, &taken, `INSERT INTO idempotency_keys (caller, key, request_hash, created_at)
			VALUES ($1, $2, $3, clock_timestamp())
			ON CONFLICT DO NOTHING RETURNING created_at`, caller, key, hash)
		if err != nil {
			return err
		}
		if len(taken) == 1 {
			k.taken = taken[0]
			return nil
		}
		kept, err = keptAnswer(ctx, tx, caller, key, hash)
		return err
	})
	if errors.Is(err, postgres.ErrCommitUnknown) && kept == nil {
		s.unsettled.add(settlement{key: k}) // it may be taken, and nothing follows
	}
	if err != nil {
		return k, nil, fmt.Errorf("take idempotency key: %w", err)
	}
	return k, kept, nil
}

func keptAnswer(ctx context.Context, tx *sqlx.Tx, caller, key string, hash []byte) (*KeptAnswer, error) {
	row, err := One[struct {
		Same    bool   `db:"same"`
		Status  *int   `db:"status"`
		Headers JSON   `db:"headers"`
		Body    []byte `db:"body"`
	}](ctx, tx, `SELECT request_hash = $3 AS same, status, headers, body FROM idempotency_keys WHERE caller = $1
		AND key = $2`, caller, key, hash)
	switch {
	case err != nil:
		return nil, err
	case !row.Same:
		return nil, fault.New(fault.Conflict, "the idempotency key was used for another request").WithCode(CodeKeyReused)
	case row.Status == nil:
		return nil, fault.New(fault.Conflict,
			"the first request with this idempotency key is running, or was lost before its outcome was known: "+
				"try again in a moment, and if this stays, look whether it has had its effect before you use another key").
			WithCode(CodeKeyUnanswered)
	}
	return &KeptAnswer{Status: *row.Status, Headers: row.Headers, Body: row.Body}, nil
}

// SettleKey keeps the answer of the request that took the key; nil is of one without effect, and gives the key back.
// What the database does not take now is tried again by Prune: else what had no effect, too, would be refused for
// keepKey.
func (s *DB) SettleKey(ctx context.Context, k Key, a *KeptAnswer) error {
	err := s.settle(ctx, settlement{k, a})
	if err != nil {
		s.unsettled.add(settlement{k, a})
	}
	return err
}

// settlement is how a key is to be settled: with an answer, or given back.
type settlement struct {
	key    Key
	answer *KeptAnswer
}

// settle may be repeated: the key that it means is taken once, and answered once.
func (s *DB) settle(ctx context.Context, x settlement) error {
	err := s.Tx(ctx, func(tx *sqlx.Tx) error {
		const this = ` WHERE caller = $1 AND key = $2 AND created_at = $3 AND status IS NULL`
		if x.answer == nil {
			_, err := tx.ExecContext(ctx, `DELETE FROM idempotency_keys`+this, x.key.Caller, x.key.Name, x.key.taken)
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE idempotency_keys SET status = $4, headers = $5, body = $6`+this,
			x.key.Caller, x.key.Name, x.key.taken, x.answer.Status, x.answer.Headers, x.answer.Body)
		return err
	})
	if err != nil {
		return fmt.Errorf("settle idempotency key: %w", err)
	}
	return nil
}

// SettleKeys settles what could not be settled before.
func (s *DB) SettleKeys(ctx context.Context) error {
	var failed error
	for _, x := range s.unsettled.takeAll() {
		failed = errors.Join(failed, s.SettleKey(ctx, x.key, x.answer))
	}
	return failed
}

// unsettled are the settlements that this process still owes.
type unsettled struct {
	mu   sync.Mutex
	list []settlement
}

func (u *unsettled) add(x settlement) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.list = append(u.list, x)
}

func (u *unsettled) takeAll() []settlement {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := u.list
	u.list = nil
	return list
}
