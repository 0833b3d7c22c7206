package engine

import (
	"context"

	"github.com/jmoiron/sqlx"

	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// MessageUnsendable drops a message of the outbox that no broker will ever take, with why that is so. An order that
// nobody works on fails with it at once: nobody would hear of the order before its deadline.
func (s *Engine) MessageUnsendable(ctx context.Context, message, why string) error {
	return s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		order, err := db.OrderOf(ctx, tx, message)
		if err != nil {
			return err
		}
		if order == "" {
			_, err = db.DropMessage(ctx, tx, message)
			return err
		}
		x, err := s.lockChain(ctx, tx, order) // first: what is locked is locked in one order
		if err != nil {
			return err
		}
		dropped, err := db.DropMessage(ctx, tx, message)
		if err != nil || !dropped || x.order.State != orderOpen {
			return err
		}
		return s.giveUp(ctx, tx, x, *refused("order_unsendable", "the order for %s cannot be sent: %s",
			x.order.Milestone, why))
	})
}
