package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/lease"
	"github.com/openaperture/openaperture/pkg/managerapi"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// Codes of the refusals of claims.
const (
	CodeOldAttempt   = "old_attempt"   // the message is of an earlier or later attempt
	CodeOrderEnded   = "order_ended"   // there is nothing left to do
	CodePastDeadline = "past_deadline" // what is left alone for so long is not begun any more
)

// CodeBootAlive is the code of a claim that another process of the same hostname holds and renews.
const CodeBootAlive = "boot_alive"

// claimData is what a claim's lease remembers beside its holder.
type claimData struct {
	BootID  string `json:"boot_id"`
	Attempt int    `json:"attempt"`
}

// Claim gives the order to an executor of its exchange (0: any) under a new token. The same process asking again gets
// the same token, as its answer may have been lost. Another process of the same hostname gets a new token once the
// first one has missed a renewal: then the host was restarted, and takes nothing over, because it knows from its work
// file what has been done. While the first one renews, two hosts may have one name: Unavailable with CodeBootAlive, ask
// again. Claiming is no progress: it does not reset the clock.
func (s *Engine) Claim(ctx context.Context, orderID string, ex component.ExchangeID,
	r managerapi.ClaimRequest) (managerapi.Claim, error) {
	var out managerapi.Claim
	err := s.db.Leases.InTx(ctx, func(tx *sqlx.Tx) error {
		o, err := lockOrderOf(ctx, tx, orderID, ex)
		if err != nil {
			return err
		}
		if err := requireClaimable(o, r.Attempt); err != nil {
			return err
		}
		l, err := s.takeClaim(ctx, tx, o, r)
		if err != nil {
			return err
		}
		fresh := l.Token != o.Token
		if _, err := tx.ExecContext(ctx, `UPDATE orders SET state = 'claimed', token = $2, host = $3, capabilities = $4,
			taken_over = taken_over OR host NOT IN ('', $3) WHERE id = $1`,
			o.ID, l.Token, r.Hostname, db.TextArray(knownCapabilities(r.Capabilities))); err != nil {
			return fmt.Errorf("record claim of order %s: %w", o.ID, err)
		}
		if err := announce(ctx, tx, o.ExchangeID, managerapi.Executor{Hostname: r.Hostname, BootID: r.BootID,
			Capabilities: r.Capabilities}); err != nil {
			return err
		}
		if out, err = claimOf(o, l); err != nil || !fresh || o.Milestone == messages.MilestoneResolve {
			return err // a resolve is so frequent and so little that the journal does not tell of it
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: "workflow/" + o.WorkflowID, Code: "order_claimed",
			Message: fmt.Sprintf("%s has claimed milestone %s, attempt %d", r.Hostname, o.Milestone, o.Attempt),
			Inputs:  map[string]any{"order_id": o.ID, "hostname": r.Hostname, "boot_id": r.BootID, "token": l.Token}})
	})
	return out, err
}

// knownCapabilities are those of the announced capabilities that this release knows; never nil.
func knownCapabilities(announced []string) []string {
	known := []string{}
	for _, c := range []string{managerapi.CapInstances, managerapi.CapResolve} {
		if slices.Contains(announced, c) {
			known = append(known, c)
		}
	}
	return known
}

func requireClaimable(o *orderRow, attempt int) error {
	switch {
	case o.ended():
		return fault.New(fault.Conflict, "the order is %s", o.State).WithCode(CodeOrderEnded)
	case attempt != o.Attempt:
		return fault.New(fault.Conflict, "the order is at attempt %d, not %d", o.Attempt, attempt).WithCode(CodeOldAttempt)
	case !o.Deadline.After(o.Now):
		return fault.New(fault.Conflict, "the order's deadline has passed").WithCode(CodePastDeadline)
	default:
		return nil
	}
}

// takeClaim takes or keeps the lease behind a claim.
func (s *Engine) takeClaim(ctx context.Context, tx *sqlx.Tx, o *orderRow,
	r managerapi.ClaimRequest) (lease.Lease, error) {
	held, err := lease.Get(ctx, tx, o.lease())
	if err != nil && !fault.Is(err, fault.NotFound) {
		return held, err
	}
	var data claimData
	if err == nil {
		if err := json.Unmarshal(held.Data, &data); err != nil {
			return held, fmt.Errorf("decode claim of order %s: %w", o.ID, err)
		}
	}
	switch {
	case err == nil && held.Holder == r.Hostname && data.BootID != r.BootID:
		if !held.Expired() && !held.MissedRenewal(s.times.Claim) {
			return held, fault.New(fault.Unavailable, "another process of %s holds the order and has renewed its claim a "+
				"moment ago: if that process has ended, ask again in %s at most", r.Hostname, s.times.Claim*2/5).
				WithCode(CodeBootAlive)
		}
		if _, err := lease.Release(ctx, tx, o.lease(), held.Token); err != nil {
			return held, err
		}
	case err == nil && held.Holder != r.Hostname && !held.Expired():
		return held, fault.New(fault.Conflict, "%s works on it", held.Holder).WithCode(db.CodeHeld)
	}
	l, ok, err := lease.Acquire(ctx, tx, o.lease(), r.Hostname, s.times.Claim)
	if err != nil {
		return l, err
	}
	if !ok {
		return l, fault.New(fault.Conflict, "another executor works on it").WithCode(db.CodeHeld)
	}
	text, err := db.JSONText(claimData{r.BootID, o.Attempt})
	if err != nil {
		return l, err
	}
	return lease.Renew(ctx, tx, o.lease(), l.Token, s.times.Claim, json.RawMessage(text))
}

// Renew extends a claim, an expired one as well unless somebody has taken the order over. Conflict with the code
// lease.CodeSuperseded: a higher token exists or nobody wants the result; touch nothing more.
func (s *Engine) Renew(ctx context.Context, orderID string, ex component.ExchangeID,
	token int64) (managerapi.Claim, error) {
	var out managerapi.Claim
	err := s.db.Leases.InTx(ctx, func(tx *sqlx.Tx) error {
		o, err := lockOrderOf(ctx, tx, orderID, ex)
		switch {
		case err != nil:
			return err
		case o.ended() || o.Token != token:
			return fault.New(fault.Conflict, "token %d does not hold the order any more: it is %s", token,
				o.State).WithCode(lease.CodeSuperseded)
		case !o.Deadline.After(o.Now):
			return fault.New(fault.Conflict, "the order's deadline has passed").WithCode(CodePastDeadline)
		}
		l, err := lease.Renew(ctx, tx, o.lease(), token, s.times.Claim, nil)
		if err != nil {
			return err
		}
		if o.State == orderOpen {
			if _, err := tx.ExecContext(ctx, `UPDATE orders SET state = 'claimed' WHERE id = $1`, o.ID); err != nil {
				return fmt.Errorf("renew claim of order %s: %w", o.ID, err)
			}
		}
		out, err = claimOf(o, l)
		return err
	})
	return out, err
}

// ReleaseClaim gives a claim back; the order is sent again at once, for another executor. A claim that is lost already
// is no error.
func (s *Engine) ReleaseClaim(ctx context.Context, orderID string, ex component.ExchangeID, token int64) error {
	return s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		o, err := lockOrderOf(ctx, tx, orderID, ex)
		if err != nil {
			return err
		}
		released, err := lease.Release(ctx, tx, o.lease(), token)
		if err != nil || !released || o.ended() {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE orders SET state = 'open' WHERE id = $1`, o.ID); err != nil {
			return fmt.Errorf("release order %s: %w", o.ID, err)
		}
		if err := resendOrder(ctx, tx, o); err != nil {
			return err
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: "workflow/" + o.WorkflowID, Code: "order_released",
			Message: fmt.Sprintf("milestone %s was given back", o.Milestone),
			Inputs:  map[string]any{"order_id": o.ID, "token": token}})
	})
}

// lockOrderOf is NotFound for an order of another exchange than the caller's.
func lockOrderOf(ctx context.Context, tx *sqlx.Tx, orderID string, ex component.ExchangeID) (*orderRow, error) {
	o, err := lockOrder(ctx, tx, orderID)
	if err == nil && ex != 0 && o.ExchangeID != ex {
		return nil, fault.New(fault.NotFound, "there is no order %s", orderID)
	}
	return o, err
}

func claimOf(o *orderRow, l lease.Lease) (managerapi.Claim, error) {
	m, err := o.message()
	return managerapi.Claim{Token: l.Token, ExpiresInMS: l.Remaining().Milliseconds(),
		DeadlineInMS: o.Deadline.Sub(o.Now).Milliseconds(), Order: m}, err
}

func dropLeases(ctx context.Context, tx *sqlx.Tx, names []string) error {
	if len(names) == 0 {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM leases WHERE name = ANY($1)`, pq.Array(names)); err != nil {
		return fmt.Errorf("end claims: %w", err)
	}
	return nil
}
