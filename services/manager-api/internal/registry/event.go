package registry

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// EventRow is a SystemEvent.
type EventRow struct {
	ID int64 `json:"id" db:"id"`
	EventSpec
	DismissedAt     *db.Stamp `json:"dismissed_at" db:"dismissed_at"`
	DismissedByID   *int64    `json:"dismissed_by_id" db:"dismissed_by_id"`
	DismissedReason *string   `json:"dismissed_reason" db:"dismissed_reason"`
	AssignedAt      *db.Stamp `json:"assigned_at" db:"assigned_at"`
	AssigneeID      *int64    `json:"assignee_id" db:"assignee_id"`
	AssignedByID    *int64    `json:"assigned_by_id" db:"assigned_by_id"`
	InsertedAt      db.Stamp  `json:"inserted_at" db:"inserted_at"`
	UpdatedAt       db.Stamp  `json:"updated_at" db:"updated_at"`
}

// EventSpec is what the one who raises an event states, and the exchange that it is about; nil is the whole platform.
type EventSpec struct {
	Type     string  `json:"type" db:"type"`
	Message  *string `json:"message" db:"message"`
	Severity string  `json:"severity" db:"severity"`
	Data     db.JSON `json:"data" db:"data"`

	ExchangeID *component.ExchangeID `json:"messaging_exchange_id" db:"messaging_exchange_id"`
}

const eventColumns = `id, type, message, severity, data, messaging_exchange_id, dismissed_at, dismissed_by_id,
	dismissed_reason, assigned_at, assignee_id, assigned_by_id,
	inserted_at, updated_at`

// EventQuery selects events: of the last Lookback hours (≤ 0: all), assigned to one user unless that is nil. A part
// with an exchange has those about that exchange alone.
type EventQuery struct {
	db.Part
	Lookback int
	Assignee *int64
}

// EachEvent lists events by id, dismissed ones included.
func (s *Registry) EachEvent(ctx context.Context, q EventQuery, fn func(EventRow) error) error {
	return db.Each(ctx, s.db.Pool, q.Limit, func(r EventRow) int64 { return r.ID }, fn,
		`SELECT `+eventColumns+` FROM system_events
		WHERE ($1 <= 0 OR inserted_at >= now() - $1 * interval '1 hour')
		AND ($2::bigint IS NULL OR assignee_id = $2)
		AND ($3 = 0 OR messaging_exchange_id = $3)`, q.Lookback, q.Assignee, q.Exchange)
}

// Event reads one event, if it is about the exchange (0: any).
func (s *Registry) Event(ctx context.Context, id int64, exchange component.ExchangeID) (EventRow, error) {
	row, err := db.One[EventRow](ctx, s.db.Pool, `SELECT `+eventColumns+` FROM system_events WHERE id = $1
		AND ($2 = 0 OR messaging_exchange_id = $2)`, id, exchange)
	if err != nil {
		return row, fmt.Errorf("read event %d: %w", id, err)
	}
	return row, nil
}

// CreateEvent raises an event. A unique one is a Conflict while the same (type, severity, message, data and exchange)
// was raised within the hour and is not dismissed. Invalid: the exchange does not exist.
func (s *Registry) CreateEvent(ctx context.Context, spec EventSpec, unique bool) (int64, error) {
	var id int64
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		if unique {
			if err := notRaised(ctx, tx, spec); err != nil {
				return err
			}
		}
		err := tx.GetContext(ctx, &id, `INSERT INTO system_events (type, message, severity, data, messaging_exchange_id)
			VALUES ($1, $2, $3, $4, $5) RETURNING id`,
			spec.Type, spec.Message, spec.Severity, spec.Data, spec.ExchangeID)
		if err != nil {
			return db.UnknownExchange(err)
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: eventSubject(id), Code: "event_raised",
			Inputs: map[string]string{"type": spec.Type, "severity": spec.Severity}})
	})
	if err != nil {
		return 0, fmt.Errorf("raise event %q: %w", spec.Type, err)
	}
	return id, nil
}

func eventSubject(id int64) string { return "system_event/" + strconv.FormatInt(id, 10) }

// notRaised looks for the same event under a lock on its type, so that of two at once one is refused.
func notRaised(ctx context.Context, tx *sqlx.Tx, spec EventSpec) error {
	if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtext('system_event/' || $1))`,
		spec.Type); err != nil {
		return fmt.Errorf("lock events of type %q: %w", spec.Type, err)
	}
	raised, err := db.One[bool](ctx, tx, `SELECT EXISTS (SELECT 1 FROM system_events WHERE type = $1 AND severity = $2
		AND message IS NOT DISTINCT FROM $3 AND data IS NOT DISTINCT FROM $4::jsonb
		AND messaging_exchange_id IS NOT DISTINCT FROM $5
		AND dismissed_at IS NULL AND inserted_at > now() - interval '1 hour')`,
		spec.Type, spec.Severity, spec.Message, spec.Data, spec.ExchangeID)
	if err != nil {
		return err
	}
	if raised {
		return fault.New(fault.Conflict, "this event was raised within the last hour")
	}
	return nil
}

// AssignEvent gives an event to a user. Invalid: the user does not exist.
func (s *Registry) AssignEvent(ctx context.Context, id, assignee int64) error {
	return s.changeEvent(ctx, id, "event_assigned", &assignee,
		`UPDATE system_events SET assignee_id = $2, assigned_at = now(), assigned_by_id = NULL, updated_at = now()
		WHERE id = $1`, assignee)
}

// DismissEvent closes an event, again on a repeat. Invalid: the user does not exist; nil is nobody.
func (s *Registry) DismissEvent(ctx context.Context, id int64, by *int64, reason *string) error {
	return s.changeEvent(ctx, id, "event_dismissed", by,
		`UPDATE system_events SET dismissed_at = now(), dismissed_by_id = $2, dismissed_reason = $3, updated_at = now()
		WHERE id = $1`, by, reason)
}

func (s *Registry) changeEvent(ctx context.Context, id int64, code string, user *int64, statement string,
	args ...any) error {
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		if _, err := db.One[int64](ctx, tx, `SELECT id FROM system_events WHERE id = $1 FOR UPDATE`, id); err != nil {
			return err
		}
		known, err := db.One[bool](ctx, tx, `SELECT $1::integer IS NULL OR EXISTS (SELECT 1 FROM users WHERE id = $1)`, user)
		if err != nil || !known {
			return orWrong(err, "user", "is unknown")
		}
		if _, err := tx.ExecContext(ctx, statement, append([]any{id}, args...)...); err != nil {
			return err
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: eventSubject(id), Code: code,
			Inputs: map[string]any{"user_id": user}})
	})
	if err != nil {
		return fmt.Errorf("change event %d: %w", id, err)
	}
	return nil
}
