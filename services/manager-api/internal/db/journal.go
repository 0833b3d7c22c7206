package db

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/postgres"
)

// Actor is on whose behalf something changes.
type Actor struct {
	Name      string // of the caller's token, or of the part of manager-api
	RequestID string // empty where no request is behind it
}

type actorKey struct{}

// WithActor returns a context whose changes the journal ascribes to a.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// ActorOf is the actor of a context; without one it is manager-api itself.
func ActorOf(ctx context.Context) Actor {
	if a, ok := ctx.Value(actorKey{}).(Actor); ok && a.Name != "" {
		return a
	}
	return Actor{Name: "manager-api"}
}

// Entry is one row of the journal to be: what happened to which subject ("upgrade/<id>", "component/<id>",
// "exchange/<id>" …), as a code and a sentence. Inputs are what was looked at; they hold no secret.
type Entry struct {
	Subject string
	Code    string
	Message string
	Inputs  any // encoded as JSON; nil stores nothing
}

// WriteJournal appends entries in the transaction of the change that they tell of (docs/rest.md#the-journal). A cause
// is written before its effects.
func WriteJournal(ctx context.Context, tx *sqlx.Tx, entries ...Entry) error {
	who := ActorOf(ctx)
	for _, e := range entries {
		inputs, err := e.inputs()
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO journal (actor, subject, code, message, inputs, request_id)
			VALUES ($1, $2, $3, $4, $5, $6)`,
			who.Name, e.Subject, e.Code, e.Message, inputs, who.RequestID)
		if err != nil {
			return fmt.Errorf("write journal entry %s of %s: %w", e.Code, e.Subject, err)
		}
	}
	return nil
}

// inputs encodes the inputs of an entry for their column.
func (e Entry) inputs() (any, error) {
	switch v := e.Inputs.(type) {
	case nil:
		return nil, nil
	case json.RawMessage:
		if len(v) == 0 {
			return nil, nil
		}
		return string(v), nil
	default:
		raw, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("encode inputs of journal entry %s: %w", e.Code, err)
		}
		return string(raw), nil
	}
}

// JournalQuery selects rows of the journal; empty fields select all. Before is the cursor: rows with a lower seq.
type JournalQuery struct {
	Subject string
	Actor   string
	Before  int64
	After   int64 // rows with a higher seq, oldest first; excludes Before
	Limit   int
}

// Journal lists rows, newest first, or oldest first when After is given.
func (s *DB) Journal(ctx context.Context, q JournalQuery) ([]managerapi.JournalEntry, error) {
	order := "DESC"
	if q.After > 0 {
		order = "ASC"
	}
	var rows []managerapi.JournalEntry
	err := s.Pool.SelectContext(ctx, &rows, `SELECT seq, at, actor, subject, code, message,
		coalesce(inputs, 'null') AS inputs, request_id AS requestid
		FROM journal WHERE ($1 = '' OR subject = $1) AND ($2 = '' OR actor = $2) AND ($3 = 0 OR seq < $3) AND seq > $4
		ORDER BY seq `+order+` LIMIT $5`, q.Subject, q.Actor, q.Before, q.After, q.Limit)
	if err != nil {
		return nil, fmt.Errorf("list journal: %w", postgres.Translate(err))
	}
	for i := range rows {
		rows[i].At = rows[i].At.UTC()
		if string(rows[i].Inputs) == "null" {
			rows[i].Inputs = nil
		}
	}
	return rows, nil
}

// Change is the input of a journal entry about an update.
type Change struct {
	Before any `json:"before"`
	After  any `json:"after"`
}
