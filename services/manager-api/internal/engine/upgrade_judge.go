package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/blame"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/module"
	"github.com/openaperture/openaperture/pkg/upgrade"

	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// CodeNotProven is the code of a proof that manager-api's own rows do not bear out.
const CodeNotProven = "not_proven"

// lockJudged locks an upgrade for a judgement of its exchange's leader; the term is checked first and holds until the
// transaction ends.
func (s *Engine) lockJudged(ctx context.Context, tx *sqlx.Tx, id upgrade.ID, ex component.ExchangeID,
	term int64) (*upgradeRow, error) {
	seen, err := readUpgrade(ctx, tx, id)
	if err != nil {
		return nil, err
	}
	if ex != 0 && seen.ExchangeID != ex {
		return nil, fault.New(fault.NotFound, "there is no upgrade %s", id)
	}
	if err := db.RequireTerm(ctx, tx, seen.ExchangeID, term); err != nil {
		return nil, err
	}
	return lockUpgrade(ctx, tx, id)
}

// Start begins a requested upgrade: one write makes the upgrade running, its workflow, the first order and its message.
// From is the version recorded at this moment, to is the judged target (an operator's rollback has its own). Conflict:
// stale term, slot taken, no longer requested, or CodeSeenChanged.
func (s *Engine) Start(ctx context.Context, id upgrade.ID, ex component.ExchangeID, j managerapi.Judgement) error {
	return s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		row, err := s.lockJudged(ctx, tx, id, ex, j.Term)
		if err != nil {
			return err
		}
		if err := requireSeen(ctx, tx, row, j.Saw); err != nil {
			return err
		}
		c, err := lockComponent(ctx, tx, row.ComponentID)
		if err != nil {
			return err
		}
		row.From, row.Proof = c.Recorded, c.Proof
		if row.Trigger != upgrade.TriggerRollback {
			if err := requireThawed(ctx, tx, row.ExchangeID); err != nil {
				return err
			}
			row.To = j.Target
		}
		if component.Blank(row.To.SourceRepo) || component.Blank(row.To.SourceRepoGitRef) {
			return fault.New(fault.Invalid, "the target of a start must name a repository and a ref")
		}
		row.VerdictCode, row.VerdictMessage = j.Verdict.Code, j.Verdict.Message
		return s.moveUpgrade(ctx, tx, row, upgrade.Event{Kind: upgrade.EventStart, Term: j.Term, Reason: j.Verdict.Code,
			Message: j.Verdict.Message}, j.Inputs)
	})
}

// Refuse ends a requested upgrade as ineligible. It never touches the recorded version. Conflict: as for Start.
func (s *Engine) Refuse(ctx context.Context, id upgrade.ID, ex component.ExchangeID, j managerapi.Judgement) error {
	return s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		row, err := s.lockJudged(ctx, tx, id, ex, j.Term)
		if err != nil {
			return err
		}
		if err := requireSeen(ctx, tx, row, j.Saw); err != nil {
			return err
		}
		return s.moveUpgrade(ctx, tx, row, upgrade.Event{Kind: upgrade.EventRefuse, Term: j.Term, Reason: j.Verdict.Code,
			Message: j.Verdict.Message}, j.Inputs)
	})
}

// Prove records that the current phase is proven, if the rows read in this transaction bear it out: nobody can assert a
// version. Conflict: stale term, nothing to prove, or CodeNotProven with what is missing.
func (s *Engine) Prove(ctx context.Context, id upgrade.ID, ex component.ExchangeID, j managerapi.Judgement) error {
	return s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		row, err := s.lockJudged(ctx, tx, id, ex, j.Term)
		if err != nil {
			return err
		}
		if row.Step != upgrade.StepVerify {
			return fault.New(fault.Conflict, "upgrade %s has nothing to prove: it is %s", id,
				row.State).WithCode(CodeIllegalMove)
		}
		proof, err := s.judgeProof(ctx, tx, row)
		if err != nil {
			return err
		}
		if !proof.OK() {
			return fault.New(fault.Conflict, "%s", proof.String()).WithCode(CodeNotProven)
		}
		return s.moveUpgrade(ctx, tx, row,
			upgrade.Event{Kind: upgrade.EventProven, Term: j.Term, Message: proof.String()}, proof)
	})
}

// Cancel ends an open upgrade by an operator's wish; a running one is a failure with cause operator. 0 is any exchange.
func (s *Engine) Cancel(ctx context.Context, id upgrade.ID, ex component.ExchangeID) (u managerapi.Upgrade, err error) {
	err = s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		row, err := lockUpgrade(ctx, tx, id)
		if err != nil {
			return err
		}
		if ex != 0 && row.ExchangeID != ex {
			return fault.New(fault.NotFound, "there is no upgrade %s", id)
		}
		facts := s.factsOf(blame.Withdrawn, orderChain{upgrade: row})
		if facts.Touch.Claimed, err = everClaimed(ctx, tx, row); err != nil {
			return err
		}
		if err := s.moveUpgrade(ctx, tx, row, judge(facts).event(upgrade.EventCancel), nil); err != nil {
			return err
		}
		u, err = upgradeView(ctx, tx, row)
		return err
	})
	return u, err
}

// judgeProof judges the current phase on the rows of this transaction.
func (s *Engine) judgeProof(ctx context.Context, tx *sqlx.Tx, row *upgradeRow) (upgrade.Proof, error) {
	need, err := s.proofNeed(ctx, tx, row)
	if err != nil {
		return upgrade.Proof{}, err
	}
	if need == nil {
		return upgrade.Proof{}, fmt.Errorf("upgrade %s verifies without a workflow", row.ID)
	}
	modules, err := modulesOf(ctx, tx, row.ExchangeID, []string{string(row.ComponentType)})
	if err != nil {
		return upgrade.Proof{}, err
	}
	return upgrade.Prove(*need, modules), nil
}

// proofNeed is what the current phase has to show, nil while it is not verified, or is of a newer manager-api. While
// rolling back the target is the restored release's.
func (s *Engine) proofNeed(ctx context.Context, tx *sqlx.Tx, row *upgradeRow) (*upgrade.Need, error) {
	if row.Step != upgrade.StepVerify || row.requireKnown() != nil {
		return nil, nil
	}
	w, err := workflowAt(ctx, tx, position{row.ID, row.Phase, row.restoring()})
	if err != nil || w == nil {
		return nil, err
	}
	phase := upgrade.PhasesOf(row.ComponentType)[row.Phase-1]
	n := &upgrade.Need{Type: row.ComponentType, Service: phase.Service, Count: w.Instances, Ref: w.SourceRepoGitRef,
		MinHealthy: s.times.MinHealthy, LiveWithin: s.times.LiveWithin, ProbeWanted: phase.ProbeQueue != upgrade.ExecNone,
		WorkflowBegan: whenOrZero(w.BeganAt), WorkflowEnded: whenOrZero(w.EndedAt)}
	if n.Instances, err = w.instances(); err != nil {
		return nil, err
	}
	err = tx.QueryRowxContext(ctx, `SELECT coalesce((SELECT source_commit_hash FROM releases WHERE id = $1), ''),
			EXISTS (SELECT 1 FROM orders WHERE workflow_id = $2 AND milestone = 'probe' AND state = 'completed'),
			coalesce((SELECT holder FROM leases WHERE name = $3 AND expires_at > now()), ''), now()`,
		w.ReleaseID, w.ID, db.LeaderLease(row.ExchangeID)).Scan(&n.Commit, &n.ProbeAnswered, &n.LeaderHostname, &n.At)
	if err != nil {
		return nil, fmt.Errorf("read what proves upgrade %s: %w", row.ID, err)
	}
	n.At = n.At.UTC()
	return n, nil
}

// instances are what the deploy left running, nil if its executor does not name them.
func (w *workflowRow) instances() ([]upgrade.Instance, error) {
	var named []messages.Deployed
	if err := json.Unmarshal(w.Deployed, &named); err != nil {
		return nil, fmt.Errorf("decode instances of workflow %s: %w", w.ID, err)
	}
	if named == nil {
		return nil, nil
	}
	out := make([]upgrade.Instance, len(named))
	for i, d := range named {
		out[i] = upgrade.Instance{Unit: d.Unit, Hostname: d.Hostname, Applied: d.Applied}
	}
	return out, nil
}

func whenOrZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// modulesOf reads the modules of some types in an exchange.
func modulesOf(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, types []string) ([]module.Module, error) {
	list := []module.Module{}
	err := tx.SelectContext(ctx, &list, `SELECT messaging_exchange_id, hostname, type, service, status, boot_id,
		source_repo, source_repo_git_ref,
			updated_at AS last_seen, inserted_at AS first_seen, boot_since, steady_since,
			CASE WHEN rival_again IS NULL THEN '' ELSE coalesce(rival_boot_id, '') END AS rival_boot_id,
			rival_again AS rival_seen
		FROM messaging_exchange_modules WHERE messaging_exchange_id = $1 AND type = ANY($2)
		ORDER BY hostname`, ex, db.TextArray(types))
	if err != nil {
		return nil, fmt.Errorf("read modules of exchange %d: %w", ex, err)
	}
	for i := range list {
		m := &list[i]
		m.FirstSeen, m.LastSeen = m.FirstSeen.UTC(), m.LastSeen.UTC()
		m.BootSince, m.SteadySince = m.BootSince.UTC(), m.SteadySince.UTC()
		m.RivalSeen = db.UTC(m.RivalSeen)
	}
	return list, nil
}

// upgradeView is the upgrade for the API, without its decisions.
func upgradeView(ctx context.Context, tx *sqlx.Tx, row *upgradeRow) (managerapi.Upgrade, error) {
	ids, err := workflowIDs(ctx, tx, row.ID)
	return row.wire(ids), err
}

// Upgrade shows an upgrade with its decisions and where its executors' time went.
func (s *Engine) Upgrade(ctx context.Context, id upgrade.ID) (u managerapi.Upgrade, err error) {
	err = s.db.View(ctx, func(tx *sqlx.Tx) error {
		row, err := readUpgrade(ctx, tx, id)
		if err != nil {
			return err
		}
		if u, err = upgradeView(ctx, tx, row); err != nil {
			return err
		}
		if u.Decisions, err = readDecisions(ctx, tx, row.subject()); err != nil {
			return err
		}
		u.Steps, err = executorSteps(ctx, tx, id)
		return err
	})
	return u, err
}

func readDecisions(ctx context.Context, tx *sqlx.Tx, subject string) ([]managerapi.Decision, error) {
	list := []managerapi.Decision{}
	err := tx.SelectContext(ctx, &list, `SELECT at, code, message, coalesce(inputs, 'null') AS inputs FROM journal
		WHERE subject = $1 ORDER BY seq`, subject)
	if err != nil {
		return nil, fmt.Errorf("read decisions about %s: %w", subject, err)
	}
	for i := range list {
		list[i].At = list[i].At.UTC()
		if string(list[i].Inputs) == "null" {
			list[i].Inputs = nil
		}
	}
	return list, nil
}

func executorSteps(ctx context.Context, tx *sqlx.Tx, id upgrade.ID) ([]messages.Step, error) {
	var results []json.RawMessage
	err := tx.SelectContext(ctx, &results, `SELECT o.result FROM orders o JOIN workflows w ON w.id = o.workflow_id
		WHERE w.upgrade_id = $1 AND o.result IS NOT NULL ORDER BY o.id`, string(id))
	if err != nil {
		return nil, fmt.Errorf("read results of upgrade %s: %w", id, err)
	}
	var steps []messages.Step
	for _, raw := range results {
		var r messages.Result
		if err := json.Unmarshal(raw, &r); err != nil {
			return nil, fmt.Errorf("decode result of upgrade %s: %w", id, err)
		}
		steps = append(steps, r.Steps...)
	}
	return steps, nil
}

// UpgradeQuery selects upgrades, newest first; empty fields select all. Before is the cursor.
type UpgradeQuery struct {
	ComponentID component.ID
	ExchangeID  component.ExchangeID
	State       upgrade.State
	Before      upgrade.ID
	Limit       int
}

// Upgrades lists upgrades without their decisions.
func (s *Engine) Upgrades(ctx context.Context, q UpgradeQuery) (list []managerapi.Upgrade, err error) {
	err = s.db.View(ctx, func(tx *sqlx.Tx) error {
		var rows []upgradeRow
		err := tx.SelectContext(ctx, &rows, `SELECT `+upgradeColumns+` FROM upgrades
			WHERE ($1 = 0 OR component_id = $1) AND ($2 = 0 OR messaging_exchange_id = $2) AND ($3 = '' OR state = $3)
			AND id < $4
			ORDER BY id DESC LIMIT $5`, q.ComponentID, q.ExchangeID, string(q.State), db.OlderThan(string(q.Before)), q.Limit)
		if err != nil {
			return err
		}
		list = make([]managerapi.Upgrade, 0, len(rows))
		for i := range rows {
			u, err := upgradeView(ctx, tx, &rows[i])
			if err != nil {
				return err
			}
			list = append(list, u)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list upgrades: %w", err)
	}
	return list, nil
}
