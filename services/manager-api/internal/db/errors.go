package db

import (
	"database/sql"
	"errors"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/postgres"
)

// UnknownExchange names the field that a foreign key refused.
func UnknownExchange(err error) error {
	if fault.CodeOf(postgres.Translate(err)) == postgres.CodeReference {
		return WrongField("messaging_exchange_id", "Invalid MessagingExchange")
	}
	return err
}

// NotFound translates "no rows" into NotFound with a sentence; other errors stay.
func NotFound(err error, format string, args ...any) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fault.New(fault.NotFound, format, args...)
	}
	return err
}
