package engine

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// CodeFrozen refuses a start while a freeze holds.
const CodeFrozen = "frozen"

// Everything is the scope of a freeze of all exchanges.
const Everything component.ExchangeID = 0

const freezeColumns = `messaging_exchange_id, created_by, reason, created_at, until`

// holding is, in SQL, the condition that a freeze f holds now.
const holding = `(f.until IS NULL OR f.until > now())`

// Freeze stops an exchange, or Everything: nothing starts there until the given instant, or until Thaw. What runs goes
// on to its end, and rollbacks pass. A freeze that is there already is replaced.
func (s *Engine) Freeze(ctx context.Context, ex component.ExchangeID, reason string,
	until *time.Time) (f managerapi.Freeze,
	err error) {
	err = s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		if err := requireExchange(ctx, tx, ex); err != nil {
			return err
		}
		err := tx.GetContext(ctx, &f, `INSERT INTO freezes (messaging_exchange_id, created_by, reason, until)
			VALUES (nullif($1::bigint, 0), $2, $3, $4)
			ON CONFLICT (coalesce(messaging_exchange_id, 0)) DO UPDATE SET created_by = excluded.created_by,
				reason = excluded.reason, until = excluded.until, created_at = now()
			RETURNING `+freezeColumns, ex, db.ActorOf(ctx).Name, reason, until)
		if err != nil {
			return fmt.Errorf("freeze exchange %d: %w", ex, err)
		}
		if f.Until != nil && !f.Until.After(f.CreatedAt) {
			return fault.New(fault.Invalid, "until is in the past: leave it out to freeze until DELETE")
		}
		return tellFreeze(ctx, tx, ex, "frozen", "nothing starts: "+reason, map[string]any{"until": until})
	})
	return f, err
}

// Thaw ends a freeze. NotFound: none holds.
func (s *Engine) Thaw(ctx context.Context, ex component.ExchangeID) error {
	return s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE freezes f SET until = now()
			WHERE coalesce(messaging_exchange_id, 0) = $1 AND `+holding, ex)
		if err != nil {
			return fmt.Errorf("end the freeze of exchange %d: %w", ex, err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fault.New(fault.NotFound, "no freeze holds there"))
		}
		return tellFreeze(ctx, tx, ex, "thawed", "the freeze was ended", nil)
	})
}

// tellFreeze records a freeze or its end, tells people, and wakes the overseers that it concerns.
func tellFreeze(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, code, message string,
	inputs map[string]any) error {
	subject, scope := "platform", (*component.ExchangeID)(nil)
	if ex != Everything {
		subject, scope = db.ExchangeSubject(ex), &ex
	}
	if err := db.WriteJournal(ctx, tx, db.Entry{Subject: subject, Code: code, Message: message,
		Inputs: inputs}); err != nil {
		return err
	}
	if err := db.RaiseEvent(ctx, tx, scope, code, db.SeverityWarning, message,
		map[string]any{"messaging_exchange_id": scope}); err != nil {
		return err
	}
	var waiting []struct {
		Exchange  component.ExchangeID `db:"messaging_exchange_id"`
		Component component.ID         `db:"component_id"`
		ID        string               `db:"id"`
	}
	err := tx.SelectContext(ctx, &waiting, `SELECT DISTINCT ON (messaging_exchange_id) messaging_exchange_id, component_id,
		id
		FROM upgrades WHERE state = 'requested' AND $1::bigint IN (0, messaging_exchange_id)`, ex)
	if err != nil {
		return fmt.Errorf("list who waits: %w", err)
	}
	for _, u := range waiting {
		if err := db.RingOverseer(ctx, tx, u.Exchange, u.Component, u.ID); err != nil {
			return err
		}
	}
	return nil
}

// FreezeOf reads the freeze of exactly this scope. NotFound: none holds.
func (s *Engine) FreezeOf(ctx context.Context, ex component.ExchangeID) (f managerapi.Freeze, err error) {
	err = s.db.View(ctx, func(tx *sqlx.Tx) error {
		if err := requireExchange(ctx, tx, ex); err != nil {
			return err
		}
		err := tx.GetContext(ctx, &f, `SELECT `+freezeColumns+` FROM freezes f
			WHERE coalesce(messaging_exchange_id, 0) = $1 AND `+holding, ex)
		return db.NotFound(err, "no freeze holds there")
	})
	return f, err
}

// freezeFor is the freeze that holds for an exchange, its own before that of everything; nil: none.
func freezeFor(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID) (*managerapi.Freeze, error) {
	var f managerapi.Freeze
	err := tx.GetContext(ctx, &f, `SELECT `+freezeColumns+` FROM freezes f
		WHERE coalesce(messaging_exchange_id, 0) IN (0, $1) AND `+holding+`
		ORDER BY messaging_exchange_id NULLS LAST LIMIT 1`, ex)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the freeze of exchange %d: %w", ex, err)
	}
	return &f, nil
}

// requireThawed is a Conflict while a freeze holds for the exchange.
func requireThawed(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID) error {
	f, err := freezeFor(ctx, tx, ex)
	if err != nil || f == nil {
		return err
	}
	return fault.New(fault.Conflict, "%s", f.String()).WithCode(CodeFrozen)
}

func requireExchange(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID) error {
	if ex == Everything {
		return nil
	}
	_, err := db.FindExchange(ctx, tx, ex)
	return err
}
