package render

import (
	"context"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openaperture/openaperture/pkg/deploy/failure"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// Request says what to render. SourceRepo and SourceRef may be blank: then source.json says them.
type Request struct {
	ComponentType  string
	ExchangeID     int64
	DeploymentRepo string
	DeploymentRef  string
	SourceRepo     string
	SourceRef      string
	// The commits for which the two refs stood when the upgrade was planned, "" where that is not known. Just these
	// commits are rendered, or nothing.
	DeploymentCommit string
	SourceCommit     string
}

// Release is what a deploy milestone deploys: rendered units, their cluster and count, and both full commits.
type Release struct {
	Units            []messages.UnitDefinition
	EtcdToken        string
	FleetConfig      *messages.FleetConfig // nil or without a count: one instance per machine
	SourceRepo       string
	SourceRef        string
	SourceCommit     string
	DeploymentCommit string
}

// Render makes the release of a request. It fetches and resolves both repositories at the same time.
func (g *Git) Render(ctx context.Context, r Request) (Release, error) {
	if strings.TrimSpace(r.SourceRepo) == "" || strings.TrimSpace(r.SourceRef) == "" {
		return g.renderFromSourceFile(ctx, r)
	}
	var t tree
	out := Release{SourceRepo: r.SourceRepo, SourceRef: r.SourceRef}
	both, inner := errgroup.WithContext(ctx)
	both.Go(func() (err error) { t, out.DeploymentCommit, err = g.deployment(inner, r); return err })
	both.Go(func() (err error) {
		out.SourceCommit,
			err = g.resolvePinned(inner, r.SourceRepo, r.SourceRef, r.SourceCommit)
		return err
	})
	if err := both.Wait(); err != nil {
		return Release{}, err
	}
	return out.complete(t, r)
}

// renderFromSourceFile takes what the request leaves out from source.json.
func (g *Git) renderFromSourceFile(ctx context.Context, r Request) (Release, error) {
	t, id, err := g.deployment(ctx, r)
	if err != nil {
		return Release{}, err
	}
	repo, ref, err := sourceOf(t)
	if err != nil {
		return Release{}, err
	}
	out := Release{DeploymentCommit: id, SourceRepo: orElse(r.SourceRepo, repo), SourceRef: orElse(r.SourceRef, ref)}
	if strings.TrimSpace(out.SourceRepo) == "" || strings.TrimSpace(out.SourceRef) == "" {
		return Release{}, failure.New(failure.RepoInvalid, "neither the order nor source.json names a source repository "+
			"and ref")
	}
	out.SourceCommit, err = g.resolvePinned(ctx, out.SourceRepo, out.SourceRef, r.SourceCommit)
	if err != nil {
		return Release{}, err
	}
	return out.complete(t, r)
}

// sourceOf is what source.json says, "" for what it does not say.
func sourceOf(t tree) (repo, ref string, err error) {
	source, err := readJSONFile(t, "source.json")
	if err != nil {
		return "", "", err
	}
	if repo, err = source.text("source_repo", "https://git.example.com/app.git"); err != nil {
		return "", "", err
	}
	ref, err = source.text("source_repo_git_ref", "v1.2.0")
	return repo, ref, err
}

func orElse(a, b string) string {
	if strings.TrimSpace(a) != "" {
		return a
	}
	return b
}

// deployment fetches the deployment repository and reads what we use of it.
func (g *Git) deployment(ctx context.Context, r Request) (tree, string, error) {
	var t tree
	var c commit
	err := g.inCache(ctx, r.DeploymentRepo, func() (err error) {
		if c, err = g.fetchPinned(ctx, r.DeploymentRepo, r.DeploymentRef, r.DeploymentCommit); err != nil {
			return err
		}
		t, err = g.read(ctx, c, func(name string) bool {
			_, isUnit := unitFile(name)
			return isUnit || name == "source.json" || name == "docker.json" || name == "etcd.json" || name == "fleet.json"
		})
		return err
	})
	if err != nil {
		return tree{}, "", err
	}
	return t, c.id, nil
}

// complete reads the JSON files and renders the units.
func (out Release) complete(t tree, r Request) (Release, error) {
	etcd, err := readJSONFile(t, "etcd.json")
	if err != nil {
		return Release{}, err
	}
	if out.EtcdToken, err = etcd.token(); err != nil {
		return Release{}, err
	}
	// docker.json is of the predecessor's builders: only its form is checked.
	if _, err := readJSONFile(t, "docker.json"); err != nil {
		return Release{}, err
	}
	fleet, err := readJSONFile(t, "fleet.json")
	if err != nil {
		return Release{}, err
	}
	config, err := fleet.fleetConfig()
	if err != nil {
		return Release{}, err
	}
	out.FleetConfig = &config
	out.Units, err = renderUnits(t, values{
		"commit_hash": out.SourceCommit, "source_ref": out.SourceRef, "timestamp": t.committedAt.Format(time.RFC1123),
		"dst_port": "0", "instance": "%i", "hostname": "%H",
		"component_type": r.ComponentType, "exchange_id": strconv.FormatInt(r.ExchangeID, 10),
	})
	if err != nil {
		return Release{}, err
	}
	return out, nil
}
