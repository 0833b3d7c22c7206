package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/blame"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/module"
	"github.com/openaperture/openaperture/pkg/schedule"
	"github.com/openaperture/openaperture/pkg/upgrade"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// Snapshot reads everything that a pass of the overseer decides on, in one repeatable-read transaction. Modules come as
// counts; as rows only for types with a running upgrade, or all of them where the reader wants every row (the health of
// an exchange shows what runs).
func (s *Engine) Snapshot(ctx context.Context, ex component.ExchangeID, everyModule bool) (managerapi.Snapshot, error) {
	var out managerapi.Snapshot
	err := s.db.View(ctx, func(tx *sqlx.Tx) error {
		out = managerapi.Snapshot{MinHealthyMS: s.times.MinHealthy.Milliseconds(),
			LiveWithinMS: s.times.LiveWithin.Milliseconds(), MissingAfterMS: s.times.MissingAfter.Milliseconds()}
		if err := tx.GetContext(ctx, &out.DatabaseTime, `SELECT now()`); err != nil {
			return fmt.Errorf("read the database's clock: %w", err)
		}
		out.DatabaseTime = out.DatabaseTime.UTC()
		for _, read := range []func(context.Context, *sqlx.Tx, component.ExchangeID, *managerapi.Snapshot) error{
			readExchange, s.readLeader, readGold, s.readUpgrades, readQuarantines, readFreeze, s.readCounts, readHeard,
			readFailures, s.readResolved,
		} {
			if err := read(ctx, tx, ex, &out); err != nil {
				return err
			}
		}
		return readModules(ctx, tx, ex, everyModule, &out)
	})
	return out, err
}

func readExchange(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, out *managerapi.Snapshot) error {
	var err error
	out.Exchange, err = db.FindExchange(ctx, tx, ex)
	return err
}

func (s *Engine) readLeader(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, out *managerapi.Snapshot) error {
	l, err := s.db.FindLeader(ctx, tx, ex)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	out.Lease = &l
	return err
}

const refColumns = `type, source_repo, source_repo_git_ref, auto_upgrade_enabled, follow`

func readGold(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, out *managerapi.Snapshot) error {
	out.Refs, out.Components = []component.Ref{}, []component.Component{}
	err := tx.SelectContext(ctx, &out.Refs, `SELECT `+refColumns+` FROM system_component_refs ORDER BY type`)
	if err != nil {
		return fmt.Errorf("read refs: %w", err)
	}
	err = tx.SelectContext(ctx, &out.Components, `SELECT c.id, c.messaging_exchange_id, c.type, c.source_repo,
			c.source_repo_git_ref, recorded.source_commit_hash, recorded.deployment_commit_hash, c.deployment_repo,
			c.deployment_repo_git_ref, c.follow_deployment, c.upgrade_strategy, c.proof, coalesce(c.status, '') AS status,
			c.next_check_at, c.last_verdict
		FROM system_components c CROSS JOIN `+db.RecordedCommits+`
		WHERE c.messaging_exchange_id = $1 ORDER BY c.id`, ex)
	if err != nil {
		return fmt.Errorf("read components of exchange %d: %w", ex, err)
	}
	for i := range out.Components {
		out.Components[i].NextCheckAt = db.UTC(out.Components[i].NextCheckAt)
	}
	return nil
}

func (s *Engine) readUpgrades(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID,
	out *managerapi.Snapshot) error {
	var rows []upgradeRow
	err := tx.SelectContext(ctx, &rows, `SELECT `+upgradeColumns+` FROM upgrades WHERE messaging_exchange_id = $1
		AND state IN `+OpenStates+`
		ORDER BY trigger = 'hourly', created_at, id`, ex)
	if err != nil {
		return fmt.Errorf("read open upgrades of exchange %d: %w", ex, err)
	}
	out.Upgrades = make([]managerapi.OpenUpgrade, 0, len(rows))
	for i := range rows {
		u, err := upgradeView(ctx, tx, &rows[i])
		if err != nil {
			return err
		}
		need, err := s.proofNeed(ctx, tx, &rows[i])
		if err != nil {
			return err
		}
		out.Upgrades = append(out.Upgrades, managerapi.OpenUpgrade{Upgrade: u, Need: need})
	}
	return nil
}

func readQuarantines(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, out *managerapi.Snapshot) error {
	var rows []quarantineRow
	err := tx.SelectContext(ctx, &rows, `SELECT `+quarantineColumns+` FROM quarantines WHERE messaging_exchange_id = $1
		AND (expires_at IS NULL OR expires_at > now()) ORDER BY id`, ex)
	if err != nil {
		return fmt.Errorf("read quarantines of exchange %d: %w", ex, err)
	}
	out.Quarantines = make([]managerapi.Quarantine, 0, len(rows))
	for _, q := range rows {
		out.Quarantines = append(out.Quarantines, q.wire())
	}
	return nil
}

// readFailures reads of which components the last upgrades failed by the environment, one after the other.
func readFailures(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, out *managerapi.Snapshot) error {
	var rows []struct {
		ComponentID component.ID `db:"component_id"`
		upgrade.Version
		State     upgrade.State `db:"state"`
		Cause     upgrade.Cause `db:"cause"`
		StartedAt time.Time     `db:"started_at"`
	}
	err := tx.SelectContext(ctx, &rows, `SELECT ended.* FROM system_components c CROSS JOIN LATERAL (
			SELECT component_id, to_source_repo AS source_repo, to_source_repo_git_ref AS source_repo_git_ref,
				to_source_commit_hash AS source_commit_hash, to_deployment_commit_hash AS deployment_commit_hash, state,
				coalesce(cause, '') AS cause, started_at
			FROM upgrades u
			WHERE u.component_id = c.id AND started_at IS NOT NULL AND finished_at IS NOT NULL
				AND cause IS DISTINCT FROM 'operator'
			ORDER BY finished_at DESC LIMIT $2) ended
		WHERE c.messaging_exchange_id = $1 ORDER BY c.id, ended.started_at DESC`, ex, schedule.RememberFailures)
	if err != nil {
		return fmt.Errorf("read failures of exchange %d: %w", ex, err)
	}
	var ended []schedule.Ended
	for i, r := range rows {
		ended = append(ended, schedule.Ended{Target: r.Version,
			State: r.State, Cause: r.Cause, Started: r.StartedAt.UTC()})
		if i+1 < len(rows) && rows[i+1].ComponentID == r.ComponentID {
			continue
		}
		if target, f := schedule.CountFailures(ended); f.Count > 0 {
			out.Failures = append(out.Failures, managerapi.EnvironmentFailures{ComponentID: r.ComponentID, Target: target,
				Count: f.Count, Last: f.Last})
		}
		ended = nil
	}
	return nil
}

// liveModule is module.Module.Live in SQL, of the modules m. live is the placeholder of live_within in milliseconds.
func liveModule(m, live string) string {
	return m + `.status = 'active' AND ` + m + `.updated_at >= now() - ` + live + ` * interval '1 millisecond'`
}

// readCounts counts the modules of an exchange in one statement, as there may be 100,000. The statement encodes
// eligibility.Tried (tried.at) and eligibility.Stayed (stayed).
func (s *Engine) readCounts(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, out *managerapi.Snapshot) error {
	out.Counts = []module.Count{}
	err := tx.SelectContext(ctx, &out.Counts, `WITH live AS (
			SELECT *, `+liveModule("m", "$2")+` AS live
			FROM messaging_exchange_modules m WHERE messaging_exchange_id = $1),
		tried AS MATERIALIZED ( -- once for each component, however it is joined
			SELECT c.type, (SELECT max(u.finished_at) FROM upgrades u WHERE `+triedAtRecorded("$3")+`) AS at
			FROM system_components c WHERE c.messaging_exchange_id = $1)
		SELECT m.type, m.service, m.source_repo_git_ref, m.status, count(*) AS total, count(*) FILTER (WHERE m.live) AS live,
			count(*) FILTER (WHERE m.live AND m.steady_since < tried.at) AS stayed,
			count(*) FILTER (WHERE m.live AND m.rival_again >= now() - $2 * interval '1 millisecond') AS disputed
		FROM live m LEFT JOIN tried ON tried.type = m.type
		GROUP BY m.type, m.service, m.source_repo_git_ref, m.status ORDER BY m.type, m.service, m.source_repo_git_ref,
		m.status`, ex, s.times.LiveWithin.Milliseconds(), string(blame.NotProven))
	if err != nil {
		return fmt.Errorf("count modules of exchange %d: %w", ex, err)
	}
	return nil
}

// triedAtRecorded is, in SQL, whether the upgrade u of the component c shows what an upgrade to the recorded version
// does: it was completed, or could not be proven (eligibility.Tried). notProven is the placeholder of blame.NotProven.
func triedAtRecorded(notProven string) string {
	return `u.component_id = c.id
		AND u.to_source_repo = c.source_repo AND u.to_source_repo_git_ref = c.source_repo_git_ref
		AND (u.state = 'completed' OR u.verdict_code = ` + notProven + `)`
}

// readHeard reads when the instances were heard last of the components that have a recorded version and of which
// nothing is live. The counts are read before. In a healthy exchange there is no such component, so that no module is
// read for this.
func readHeard(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, out *managerapi.Snapshot) error {
	live := []string{}
	for _, n := range out.Counts {
		if n.Live > 0 {
			live = append(live, string(n.Type))
		}
	}
	err := tx.SelectContext(ctx, &out.Heard, `SELECT c.id AS component_id, c.last_check_at AS checked_at,
			greatest(gone.last_at,
				(SELECT max(m.updated_at) FROM messaging_exchange_modules m
					WHERE m.messaging_exchange_id = c.messaging_exchange_id AND m.type = c.type),
				CASE WHEN c.proof = 'modules' THEN (SELECT max(r.proven_at) FROM releases r WHERE r.component_id = c.id
					AND r.source_repo = c.source_repo AND r.source_repo_git_ref = c.source_repo_git_ref) END) AS last_at,
			(SELECT max(u.finished_at) FROM upgrades u WHERE `+triedAtRecorded("$3")+`) AS tried_at
		FROM system_components c LEFT JOIN last_heartbeats gone ON gone.component_id = c.id
		WHERE c.messaging_exchange_id = $1 AND c.source_repo_git_ref <> '' AND c.type <> ALL($2) ORDER BY c.id`,
		ex, db.TextArray(live), string(blame.NotProven))
	if err != nil {
		return fmt.Errorf("read who is missing in exchange %d: %w", ex, err)
	}
	for i := range out.Heard {
		h := &out.Heard[i]
		h.LastAt, h.TriedAt, h.CheckedAt = db.UTC(h.LastAt), db.UTC(h.TriedAt), db.UTC(h.CheckedAt)
	}
	return nil
}

func readModules(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, every bool,
	out *managerapi.Snapshot) error {
	types := []string{}
	for _, u := range out.Upgrades {
		if u.State.Running() {
			types = append(types, string(u.ComponentType))
		}
	}
	if every {
		for _, c := range out.Counts {
			types = append(types, string(c.Type))
		}
	}
	var err error
	out.Modules, err = modulesOf(ctx, tx, ex, types)
	return err
}

func readFreeze(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, out *managerapi.Snapshot) (err error) {
	out.Freeze, err = freezeFor(ctx, tx, ex)
	return err
}
