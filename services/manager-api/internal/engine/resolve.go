package engine

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// Which commits stand behind refs is asked for by the milestone resolve, shortly before the automatic checks that
// compare them, and at a request whose verdict depends on it. An order of this milestone has a workflow of its own,
// which goes with its answer: what remains is the answer.

// askAtMost bounds the components of one order, so that order and answer fit into a message.
const askAtMost = 60

// AskRefs orders the executors of each exchange to ask git hosts for the refs of the components whose automatic check
// comes within resolve_ahead: each component once for each check, one order per executor, all repositories together.
// Components that are manual or disabled have no such check. An exchange without an executor that announces the
// milestone is not asked: what nobody knows is no difference.
func (s *Engine) AskRefs(ctx context.Context, consuming []component.ExchangeID) error {
	return s.forEachDue(ctx, `SELECT DISTINCT c.messaging_exchange_id::text AS id, c.messaging_exchange_id
		FROM system_components c JOIN system_component_refs r ON r.type = c.type
		WHERE c.messaging_exchange_id = ANY($1) AND `+refsDue+` AND EXISTS (
			SELECT 1 FROM executors e WHERE e.messaging_exchange_id = c.messaging_exchange_id
			AND 'resolve' = ANY(e.capabilities))
		ORDER BY c.messaging_exchange_id`,
		func(ctx context.Context, tx *sqlx.Tx, id string) error {
			ex, err := strconv.ParseInt(id, 10, 64)
			if err != nil {
				return fmt.Errorf("read exchange %q: %w", id, err)
			}
			return s.askDueRefs(ctx, tx, component.ExchangeID(ex))
		}, pq.Array(db.ExchangeIDs(consuming)), s.times.ResolveAhead().Milliseconds())
}

// refsDue is, in SQL, the condition of AskRefs over the components c with their refs r: $2 is resolve_ahead.
const refsDue = `c.upgrade_strategy = 'hourly' AND r.auto_upgrade_enabled
	AND c.next_check_at <= now() + $2 * interval '1 millisecond' AND c.refs_asked_for IS DISTINCT FROM c.next_check_at
	AND NOT EXISTS (SELECT 1 FROM orders o WHERE o.messaging_exchange_id = c.messaging_exchange_id
		AND o.milestone = 'resolve' AND o.state IN ('open', 'claimed'))`

// refsOf is whose refs are asked for.
type refsOf struct {
	ID             component.ID   `db:"id"`
	Type           component.Type `db:"type"`
	SourceRepo     string         `db:"source_repo"`
	SourceRef      string         `db:"source_repo_git_ref"`
	DeploymentRepo string         `db:"deployment_repo"`
	DeploymentRef  string         `db:"deployment_repo_git_ref"`
}

const selectRefsOf = `SELECT c.id, c.type, r.source_repo, r.source_repo_git_ref, c.deployment_repo,
		c.deployment_repo_git_ref
	FROM system_components c JOIN system_component_refs r ON r.type = c.type `

// byExecutor are the refs of a component, by the executor that fetches from their repositories.
func (r refsOf) byExecutor() map[upgrade.Executor][]messages.GitRef {
	out := map[upgrade.Executor][]messages.GitRef{}
	add := func(e upgrade.Executor, repo, ref string) {
		if !component.Blank(repo) && !component.Blank(ref) {
			out[e] = append(out[e], messages.GitRef{Repo: repo, Ref: ref})
		}
	}
	for i, phase := range upgrade.PhasesOf(r.Type) {
		if i == 0 {
			add(phase.Milestone, r.SourceRepo, r.SourceRef)
		}
		add(phase.Milestone, phase.DeploymentRepo(r.DeploymentRepo), r.DeploymentRef)
	}
	return out
}

// askDueRefs is AskRefs for one exchange. The components are locked: of two replicas one asks.
func (s *Engine) askDueRefs(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID) error {
	var due []refsOf
	err := tx.SelectContext(ctx, &due, selectRefsOf+`WHERE c.messaging_exchange_id = $1 AND `+refsDue+`
		ORDER BY c.next_check_at, c.id LIMIT $3 FOR NO KEY UPDATE OF c`, ex, s.times.ResolveAhead().Milliseconds(), askAtMost)
	if err != nil {
		return fmt.Errorf("find components of exchange %d whose refs are to be asked for: %w", ex, err)
	}
	asked, err := s.askRefs(ctx, tx, ex, due)
	if err != nil || len(asked) == 0 {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE system_components SET refs_asked_for = next_check_at WHERE id = ANY($1)`,
		pq.Array(asked))
	if err != nil {
		return fmt.Errorf("record whose refs are asked for: %w", err)
	}
	return nil
}

// askForRequest orders to ask for the refs of one component now, if a request could be refused for what is not known:
// the ref is recorded already, or it is in quarantine. Any other ref is resolved by its config.
func (s *Engine) askForRequest(ctx context.Context, tx *sqlx.Tx, row *upgradeRow) error {
	var of []refsOf
	err := tx.SelectContext(ctx, &of, selectRefsOf+`WHERE c.id = $1 AND (
			(c.source_repo, c.source_repo_git_ref) = (r.source_repo, r.source_repo_git_ref)
			OR EXISTS (SELECT 1 FROM quarantines q WHERE q.messaging_exchange_id = c.messaging_exchange_id
				AND q.component_type = c.type
				AND (q.source_repo, q.source_repo_git_ref) = (r.source_repo, r.source_repo_git_ref)))`, row.ComponentID)
	if err != nil {
		return fmt.Errorf("find the refs of component %d: %w", row.ComponentID, err)
	}
	_, err = s.askRefs(ctx, tx, row.ExchangeID, of)
	return err
}

// askRefs orders every executor that can to ask for its refs of these components. It returns those that were asked for.
func (s *Engine) askRefs(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID,
	list []refsOf) (asked []int64, err error) {
	if len(list) == 0 {
		return nil, nil
	}
	capable, err := s.capableExecutors(ctx, tx, ex, managerapi.CapResolve)
	if err != nil {
		return nil, err
	}
	refs := map[upgrade.Executor][]messages.GitRef{}
	for _, of := range list {
		var found bool
		for executor, some := range of.byExecutor() {
			if capable[executor] {
				refs[executor], found = append(refs[executor], some...), true
			}
		}
		if found {
			asked = append(asked, int64(of.ID))
		}
	}
	for _, executor := range []upgrade.Executor{upgrade.ExecDeployOA, upgrade.ExecDeploy} {
		if len(refs[executor]) > 0 {
			if err := s.orderResolve(ctx, tx, ex, executor, distinct(refs[executor])); err != nil {
				return nil, err
			}
		}
	}
	return asked, nil
}

func distinct(refs []messages.GitRef) []messages.GitRef {
	var out []messages.GitRef
	for _, r := range refs {
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out
}

// orderResolve sends one order with its workflow.
func (s *Engine) orderResolve(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, to upgrade.Executor,
	refs []messages.GitRef) error {
	id, err := db.NewID(ctx, tx)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO workflows (id, milestones, current_step, workflow_error,
			messaging_exchange_id, executor, began_at, step_began_at)
		VALUES ($1, '["resolve"]', 'resolve', false, $2, $3, now(), now())`, id, ex, string(to))
	if err != nil {
		return fmt.Errorf("create workflow of a resolve: %w", err)
	}
	w, err := lockWorkflow(ctx, tx, id)
	if err != nil {
		return err
	}
	o := s.baseOrder(w, messages.MilestoneResolve)
	o.Resolve = refs
	if err := s.storeOrder(ctx, tx, w, queueOf(to), o); err != nil {
		return err
	}
	repos, names := make([]string, len(refs)), make([]string, len(refs))
	for i, r := range refs {
		repos[i], names[i] = r.Repo, r.Ref
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO resolved_refs (messaging_exchange_id, repo, ref)
		SELECT $1, repo, ref FROM unnest($2::text[], $3::text[]) asked(repo, ref)
		ON CONFLICT (messaging_exchange_id, repo, ref) DO UPDATE SET asked_at = now()`, ex, pq.Array(repos), pq.Array(names))
	if err != nil {
		return fmt.Errorf("record refs that are asked for: %w", err)
	}
	return nil
}

// resolvedRow is one row of resolved_refs.
type resolvedRow struct {
	Repo       string            `db:"repo"`
	Ref        string            `db:"ref"`
	Kind       component.RefKind `db:"kind"`
	Commit     string            `db:"commit_hash"`
	ResolvedAt *time.Time        `db:"resolved_at"`
	Error      string            `db:"error"`
	ErrorTold  bool              `db:"error_told"`  // people were told of the error
	ToldCommit string            `db:"told_commit"` // to which the tag was moved when people were told last
}

const resolvedColumns = `repo, ref, kind, commit_hash, resolved_at, error, error_told, told_commit`

// readResolved reads what git hosts said last, and whether they are asked at this moment. An order that nobody answers
// for as long as an unclaimed one waits keeps no check waiting.
func (s *Engine) readResolved(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID,
	out *managerapi.Snapshot) error {
	var rows []resolvedRow
	err := tx.SelectContext(ctx, &rows, `SELECT `+resolvedColumns+` FROM resolved_refs WHERE messaging_exchange_id = $1
		ORDER BY repo, ref`, ex)
	if err != nil {
		return fmt.Errorf("read resolved refs of exchange %d: %w", ex, err)
	}
	for _, r := range rows {
		at := time.Time{}
		if r.ResolvedAt != nil {
			at = r.ResolvedAt.UTC()
		}
		out.Resolved = append(out.Resolved, managerapi.ResolvedRef{Repo: r.Repo, Ref: r.Ref, Kind: r.Kind, Commit: r.Commit,
			At: at, Error: r.Error})
	}
	err = tx.GetContext(ctx, &out.Resolving, `SELECT EXISTS (SELECT 1 FROM orders WHERE messaging_exchange_id = $1
		AND milestone = 'resolve' AND state IN ('open', 'claimed') AND created_at > now() - $2 * interval '1 millisecond')`,
		ex, s.times.Unclaimed.Milliseconds())
	if err != nil {
		return fmt.Errorf("look for open resolves of exchange %d: %w", ex, err)
	}
	return nil
}

var fullCommit = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// resolved takes the answer to a resolve: about the refs that were asked for, and no others. The workflow of the order
// goes with it.
func (s *Engine) resolved(ctx context.Context, tx *sqlx.Tx, x orderChain, answers []messages.Resolved) error {
	return s.endResolve(ctx, tx, x.workflow, func(asked messages.GitRef) messages.Resolved {
		i := slices.IndexFunc(answers, func(a messages.Resolved) bool { return a.Repo == asked.Repo && a.Ref == asked.Ref })
		switch {
		case i < 0:
			return messages.Resolved{Error: "the executor did not say"}
		case answers[i].Error == "" && !fullCommit.MatchString(answers[i].Commit):
			return messages.Resolved{Error: "the executor named no full commit"}
		default:
			return answers[i]
		}
	}, true)
}

// unresolved ends a resolve that no executor has answered: what was known stays.
func (s *Engine) unresolved(ctx context.Context, tx *sqlx.Tx, w *workflowRow, f failure) error {
	return s.endResolve(ctx, tx, w, func(messages.GitRef) messages.Resolved {
		return messages.Resolved{Error: "no executor asked for it: " + f.Message}
	}, false)
}

// endResolve stores what is known of each ref that a workflow asked for, and removes the workflow with its orders. tell
// says that people are told of a host that does not answer.
func (s *Engine) endResolve(ctx context.Context, tx *sqlx.Tx, w *workflowRow,
	answer func(messages.GitRef) messages.Resolved, tell bool) error {
	var orders []orderRow
	if err := tx.SelectContext(ctx, &orders, `SELECT `+orderColumns+` FROM orders WHERE workflow_id = $1 ORDER BY id
		FOR UPDATE`, w.ID); err != nil {
		return fmt.Errorf("read orders of workflow %s: %w", w.ID, err)
	}
	for _, row := range orders {
		o, err := row.message()
		if err != nil {
			return err
		}
		for _, asked := range o.Resolve {
			if err := s.storeResolved(ctx, tx, row.ExchangeID, asked, answer(asked), tell); err != nil {
				return err
			}
		}
		if err := dropLeases(ctx, tx, []string{row.lease()}); err != nil {
			return err
		}
		if err := db.RingOverseer(ctx, tx, row.ExchangeID, 0, ""); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM workflows WHERE id = $1`, w.ID); err != nil {
		return fmt.Errorf("remove workflow %s: %w", w.ID, err)
	}
	return nil
}

// storeResolved stores what a git host said about one ref. If the host could not be asked, what it said before stays.
func (s *Engine) storeResolved(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, asked messages.GitRef,
	a messages.Resolved, tell bool) error {
	var old resolvedRow
	err := tx.GetContext(ctx, &old, `SELECT `+resolvedColumns+` FROM resolved_refs
		WHERE messaging_exchange_id = $1 AND repo = $2 AND ref = $3 FOR UPDATE`, ex, asked.Repo, asked.Ref)
	if err := db.NotFound(err, "nobody wants to know %s of %s any more", asked.Ref, asked.Repo); err != nil {
		if fault.Is(err, fault.NotFound) {
			return nil
		}
		return err
	}
	now := old
	if now.Error = a.Error; a.Error == "" {
		now.Kind, now.Commit = component.RefKind(a.Kind), a.Commit
	}
	if err := s.tellResolved(ctx, tx, ex, old, &now, tell); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE resolved_refs SET kind = $4, commit_hash = $5, error = $6, error_told = $7,
			told_commit = $8, resolved_at = CASE WHEN $6 = '' THEN now() ELSE resolved_at END
		WHERE messaging_exchange_id = $1 AND repo = $2 AND ref = $3`, ex, asked.Repo, asked.Ref, string(now.Kind), now.Commit,
		now.Error, now.ErrorTold, now.ToldCommit)
	if err != nil {
		return fmt.Errorf("store what %s of %s stands for: %w", asked.Ref, asked.Repo, err)
	}
	return nil
}

// tellResolved raises a SystemEvent once for each repository that cannot be asked, once when it can be asked again, and
// once for each commit to which a tag was moved.
func (s *Engine) tellResolved(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, old resolvedRow,
	now *resolvedRow, tell bool) error {
	data := map[string]any{"repo": now.Repo, "ref": now.Ref, "commit": now.Commit, "error": now.Error}
	others := false // of this repository, of which people were told
	if now.Error != "" && tell || old.ErrorTold {
		err := tx.GetContext(ctx, &others, `SELECT EXISTS (SELECT 1 FROM resolved_refs WHERE messaging_exchange_id = $1
			AND repo = $2 AND ref <> $3 AND error_told)`, ex, now.Repo, now.Ref)
		if err != nil {
			return fmt.Errorf("look for errors of %s: %w", now.Repo, err)
		}
	}
	switch {
	case now.Error != "" && tell && !old.ErrorTold:
		now.ErrorTold = true
		if others {
			return nil
		}
		return db.RaiseEvent(ctx, tx, &ex, "git_unresolved", db.SeverityWarning, fmt.Sprintf(
			"nobody knows what the refs of %s stand for (%s): nothing changes until its git host tells it again", now.Repo,
			now.Error), data)
	case now.Error == "" && old.ErrorTold:
		now.ErrorTold = false
		if others {
			break
		}
		if err := db.RaiseEvent(ctx, tx, &ex, "git_resolved", db.SeverityInfo,
			fmt.Sprintf("the git host tells again what the refs of %s stand for", now.Repo), data); err != nil {
			return err
		}
	}
	if now.Error != "" || now.Kind != component.Tag {
		return nil
	}
	return s.tellMovedTag(ctx, tx, ex, old, now, data)
}

// tellMovedTag raises a SystemEvent if a tag stands for another commit than before, or than the commit that a component
// has recorded of it.
func (s *Engine) tellMovedTag(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID, old resolvedRow,
	now *resolvedRow, data map[string]any) error {
	before := old.Commit
	if !upgrade.CommitsDiffer(before, now.Commit) {
		err := tx.GetContext(ctx, &before, `SELECT coalesce(min(recorded.source_commit_hash), '')
			FROM system_components c CROSS JOIN `+db.RecordedCommits+`
			WHERE c.messaging_exchange_id = $1 AND c.source_repo = $2 AND c.source_repo_git_ref = $3
				AND recorded.source_commit_hash NOT IN ('', $4)`, ex, now.Repo, now.Ref, now.Commit)
		if err != nil {
			return fmt.Errorf("read which commit of %s is recorded: %w", now.Ref, err)
		}
	}
	if !upgrade.CommitsDiffer(before, now.Commit) || now.ToldCommit == now.Commit {
		return nil
	}
	now.ToldCommit = now.Commit
	data["before"] = before
	return db.RaiseEvent(ctx, tx, &ex, "tag_moved", db.SeverityWarning,
		fmt.Sprintf("the tag %s of %s was moved from commit "+
			"%s to %s: components of this version are upgraded to it only if follow of their ref is true", now.Ref, now.Repo,
			before, now.Commit), data)
}
