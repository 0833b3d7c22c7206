package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jmoiron/sqlx"
	"golang.org/x/sync/errgroup"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/postgres"
)

const (
	dueLock    = 250 * time.Millisecond // how long the work on one item waits for a lock
	dueWorkers = 4                      // exchanges that are worked on at once
	dueLimit   = 1000                   // items of one pass; the others have their turn in the next
)

// dueItem is something whose time has come, with the exchange that it belongs to.
type dueItem struct {
	ID         string               `db:"id"`
	ExchangeID component.ExchangeID `db:"messaging_exchange_id"`
}

// forEachDue runs fn for every item that the query finds, each in its own transaction: fn locks and looks again, as
// another replica may have been there first. Exchanges are worked on side by side and in random order. An item whose
// rows somebody else keeps locked ends the turn of its exchange, without an error: the next pass tries again. Any other
// error ends the item alone. So the trouble of one exchange costs no other exchange its deadlines.
func (s *Engine) forEachDue(ctx context.Context, query string,
	fn func(ctx context.Context, tx *sqlx.Tx, id string) error, args ...any) error {
	var items []dueItem
	if err := s.db.Pool.SelectContext(ctx, &items, fmt.Sprintf("%s LIMIT %d", query, dueLimit), args...); err != nil {
		return fmt.Errorf("find what is due: %w", postgres.Translate(err))
	}
	return s.forEachItem(ctx, items, fn)
}

// forEachItem is forEachDue for items that were found already.
func (s *Engine) forEachItem(ctx context.Context, items []dueItem,
	fn func(ctx context.Context, tx *sqlx.Tx, id string) error) error {
	ofExchange := map[component.ExchangeID][]string{}
	var order []component.ExchangeID
	for _, item := range items {
		if _, known := ofExchange[item.ExchangeID]; !known {
			order = append(order, item.ExchangeID)
		}
		ofExchange[item.ExchangeID] = append(ofExchange[item.ExchangeID], item.ID)
	}
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	var group errgroup.Group
	group.SetLimit(dueWorkers)
	errs := make([]error, len(order))
	for i, ex := range order {
		group.Go(func() error {
			errs[i] = s.forEachOf(ctx, ofExchange[ex], fn)
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(errs...)
}

// forEachOf works on the items of one exchange, in their order. It returns the first error.
func (s *Engine) forEachOf(ctx context.Context, ids []string,
	fn func(ctx context.Context, tx *sqlx.Tx, id string) error) error {
	var failed error
	for _, id := range ids {
		err := loop.Contain(ctx, "sweeper", id, func() error {
			return s.db.Tx(ctx, func(tx *sqlx.Tx) error {
				if _, err := tx.ExecContext(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d", dueLock.Milliseconds())); err != nil {
					return fmt.Errorf("bound the wait for locks: %w", err)
				}
				return fn(ctx, tx, id)
			})
		})
		switch {
		case postgres.LockTimeout(err):
			return failed
		case err != nil && !fault.Is(err, fault.NotFound) && failed == nil:
			failed = fmt.Errorf("%s: %w", id, err)
		}
		if ctx.Err() != nil {
			return errors.Join(failed, ctx.Err())
		}
	}
	return failed
}
