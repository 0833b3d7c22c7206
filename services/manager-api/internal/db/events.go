package db

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
)

// Severities of system events.
const (
	SeverityInfo    = "info"
	SeverityWarning = "warning"
	SeverityError   = "error"
)

// RaiseEvent records a SystemEvent about an exchange (nil: the whole platform) in the transaction of what it tells of.
func RaiseEvent(ctx context.Context, tx *sqlx.Tx, ex *component.ExchangeID, kind, severity, message string,
	data any) error {
	raw, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("encode data of system event %s: %w", kind, err)
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO system_events (type, message, severity, data, messaging_exchange_id)
		VALUES ($1, $2, $3, $4, $5)`,
		kind, message, severity, string(raw), ex)
	if err != nil {
		return fmt.Errorf("raise system event %s: %w", kind, err)
	}
	return nil
}
