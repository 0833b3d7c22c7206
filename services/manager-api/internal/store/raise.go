package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// Severities of system events.
const (
	severityInfo    = "info"
	severityWarning = "warning"
	severityError   = "error"
)

// raise records a SystemEvent in the transaction of what it tells of.
func raise(ctx context.Context, tx *sqlx.Tx, kind, severity, message string, data any) error {
	raw, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("encode data of system event %s: %w", kind, err)
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO system_events (type, message, severity, data) VALUES ($1, $2, $3, $4)`, kind, message, severity, string(raw))
	if err != nil {
		return fmt.Errorf("raise system event %s: %w", kind, err)
	}
	return nil
}
