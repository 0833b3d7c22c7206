package store

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jmoiron/sqlx"
)

// UserRow is a person to whom events are assigned. Tokens have no user.
type UserRow struct {
	ID int64 `json:"id" db:"id"`
	UserSpec
	InsertedAt Stamp `json:"inserted_at" db:"inserted_at"`
	UpdatedAt  Stamp `json:"updated_at" db:"updated_at"`
}

// UserSpec is what is stated about a user.
type UserSpec struct {
	FirstName string `json:"first_name" db:"first_name"`
	LastName  string `json:"last_name" db:"last_name"`
	Email     string `json:"email" db:"email"`
}

const userColumns = `id, first_name, last_name, email, inserted_at, updated_at`

// EachUser lists users by id.
func (s *Store) EachUser(ctx context.Context, p Part, fn func(UserRow) error) error {
	return each(ctx, s.db, fn, `SELECT `+userColumns+` FROM users ORDER BY id LIMIT $1`, p.limit())
}

// User reads one user.
func (s *Store) User(ctx context.Context, id int64) (UserRow, error) {
	row, err := one[UserRow](ctx, s.db, `SELECT `+userColumns+` FROM users WHERE id = $1`, id)
	if err != nil {
		return row, fmt.Errorf("read user %d: %w", id, err)
	}
	return row, nil
}

// CreateUser stores a user. Conflict: the e-mail address exists.
func (s *Store) CreateUser(ctx context.Context, spec UserSpec) (int64, error) {
	var id int64
	err := s.tx(ctx, func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &id, `INSERT INTO users (first_name, last_name, email) VALUES ($1, $2, $3) RETURNING id`,
			spec.FirstName, spec.LastName, spec.Email)
		if err != nil {
			return err
		}
		return journal(ctx, tx, entry{Subject: "user/" + strconv.FormatInt(id, 10), Code: "user_created"})
	})
	if err != nil {
		return 0, fmt.Errorf("create user: %w", err)
	}
	return id, nil
}
