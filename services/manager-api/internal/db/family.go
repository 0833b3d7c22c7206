package db

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/google/uuid"
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

// pageRows is how many rows of a list are read at once.
const pageRows = 100

// Each hands the rows of a list to fn, in the order of their ids, at most limit of them unless that is 0. A whole list
// never sits in memory, and no connection is held while fn runs: fn may write to a client that reads slowly. So the
// list is read page by page, each page whole; a row that is made or removed meanwhile may be there or not.
//
// query selects without order and limit, and has a column id that is a whole number; or a uuid, if id returns a string.
// An error of fn ends the list and comes back as it is.
func Each[T any, ID int64 | string](ctx context.Context, pool *postgres.DB, limit int, id func(T) ID, fn func(T) error,
	query string, args ...any) error {
	var last any = int64(0)
	if _, text := any(*new(ID)).(string); text {
		last = uuid.Nil.String()
	}
	n := len(args)
	paged := fmt.Sprintf(`SELECT * FROM (%s) AS page WHERE page.id > $%d ORDER BY page.id LIMIT $%d`, query, n+1, n+2)
	for handed := 0; ; {
		size := pageRows
		if limit > 0 {
			size = min(size, limit-handed)
		}
		var page []T
		if err := pool.SelectContext(ctx, &page, paged, append(args[:n:n], last, size)...); err != nil {
			return fmt.Errorf("read rows: %w", postgres.Translate(err))
		}
		for _, row := range page {
			if err := fn(row); err != nil {
				return err
			}
			last = id(row)
		}
		handed += len(page)
		if len(page) < pageRows || handed == limit {
			return nil
		}
	}
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
