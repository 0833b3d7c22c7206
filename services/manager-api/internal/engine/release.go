package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/pkg/upgrade"

	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// releaseRow is one row of releases. It never changes, but for the instants of its proofs.
type releaseRow struct {
	ID                   string          `db:"id"`
	ComponentID          *component.ID   `db:"component_id"` // nil: of a workflow without upgrade
	Phase                int             `db:"phase"`
	Adopted              bool            `db:"adopted"`
	SourceRepo           string          `db:"source_repo"`
	SourceRepoGitRef     string          `db:"source_repo_git_ref"`
	SourceCommitHash     string          `db:"source_commit_hash"`
	DeploymentRepo       string          `db:"deployment_repo"`
	DeploymentRepoGitRef string          `db:"deployment_repo_git_ref"`
	DeploymentCommitHash string          `db:"deployment_commit_hash"`
	EtcdToken            string          `db:"etcd_token"`
	Units                json.RawMessage `db:"units"`
	Instances            *int            `db:"instances"`
	ProvenAt             *time.Time      `db:"proven_at"`
	InsertedAt           time.Time       `db:"inserted_at"`
	definitions          []messages.UnitDefinition
}

const releaseColumns = `id, component_id, phase, adopted, source_repo, source_repo_git_ref, source_commit_hash,
	deployment_repo, deployment_repo_git_ref,
	deployment_commit_hash, etcd_token, units, instances, proven_at, inserted_at`

func releaseFrom(w *workflowRow, r messages.Result) *releaseRow {
	out := &releaseRow{Phase: max(w.Phase, 1), SourceRepo: w.SourceRepo, SourceRepoGitRef: w.SourceRepoGitRef,
		SourceCommitHash: r.SourceCommitHash,
		DeploymentRepo:   w.DeploymentRepo, DeploymentRepoGitRef: w.DeploymentRepoGitRef,
		DeploymentCommitHash: r.DeploymentCommitHash,
		EtcdToken:            r.EtcdToken, definitions: r.DeployableUnits}
	if r.FleetConfig != nil {
		out.Instances = r.FleetConfig.InstanceCount
	}
	return out
}

// version is what a release deploys.
func (r *releaseRow) version() upgrade.Version {
	return upgrade.Version{SourceRepo: r.SourceRepo, SourceRepoGitRef: r.SourceRepoGitRef,
		SourceCommitHash: r.SourceCommitHash, DeploymentCommitHash: r.DeploymentCommitHash}
}

// insert stores a release under a fresh id. One with ProvenAt is proven now, on the database's clock.
func (r *releaseRow) insert(ctx context.Context, tx *sqlx.Tx) error {
	text, err := db.JSONText(r.definitions)
	if err != nil {
		return err
	}
	if r.ID, err = db.NewID(ctx, tx); err != nil {
		return err
	}
	r.Units = json.RawMessage(text)
	err = tx.QueryRowxContext(ctx, `INSERT INTO releases (id, component_id, phase, adopted, source_repo,
		source_repo_git_ref, source_commit_hash, deployment_repo,
			deployment_repo_git_ref, deployment_commit_hash, etcd_token, units, instances, proven_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, CASE WHEN $14 THEN now() END)
		RETURNING proven_at, inserted_at`,
		r.ID, r.ComponentID, r.Phase, r.Adopted, r.SourceRepo, r.SourceRepoGitRef, r.SourceCommitHash, r.DeploymentRepo,
		r.DeploymentRepoGitRef,
		r.DeploymentCommitHash, r.EtcdToken, text, r.Instances, r.ProvenAt != nil).Scan(&r.ProvenAt, &r.InsertedAt)
	if err != nil {
		return fmt.Errorf("store release: %w", err)
	}
	return nil
}

func releaseByID(ctx context.Context, tx *sqlx.Tx, id string) (*releaseRow, error) {
	return oneRelease(ctx, tx, `WHERE id = $1`, db.ParseID(id))
}

// provenRelease is the release of a phase that was proven last, nil without one.
func provenRelease(ctx context.Context, tx *sqlx.Tx, id component.ID, phase int) (*releaseRow, error) {
	r, err := oneRelease(ctx, tx, `WHERE component_id = $1 AND phase = $2 AND proven_at IS NOT NULL
		ORDER BY `+db.LastProven+` LIMIT 1`, id, phase)
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	return r, err
}

func oneRelease(ctx context.Context, tx *sqlx.Tx, where string, args ...any) (*releaseRow, error) {
	var r releaseRow
	if err := tx.GetContext(ctx, &r, `SELECT `+releaseColumns+` FROM releases `+where, args...); err != nil {
		return nil, db.NotFound(err, "there is no such release")
	}
	return &r, nil
}

// storedRelease is what an operator's rollback deploys in a phase: the chosen release in phase 1, and in a later phase
// the one that was proven together with it.
func (s *Engine) storedRelease(ctx context.Context, tx *sqlx.Tx, row *upgradeRow, phase int) (*releaseRow, error) {
	if row.ReleaseID == nil {
		return nil, fault.New(fault.Conflict, "upgrade %s names no release", row.ID).WithCode(CodeNoRelease)
	}
	chosen, err := releaseByID(ctx, tx, *row.ReleaseID)
	if err != nil || chosen.Phase == phase {
		return chosen, err
	}
	r, err := oneRelease(ctx, tx, `WHERE component_id = $1 AND phase = $2 AND proven_at IS NOT NULL
		ORDER BY proven_at = $3 DESC, source_repo_git_ref = $4 DESC,
		`+db.LastProven+` LIMIT 1`, row.ComponentID, phase, chosen.ProvenAt, chosen.SourceRepoGitRef)
	if fault.Is(err, fault.NotFound) {
		return nil, fault.New(fault.Conflict,
			"phase %d has no proven release to return to: POST one to the component's releases", phase).WithCode(CodeNoRelease)
	}
	return r, err
}

// adoptReplaced keeps what the first deploy of a phase found running, so that there is something to return to. The
// release must be stored before the upgrade moves, because the move asks whether there is one. The caller writes the
// returned journal entries after the move: the cause comes before its effects.
func (s *Engine) adoptReplaced(ctx context.Context, tx *sqlx.Tx, x orderChain, r messages.Result) ([]db.Entry, error) {
	replaced := r.ReplacedUnits()
	if x.upgrade == nil || x.workflow.Restoring || x.workflow.ReleaseID == nil || len(replaced) == 0 ||
		component.Blank(x.upgrade.From.SourceRepoGitRef) {
		return nil, nil
	}
	known, err := provenRelease(ctx, tx, x.upgrade.ComponentID, x.workflow.Phase)
	if err != nil || known != nil {
		return nil, err
	}
	current, err := releaseByID(ctx, tx, *x.workflow.ReleaseID)
	if err != nil {
		return nil, err
	}
	var wanted []messages.UnitDefinition
	if err := json.Unmarshal(current.Units, &wanted); err != nil {
		return nil, fmt.Errorf("decode units of release %s: %w", current.ID, err)
	}
	foreign := func(u messages.UnitDefinition) bool { return !isWanted(u, wanted) }
	if x.order.TakenOver && !slices.ContainsFunc(replaced, foreign) {
		return nil, nil // the executor before has replaced all of them: nobody knows what ran
	}
	units, count := templatesOf(replaced, wanted)
	adopted := &releaseRow{
		ComponentID:      &x.upgrade.ComponentID,
		Phase:            x.workflow.Phase,
		Adopted:          true,
		SourceRepo:       x.upgrade.From.SourceRepo,
		SourceRepoGitRef: x.upgrade.From.SourceRepoGitRef,
		DeploymentRepo:   x.workflow.DeploymentRepo,
		EtcdToken:        current.EtcdToken,
		definitions:      units,
		Instances:        &count,
		ProvenAt:         &x.workflow.Now,
	}
	if err := adopted.insert(ctx, tx); err != nil {
		return nil, err
	}
	return []db.Entry{{Subject: x.upgrade.subject(), Code: "release_adopted",
		Message: "what ran before is kept as the release to return to",
		Inputs:  map[string]any{"release_id": adopted.ID, "instances": count}}}, nil
}

var instanceName = regexp.MustCompile(`^(.+)@[^@]+(\.[a-z]+)$`)

// templatesOf turns the units of instances ("manager@1.service") back into templates ("manager@.service"), and counts
// the instances of the most frequent template. The definition of a template is that of its first instance by name. An
// instance that is already as wanted comes last: an earlier attempt of the same deploy has put it there.
func templatesOf(found, wanted []messages.UnitDefinition) ([]messages.UnitDefinition, int) {
	sorted := slices.Clone(found)
	rank := func(u messages.UnitDefinition) int {
		if isWanted(u, wanted) {
			return 1
		}
		return 0
	}
	slices.SortFunc(sorted, func(a, b messages.UnitDefinition) int {
		return cmp.Or(rank(a)-rank(b), strings.Compare(a.Name, b.Name))
	})
	count := map[string]int{}
	var out []messages.UnitDefinition
	most := 1
	for _, u := range sorted {
		u.Name = instanceName.ReplaceAllString(u.Name, "$1@$2")
		count[u.Name]++
		most = max(most, count[u.Name])
		if count[u.Name] == 1 {
			out = append(out, u)
		}
	}
	return out, most
}

func isWanted(found messages.UnitDefinition, wanted []messages.UnitDefinition) bool {
	name := instanceName.ReplaceAllString(found.Name, "$1@$2")
	return slices.ContainsFunc(wanted, func(w messages.UnitDefinition) bool {
		return w.Name == name && unit.Equal(unitOptions(w), unitOptions(found))
	})
}

func unitOptions(u messages.UnitDefinition) []unit.Option {
	out := make([]unit.Option, len(u.Options))
	for i, o := range u.Options {
		out[i] = unit.Option(o)
	}
	return out
}

func (r *releaseRow) wire() (managerapi.Release, error) {
	out := managerapi.Release{ID: r.ID, Phase: r.Phase, Adopted: r.Adopted, SourceRepo: r.SourceRepo,
		SourceRepoGitRef: r.SourceRepoGitRef,
		SourceCommitHash: r.SourceCommitHash, DeploymentRepo: r.DeploymentRepo, DeploymentRepoGitRef: r.DeploymentRepoGitRef,
		DeploymentCommitHash: r.DeploymentCommitHash, EtcdToken: r.EtcdToken, Instances: r.Instances,
		ProvenAt: db.UTC(r.ProvenAt), InsertedAt: r.InsertedAt.UTC()}
	if r.ComponentID != nil {
		out.ComponentID = *r.ComponentID
	}
	if err := json.Unmarshal(r.Units, &out.Units); err != nil {
		return out, fmt.Errorf("decode units of release %s: %w", r.ID, err)
	}
	return out, nil
}

// Releases lists a component's releases, newest first, below the cursor before ("" starts).
func (s *Engine) Releases(ctx context.Context, id component.ID, before string,
	limit int) ([]managerapi.Release, error) {
	var rows []releaseRow
	err := s.db.View(ctx, func(tx *sqlx.Tx) error {
		rows = nil
		return tx.SelectContext(ctx, &rows, `SELECT `+releaseColumns+` FROM releases WHERE component_id = $1 AND id < $2
			ORDER BY id DESC LIMIT $3`, id, db.OlderThan(before), limit)
	})
	if err != nil {
		return nil, fmt.Errorf("list releases of component %d: %w", id, err)
	}
	out := make([]managerapi.Release, 0, len(rows))
	for i := range rows {
		r, err := rows[i].wire()
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// Adopt stores a release that runs already as a proven one. It does not touch the recorded version.
func (s *Engine) Adopt(ctx context.Context, r managerapi.Release) (managerapi.Release, error) {
	row := &releaseRow{ComponentID: &r.ComponentID, Phase: max(r.Phase, 1), Adopted: true, SourceRepo: r.SourceRepo,
		SourceRepoGitRef: r.SourceRepoGitRef,
		SourceCommitHash: r.SourceCommitHash, DeploymentRepo: r.DeploymentRepo, DeploymentRepoGitRef: r.DeploymentRepoGitRef,
		DeploymentCommitHash: r.DeploymentCommitHash, EtcdToken: r.EtcdToken, definitions: r.Units, Instances: r.Instances,
		ProvenAt: &time.Time{}}
	err := s.db.Tx(ctx, func(tx *sqlx.Tx) error {
		if _, err := lockComponent(ctx, tx, r.ComponentID); err != nil {
			return err
		}
		if err := requireOwnNames(ctx, tx, row); err != nil {
			return err
		}
		if err := row.insert(ctx, tx); err != nil {
			return err
		}
		return db.WriteJournal(ctx, tx, db.Entry{Subject: fmt.Sprintf("component/%d", r.ComponentID), Code: "release_adopted",
			Message: "a release that runs already was stored as proven",
			Inputs:  map[string]any{"release_id": row.ID, "source_repo_git_ref": r.SourceRepoGitRef}})
	})
	if err != nil {
		return managerapi.Release{}, err
	}
	return row.wire()
}
