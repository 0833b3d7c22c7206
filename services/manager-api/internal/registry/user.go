package registry

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// UserRow is a person to whom events are assigned. Tokens have no user.
type UserRow struct {
	ID int64 `json:"id" db:"id"`
	UserSpec
	InsertedAt db.Stamp `json:"inserted_at" db:"inserted_at"`
	UpdatedAt  db.Stamp `json:"updated_at" db:"updated_at"`
}

// UserSpec is what is stated about a user.
type UserSpec struct {
	FirstName string `json:"first_name" db:"first_name"`
	LastName  string `json:"last_name" db:"last_name"`
	Email     string `json:"email" db:"email"`
}

const userColumns = `id, first_name, last_name, email, inserted_at, updated_at`

// EachUser lists users by id.
func (s *Registry) EachUser(ctx context.Context, p db.Part, fn func(UserRow) error) error {
	return db.Each(ctx, s.db.Pool, p.Limit, func(r UserRow) int64 { return r.ID }, fn,
		`SELECT `+userColumns+` FROM users`)
}

// User reads one user.
func (s *Registry) User(ctx context.Context, id int64) (UserRow, error) {
	row, err := db.One[UserRow](ctx, s.db.Pool, `SELECT `+userColumns+` FROM users WHERE id = $1`, id)
	if err != nil {
		return row, fmt.Errorf("read user %d: %w", id, err)
	}
	return row, nil
}

// CreateUser stores a user. Conflict: the e-mail address exists.
func (s *Registry) CreateUser(ctx context.Context, spec UserSpec) (int64, error) {
	var id int64
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &id, `INSERT INTO users (first_name, last_name, email) VALUES ($1, $2, $3) RETURNING id`,
			spec.FirstName, spec.LastName, spec.Email)
		if err != nil {
			return err
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: "user/" + strconv.FormatInt(id, 10), Code: "user_created"})
	})
	if err != nil {
		return 0, fmt.Errorf("create user: %w", err)
	}
	return id, nil
}
