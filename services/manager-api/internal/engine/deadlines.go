package engine

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/openaperture/openaperture/pkg/blame"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/lease"
	"github.com/openaperture/openaperture/pkg/upgrade"

	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// ExpireRequests ends the requests that nobody started within request_expiry of when somebody last asked for them. A
// freeze, and as much time after its end, does not count: nobody could start them.
func (s *Engine) ExpireRequests(ctx context.Context) error {
	return s.forEachDue(ctx, `SELECT id, messaging_exchange_id FROM upgrades WHERE state = 'requested'
		AND `+askedAt+` < now() - $1 * interval '1 millisecond'
		AND NOT EXISTS (SELECT 1 FROM freezes f
			WHERE coalesce(f.messaging_exchange_id, 0) IN (0, upgrades.messaging_exchange_id)
				AND (f.until IS NULL OR f.until > now() - $1 * interval '1 millisecond'))
		ORDER BY id`,
		func(ctx context.Context, tx *sqlx.Tx, id string) error {
			row, err := lockUpgrade(ctx, tx, upgrade.ID(id))
			if err != nil {
				return err
			}
			if expired, err := s.requestExpired(ctx, tx, row); err != nil || !expired {
				return err
			}
			return s.moveUpgrade(ctx, tx, row, upgrade.Event{Kind: upgrade.EventExpire, Reason: "expired",
				Message: "nobody started it within " + s.times.RequestExpiry.String() +
					", as no overseer led its exchange or other upgrades kept the slot: look at the overseer's log and GET " +
					"/upgrades, then request it again"}, nil)
		}, s.times.RequestExpiry.Milliseconds())
}

// ExpireClaims gives the orders whose claims have expired to the next one, under a fresh deadline; after order_attempts
// the executor is lost. Only exchanges whose results this process has drained count: a result may be on its way.
func (s *Engine) ExpireClaims(ctx context.Context, consuming []component.ExchangeID) error {
	return s.forEachDue(ctx, `SELECT o.id, o.messaging_exchange_id FROM orders o LEFT JOIN leases l
		ON l.name = `+ordersLease+`
		WHERE o.state = 'claimed' AND o.messaging_exchange_id = ANY($1) AND (l.name IS NULL OR l.expires_at <= now())
		ORDER BY o.id`,
		func(ctx context.Context, tx *sqlx.Tx, id string) error {
			x, err := s.lockChain(ctx, tx, id)
			if err != nil || x.order.State != orderClaimed {
				return err
			}
			l, err := lease.Get(ctx, tx, x.order.lease())
			if (err == nil && !l.Expired()) || (err != nil && !fault.Is(err, fault.NotFound)) {
				return err
			}
			return s.nextAttempt(ctx, tx, x, l.Holder)
		}, pq.Array(db.ExchangeIDs(consuming)))
}

func (s *Engine) nextAttempt(ctx context.Context, tx *sqlx.Tx, x orderChain, holder string) error {
	if x.order.Attempt >= s.times.OrderAttempts {
		facts := s.factsOf(blame.Lost, x)
		facts.Holder = holder
		return s.giveUp(ctx, tx, x, judge(facts))
	}
	x.order.Attempt++
	x.order.Deadline = x.order.Now.Add(s.times.OrderDeadline)
	_, err := tx.ExecContext(ctx, `UPDATE orders SET state = 'open', attempt = $2, deadline = $3 WHERE id = $1`,
		x.order.ID, x.order.Attempt, x.order.Deadline)
	if err != nil {
		return fmt.Errorf("begin attempt %d of order %s: %w", x.order.Attempt, x.order.ID, err)
	}
	if err := resendOrder(ctx, tx, x.order); err != nil {
		return err
	}
	return db.WriteJournal(ctx, tx, db.Entry{Subject: "workflow/" + x.workflow.ID, Code: "claim_expired",
		Message: fmt.Sprintf("%s went silent over milestone %s; attempt %d begins", holder, x.order.Milestone,
			x.order.Attempt),
		Inputs: map[string]any{"order_id": x.order.ID, "token": x.order.Token}})
}

// giveUp ends an order that nobody will finish. A probe's failure is the proof's business.
func (s *Engine) giveUp(ctx context.Context, tx *sqlx.Tx, x orderChain, f failure) error {
	if err := endOrder(ctx, tx, x.order, orderFailed, map[string]any{"reason": f.Reason,
		"message": f.Message}); err != nil {
		return err
	}
	if x.order.Milestone == messages.MilestoneProbe || x.workflow.Completed {
		return nil
	}
	return s.failWorkflow(ctx, tx, x, f)
}

// ResendUnclaimed sends confirmed orders that nobody has claimed for a while again, under a new message id. An
// upgrade's clock ends that; an order without upgrade fails at its deadline.
func (s *Engine) ResendUnclaimed(ctx context.Context, consuming []component.ExchangeID) error {
	return s.forEachDue(ctx, `SELECT id, messaging_exchange_id FROM orders WHERE state = 'open'
		AND messaging_exchange_id = ANY($1)
		AND confirmed_at < now() - $2 * interval '1 millisecond' ORDER BY id`,
		func(ctx context.Context, tx *sqlx.Tx, id string) error {
			x, err := s.lockChain(ctx, tx, id)
			if err != nil || x.order.State != orderOpen {
				return err
			}
			var due bool
			err = tx.GetContext(ctx, &due, `SELECT coalesce(confirmed_at < now() - $2 * interval '1 millisecond', false)
				FROM orders WHERE id = $1`, id, s.times.Unclaimed.Milliseconds())
			if err != nil || !due {
				return err
			}
			return s.resendUnclaimed(ctx, tx, x)
		}, pq.Array(db.ExchangeIDs(consuming)), s.times.Unclaimed.Milliseconds())
}

// resendUnclaimed does with an unclaimed order what upgrade.Unclaimed decides.
func (s *Engine) resendUnclaimed(ctx context.Context, tx *sqlx.Tx, x orderChain) error {
	waits := upgrade.Unclaimed{Outside: x.order.outside(), HasUpgrade: x.upgrade != nil,
		Expired: !x.order.Deadline.After(x.order.Now)}
	var err error
	if waits.Busy, err = executorBusy(ctx, tx, x.order); err != nil {
		return err
	}
	switch waits.Next() {
	case upgrade.WaitOn:
		return nil
	case upgrade.WaitGiveUp:
		return s.giveUp(ctx, tx, x, judge(s.factsOf(blame.Silent, x)))
	case upgrade.WaitProlong:
		x.order.Deadline = x.order.Now.Add(s.times.OrderDeadline)
		if _, err := tx.ExecContext(ctx, `UPDATE orders SET deadline = $2 WHERE id = $1`, x.order.ID,
			x.order.Deadline); err != nil {
			return fmt.Errorf("move deadline of order %s: %w", x.order.ID, err)
		}
	case upgrade.WaitResend:
	}
	return resendOrder(ctx, tx, x.order)
}

// executorBusy says whether an executor of an order's queue works on another order: then the order waits in line.
func executorBusy(ctx context.Context, tx *sqlx.Tx, o *orderRow) (busy bool, err error) {
	err = tx.GetContext(ctx, &busy, `SELECT EXISTS (SELECT 1 FROM orders o JOIN leases l ON `+heldClaim+`
		WHERE o.messaging_exchange_id = $1 AND o.queue = $2 AND o.id <> $3)`, o.ExchangeID, string(o.Queue), o.ID)
	if err != nil {
		return false, fmt.Errorf("look for executors of the queue %s: %w", o.Queue, err)
	}
	return busy, nil
}
