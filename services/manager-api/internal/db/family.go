package db

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/postgres"
)

// The rows of the predecessor's families are shown as they are stored: their json names are its field names.

// Stamp is an instant as those families show it: RFC 1123 with the zone UTC, in seconds.
type Stamp struct{ time.Time }

// MarshalJSON shows "Tue, 23 Jun 2015 19:39:11 UTC".
func (s Stamp) MarshalJSON() ([]byte, error) {
	return []byte(`"` + s.UTC().Format(time.RFC1123) + `"`), nil
}

// Scan reads a timestamptz.
func (s *Stamp) Scan(src any) error {
	t, ok := src.(time.Time)
	if !ok {
		return fmt.Errorf("scan %T as an instant", src)
	}
	s.Time = t.UTC()
	return nil
}

// JSON is any JSON value; nil is stored as NULL and shown as null.
type JSON []byte

// MarshalJSON shows the value.
func (j JSON) MarshalJSON() ([]byte, error) {
	if len(j) == 0 {
		return []byte("null"), nil
	}
	return j, nil
}

// Scan reads a jsonb.
func (j *JSON) Scan(src any) error {
	switch v := src.(type) {
	case nil:
		*j = nil
	case []byte:
		*j = append(JSON(nil), v...)
	case string:
		*j = JSON(v)
	default:
		return fmt.Errorf("scan %T as JSON", src)
	}
	return nil
}

// Value writes a jsonb; a JSON null is NULL too.
func (j JSON) Value() (driver.Value, error) {
	if len(j) == 0 || string(j) == "null" {
		return nil, nil
	}
	return string(j), nil
}

// Part selects rows of a list: those of one exchange, unless Exchange is 0, and at most Limit, unless that is 0.
type Part struct {
	Exchange component.ExchangeID
	Limit    int
}

// Max is NULL, which is no limit, for 0.
func (p Part) Max() any {
	if p.Limit == 0 {
		return nil
	}
	return p.Limit
}

// Each hands the rows of a query to fn one by one, so that a whole list never sits in memory. An error of fn ends it
// and comes back as it is.
func Each[T any](ctx context.Context, db *postgres.DB, fn func(T) error, query string, args ...any) error {
	rows, err := db.QueryxContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("query rows: %w", postgres.Translate(err))
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var row T
		if err := rows.StructScan(&row); err != nil {
			return fmt.Errorf("scan row: %w", err)
		}
		if err := fn(row); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read rows: %w", postgres.Translate(err))
	}
	return nil
}

// One reads one row; none is NotFound.
func One[T any](ctx context.Context, q sqlx.QueryerContext, query string, args ...any) (T, error) {
	var row T
	if err := sqlx.GetContext(ctx, q, &row, query, args...); err != nil {
		return row, postgres.Translate(err)
	}
	return row, nil
}

// Guard refuses a change on the sight of the row as it is, under its lock: a precondition of the caller, or its reach.
type Guard[T any] func(T) error

// Check calls the guard; a nil one lets everything pass.
func (g Guard[T]) Check(row T) error {
	if g == nil {
		return nil
	}
	return g(row)
}

// Use names what stands in the way of a deletion.
type Use struct {
	Kind string `json:"kind" db:"kind"` // e.g. system_component
	ID   string `json:"id" db:"id"`
	Name string `json:"name" db:"name"`
}

// InUse is a Conflict that lists what depends on the thing.
type InUse struct {
	What string
	Uses []Use
}

// Error says how many things depend on it; the list is for the answer.
func (e *InUse) Error() string { return fmt.Sprintf("%s is in use by %d others", e.What, len(e.Uses)) }

// Unwrap gives the error its kind.
func (e *InUse) Unwrap() error {
	return fault.New(fault.Conflict, "%s is in use", e.What).WithCode("in_use")
}

// FindUses reads what depends on a thing; with none it returns nil.
func FindUses(ctx context.Context, tx *sqlx.Tx, what, query string, args ...any) error {
	var list []Use
	if err := tx.SelectContext(ctx, &list, query, args...); err != nil {
		return fmt.Errorf("list what uses %s: %w", what, err)
	}
	if len(list) > 0 {
		return &InUse{What: what, Uses: list}
	}
	return nil
}

// WrongField is Invalid with one field.
func WrongField(field, message string) error {
	return fault.New(fault.Invalid, "%s %s", field, message).WithFields(fault.Field{Name: field, Message: message})
}
