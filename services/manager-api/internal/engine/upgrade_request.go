package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/release"
	"github.com/openaperture/openaperture/pkg/upgrade"

	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// CodeUpgradeOpen is the code of a request that another open upgrade forbids.
const CodeUpgradeOpen = "upgrade_open"

// componentRow is what the engine needs of a component.
type componentRow struct {
	ID          component.ID         `db:"id"`
	ExchangeID  component.ExchangeID `db:"messaging_exchange_id"`
	Type        component.Type       `db:"type"`
	Proof       component.ProofKind  `db:"proof"`
	Recorded    upgrade.Version      `db:"recorded"`
	LastVerdict string               `db:"last_verdict"`

	DeploymentRepo   string             `db:"deployment_repo"`
	DeploymentRef    string             `db:"deployment_repo_git_ref"`
	FollowDeployment bool               `db:"follow_deployment"`
	Strategy         component.Strategy `db:"upgrade_strategy"`
}

// selectComponents selects the components c.
const selectComponents = `SELECT c.id, c.messaging_exchange_id, c.type, c.proof,
		c.source_repo AS "recorded.source_repo", c.source_repo_git_ref AS "recorded.source_repo_git_ref",
		recorded.source_commit_hash AS "recorded.source_commit_hash",
		recorded.deployment_commit_hash AS "recorded.deployment_commit_hash", c.last_verdict, c.deployment_repo,
		c.deployment_repo_git_ref, c.follow_deployment, c.upgrade_strategy
	FROM system_components c CROSS JOIN ` + db.RecordedCommits + ` `

func lockComponent(ctx context.Context, tx *sqlx.Tx, id component.ID) (componentRow, error) {
	var c componentRow
	err := tx.GetContext(ctx, &c, selectComponents+`WHERE c.id = $1 FOR NO KEY UPDATE OF c`, id)
	return c, db.NotFound(err, "there is no component %d", id)
}

// findComponent resolves a request's component, by its id or as a type in an exchange. It stays there until the
// transaction ends.
func findComponent(ctx context.Context, tx *sqlx.Tx, r managerapi.UpgradeRequest) (componentRow, error) {
	var c componentRow
	if r.ComponentID != 0 {
		err := tx.GetContext(ctx, &c, selectComponents+`WHERE c.id = $1
			AND ($2 = 0 OR c.messaging_exchange_id = $2) FOR KEY SHARE OF c`, r.ComponentID, r.ExchangeID)
		return c, db.NotFound(err, "there is no component %d", r.ComponentID)
	}
	err := tx.GetContext(ctx, &c, selectComponents+`WHERE c.messaging_exchange_id = $1
		AND c.type = $2 FOR KEY SHARE OF c`, r.ExchangeID, string(r.ComponentType))
	return c, db.NotFound(err, "exchange %d has no component of type %s", r.ExchangeID, r.ComponentType)
}

// RequestUpgrade makes the component's upgrade, or returns the open one: a repeat answers the same with the same id,
// however many ask at once. created says which. While it is only requested, a request takes an hourly one over, and a
// repeat with force adds the force; neither changes an operator's rollback.
func (s *Engine) RequestUpgrade(ctx context.Context,
	r managerapi.UpgradeRequest) (u managerapi.Upgrade, created bool, err error) {
	if r.Trigger == "" {
		r.Trigger = upgrade.TriggerRequest
	}
	err = s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		created = false
		if r.Trigger == upgrade.TriggerHourly {
			if err := db.RequireTerm(ctx, tx, r.ExchangeID, r.Term); err != nil {
				return err
			}
		}
		c, err := findComponent(ctx, tx, r)
		if err != nil {
			return err
		}
		row, fresh, err := s.requestUpgrade(ctx, tx, c, &upgradeRow{Trigger: r.Trigger, RequestedBy: r.RequestedBy,
			Reason: r.Reason, Force: r.Force})
		if err != nil {
			return err
		}
		taken := !fresh && takesOver(r, row)
		if taken {
			if err := takeOver(ctx, tx, row, r); err != nil {
				return err
			}
		}
		if (fresh || taken) && r.Trigger == upgrade.TriggerRequest && !row.Force {
			if err := s.askForRequest(ctx, tx, row); err != nil {
				return err
			}
		}
		if (fresh || taken) && !r.Quiet {
			if err := ringRequest(ctx, tx, row); err != nil {
				return err
			}
		}
		created = fresh
		u, err = upgradeView(ctx, tx, row)
		return err
	})
	return u, created, err
}

// requestUpgrade inserts an upgrade unless one is open: the unique index decides races.
func (s *Engine) requestUpgrade(ctx context.Context, tx *sqlx.Tx, c componentRow,
	want *upgradeRow) (row *upgradeRow, fresh bool, err error) {
	for range 3 {
		var ids []upgrade.ID
		err = tx.SelectContext(ctx, &ids, `INSERT INTO upgrades (id, component_id, component_type, messaging_exchange_id,
			proof, trigger, requested_by, reason, force,
				release_id, state, from_source_repo, from_source_repo_git_ref, to_source_repo, to_source_repo_git_ref,
				from_source_commit_hash, from_deployment_commit_hash, to_source_commit_hash, to_deployment_commit_hash)
			VALUES (new_id(), $1, $2, $3, $4, $5, $6, $7, $8, $9, 'requested', $10, $11, $12, $13, $14, $15, $16, $17)
			ON CONFLICT (component_id) WHERE state IN `+OpenStates+` DO NOTHING RETURNING id`,
			c.ID, string(c.Type), c.ExchangeID, string(c.Proof), string(want.Trigger), want.RequestedBy, want.Reason,
			want.Force,
			want.ReleaseID, c.Recorded.SourceRepo, c.Recorded.SourceRepoGitRef, want.To.SourceRepo, want.To.SourceRepoGitRef,
			c.Recorded.SourceCommitHash, c.Recorded.DeploymentCommitHash, want.To.SourceCommitHash,
			want.To.DeploymentCommitHash)
		if err != nil {
			return nil, false, fmt.Errorf("create upgrade of component %d: %w", c.ID, err)
		}
		if len(ids) == 1 {
			row, err = lockUpgrade(ctx, tx, ids[0])
			if err != nil {
				return nil, false, err
			}
			return row, true, db.WriteJournal(ctx, tx, db.Entry{Subject: row.subject(), Code: "requested",
				Message: fmt.Sprintf("an upgrade of %s was requested (%s)", c.Type, want.Trigger),
				Inputs: map[string]any{"requested_by": want.RequestedBy, "reason": want.Reason, "force": want.Force,
					"component_id": c.ID}})
		}
		if row, err = openUpgrade(ctx, tx, c.ID); row != nil || err != nil {
			return row, false, err
		}
	}
	return nil, false, fault.New(fault.Unavailable, "upgrades of component %d come and go: try again", c.ID)
}

// takesOver reports whether a request changes the open upgrade that it met. A person's request counts more than an
// hourly check, which may be refused where a request is not. Force is added to a request without force.
func takesOver(r managerapi.UpgradeRequest, open *upgradeRow) bool {
	if r.Trigger != upgrade.TriggerRequest || open.State != upgrade.Requested || open.Trigger == upgrade.TriggerRollback {
		return false
	}
	return open.Trigger == upgrade.TriggerHourly || (r.Force && !open.Force)
}

// takeOver makes the waiting upgrade the one that was asked for. Its turn counts from when somebody first asked for it,
// not from when an hourly check had found it; its expiry counts from now.
func takeOver(ctx context.Context, tx *sqlx.Tx, row *upgradeRow, r managerapi.UpgradeRequest) error {
	code, message := "requested", "what an hourly check had found was requested"
	if r.Force {
		code, message = "forced", "the request was repeated with force"
	}
	row.Force, row.Trigger, row.RequestedBy, row.Reason = row.Force ||
		r.Force, upgrade.TriggerRequest, r.RequestedBy, r.Reason
	err := tx.GetContext(ctx, &row.CreatedAt, `UPDATE upgrades SET force = $2, trigger = $3, requested_by = $4,
		reason = $5, asked_at = now(),
			created_at = CASE WHEN trigger = 'hourly' THEN now() ELSE created_at END WHERE id = $1 RETURNING created_at`,
		string(row.ID), row.Force, string(row.Trigger), row.RequestedBy, row.Reason)
	if err != nil {
		return fmt.Errorf("take over upgrade %s: %w", row.ID, err)
	}
	return db.WriteJournal(ctx, tx, db.Entry{Subject: row.subject(), Code: code, Message: message,
		Inputs: map[string]any{"requested_by": r.RequestedBy, "reason": r.Reason}})
}

// ringRequest tells the overseer of a request; it refers to the upgrade that exists.
func ringRequest(ctx context.Context, tx *sqlx.Tx, row *upgradeRow) error {
	return db.Enqueue(ctx, tx, db.NewMessage{ExchangeID: row.ExchangeID, Queue: messages.QueueOverseer,
		Type: messages.TypeUpgradeRequest, CorrelationID: string(row.ID), Expendable: true,
		Body: messages.OverseerMessage{Action: messages.ActionUpgradeRequest,
			Options: messages.OverseerOptions{ComponentType: string(row.ComponentType),
				ComponentID: int64(row.ComponentID), UpgradeID: string(row.ID), RequestedBy: row.RequestedBy, Reason: row.Reason,
				RequestID: string(row.ID)}}})
}

// RollbackRequest asks for an operator's return to a stored release; without ReleaseID to the one before (see
// earlierRelease).
type RollbackRequest struct {
	ComponentID component.ID
	ExchangeID  component.ExchangeID // 0: any
	ReleaseID   string
	RequestedBy string
	Reason      string
}

// RequestRollback makes an upgrade with trigger rollback. Asked twice for the same release, the same upgrade answers;
// any other open one is a Conflict.
func (s *Engine) RequestRollback(ctx context.Context, r RollbackRequest) (u managerapi.Upgrade, err error) {
	err = s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		c, err := findComponent(ctx, tx, managerapi.UpgradeRequest{ComponentID: r.ComponentID, ExchangeID: r.ExchangeID})
		if err != nil {
			return err
		}
		target, err := rollbackTarget(ctx, tx, c, r.ReleaseID)
		if err != nil {
			return err
		}
		to, err := s.rollbackVersion(ctx, tx, c, target)
		if err != nil {
			return err
		}
		row, fresh, err := s.requestUpgrade(ctx, tx, c, &upgradeRow{Trigger: upgrade.TriggerRollback,
			RequestedBy: r.RequestedBy, Reason: r.Reason,
			ReleaseID: &target.ID, To: to})
		if err != nil {
			return err
		}
		if !fresh && (row.ReleaseID == nil || *row.ReleaseID != target.ID) {
			return fault.New(fault.Conflict, "upgrade %s of this component is open: cancel it first",
				row.ID).WithCode(CodeUpgradeOpen)
		}
		if fresh {
			if err := ringRequest(ctx, tx, row); err != nil {
				return err
			}
		}
		u, err = upgradeView(ctx, tx, row)
		return err
	})
	return u, err
}

// rollbackVersion is the version that a rollback to a release of the first phase deploys. It is a Conflict unless every
// phase has a release to return to: none may get stuck between its phases.
func (s *Engine) rollbackVersion(ctx context.Context, tx *sqlx.Tx, c componentRow,
	target *releaseRow) (upgrade.Version, error) {
	to := target.version()
	var commits []string
	for i := range upgrade.PhasesOf(c.Type) {
		r, err := s.storedRelease(ctx, tx, &upgradeRow{ComponentID: c.ID, ReleaseID: &target.ID}, i+1)
		if err != nil {
			return to, err
		}
		commits = append(commits, r.DeploymentCommitHash)
	}
	to.DeploymentCommitHash = upgrade.JoinCommits(commits...)
	return to, nil
}

func rollbackTarget(ctx context.Context, tx *sqlx.Tx, c componentRow, releaseID string) (*releaseRow, error) {
	if releaseID == "" {
		return earlierRelease(ctx, tx, c)
	}
	r, err := oneRelease(ctx, tx, `WHERE id = $1 AND component_id = $2`, db.ParseID(releaseID), c.ID)
	switch {
	case err != nil:
		return nil, err
	case r.ProvenAt == nil:
		return nil, fault.New(fault.Conflict, "release %s was never proven", releaseID).WithCode(CodeNoRelease)
	case r.Phase != 1:
		return nil, fault.New(fault.Invalid, "release %s is of phase %d: name the one of phase 1", releaseID, r.Phase)
	}
	return r, nil
}

// earlierRelease is the release that a component returns to by default: the facts for release.Earlier. Conflict: there
// is none.
func earlierRelease(ctx context.Context, tx *sqlx.Tx, c componentRow) (*releaseRow, error) {
	var rows []struct {
		ID string `db:"id"`
		upgrade.Version
		Adopted bool      `db:"adopted"`
		FirstAt time.Time `db:"first_at"`
		LastAt  time.Time `db:"proven_at"`
	}
	err := tx.SelectContext(ctx, &rows, `SELECT id, source_repo, source_repo_git_ref, source_commit_hash,
		deployment_commit_hash, adopted,
			coalesce(first_proven_at, proven_at) AS first_at, proven_at
		FROM releases WHERE component_id = $1 AND phase = 1 AND proven_at IS NOT NULL`, c.ID)
	if err != nil {
		return nil, fmt.Errorf("list proven releases of component %d: %w", c.ID, err)
	}
	list := make([]release.Proven, len(rows))
	for i, r := range rows {
		list[i] = release.Proven{ID: r.ID, Version: r.Version, Adopted: r.Adopted, FirstAt: r.FirstAt, LastAt: r.LastAt}
	}
	recorded := c.Recorded // the releases are of the first phase
	recorded.DeploymentCommitHash = upgrade.CommitOf(recorded.DeploymentCommitHash, 1)
	target, ok := release.Earlier(list, recorded)
	if !ok {
		return nil, fault.New(fault.Conflict, "component %d has no release of another version that was proven before %s: "+
			"name one of GET /system_components/%d/releases as release_id", c.ID, c.Recorded.SourceRepoGitRef, c.ID).
			WithCode(CodeNoRelease)
	}
	return releaseByID(ctx, tx, target.ID)
}

// Check records an automatic check of a component under the leader's term, and makes the hourly upgrade if the check
// found one to be due. The verdict reaches the journal only when it differs from the last.
func (s *Engine) Check(ctx context.Context, id component.ID, ex component.ExchangeID, k managerapi.Check) error {
	return s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		c, err := findComponent(ctx, tx, managerapi.UpgradeRequest{ComponentID: id, ExchangeID: ex})
		if err != nil {
			return err
		}
		if err := db.RequireTerm(ctx, tx, c.ExchangeID, k.Term); err != nil {
			return err
		}
		if k.Verdict.Code != c.LastVerdict {
			if err := db.WriteJournal(ctx, tx, db.Entry{Subject: fmt.Sprintf("component/%d", id), Code: k.Verdict.Code,
				Message: k.Verdict.Message,
				Inputs:  map[string]any{"before": c.LastVerdict, "next_check_at": k.NextCheckAt}}); err != nil {
				return err
			}
		}
		if k.Create {
			if _, _, err := s.requestUpgrade(ctx, tx, c, &upgradeRow{Trigger: upgrade.TriggerHourly,
				RequestedBy: db.ActorOf(ctx).Name}); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, `UPDATE system_components SET next_check_at = $2, last_check_at = now(),
			last_verdict = $3, last_verdict_message = $4 WHERE id = $1`,
			id, k.NextCheckAt, k.Verdict.Code, k.Verdict.Message)
		if err != nil {
			return fmt.Errorf("record check of component %d: %w", id, err)
		}
		return nil
	})
}
