package render

import (
	"context"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/openaperture/openaperture/pkg/deploy/failure"
	messages "github.com/openaperture/openaperture/proto-messages"
)

const (
	askAtOnce = 4   // repositories
	maxError  = 300 // bytes of one error
)

// Resolve is the milestone resolve: it asks git hosts for which commits refs stand. Each repository is asked once,
// without a fetch, under the rules for addresses and within the times of a fetch. A ref that is a full commit id stands
// for itself, and nobody is asked. The answers are in the order of the refs, each with a commit or with an error.
func (g *Git) Resolve(ctx context.Context, refs []messages.GitRef) []messages.Resolved {
	out := make([]messages.Resolved, len(refs))
	places := map[string][]int{} // repository → places of its refs
	for i, r := range refs {
		out[i] = messages.Resolved{Repo: r.Repo, Ref: r.Ref}
		if fullCommit.MatchString(r.Ref) {
			out[i].Kind, out[i].Commit = messages.RefCommit, r.Ref
			continue
		}
		places[r.Repo] = append(places[r.Repo], i)
	}
	var group errgroup.Group
	group.SetLimit(askAtOnce)
	for _, repo := range slices.Sorted(maps.Keys(places)) {
		group.Go(func() error {
			g.resolveAll(ctx, repo, out, places[repo])
			return nil
		})
	}
	_ = group.Wait()
	return out
}

// resolveAll fills in the places of one repository.
func (g *Git) resolveAll(ctx context.Context, repo string, out []messages.Resolved, places []int) {
	var names []string
	for _, i := range places {
		if _, err := g.accept(repo, out[i].Ref); err != nil {
			out[i].Error = errorText(err)
			continue
		}
		names = append(names, out[i].Ref)
	}
	if len(names) == 0 {
		return
	}
	found, err := g.askAll(ctx, repo, names)
	for _, i := range places {
		ref := out[i].Ref
		switch {
		case out[i].Error != "":
		case err != nil:
			out[i].Error = errorText(err)
		default:
			if out[i].Kind, out[i].Commit = pick(found, ref); out[i].Commit == "" {
				out[i].Error = errorText(failure.New(failure.GitRefUnknown, "%s has no ref %q", shorten(repo), ref))
			}
		}
	}
}

// askAll asks a repository for refs that were accepted.
func (g *Git) askAll(ctx context.Context, repo string, refs []string) (map[string]string, error) {
	a, err := parseAddress(repo, g.cfg.AllowLocal)
	if err != nil {
		return nil, err
	}
	extra, err := g.admit(ctx, a)
	if err != nil {
		return nil, err
	}
	return g.listRemote(ctx, a, extra, refs...)
}

func errorText(err error) string {
	text := err.Error()
	if f, ok := failure.Of(err); ok {
		text = f.Message
	}
	return strings.ToValidUTF8(clip(text, maxError), "")
}

// listRemote asks a repository for which commits some refs stand: ids by the full names of refs. A tag that is an
// object of its own has a second line, "<name>^{}", with its commit.
func (g *Git) listRemote(ctx context.Context, a address, extra []string, refs ...string) (map[string]string, error) {
	limited, stop := context.WithTimeout(ctx, g.cfg.Timeout)
	defer stop()
	args := []string{"ls-remote", "--quiet", "--", a.url}
	for _, ref := range refs {
		args = append(args, ref, ref+"^{}")
	}
	out, err := g.command(limited, a, extra, nil, args...)
	if err != nil {
		return nil, g.explain(ctx, a, extra, refs[0], err)
	}
	found := map[string]string{}
	for line := range strings.Lines(string(out)) {
		id, full, ok := strings.Cut(strings.TrimRight(line, "\n"), "\t")
		if ok && fullCommit.MatchString(id) {
			found[full] = id
		}
	}
	return found, nil
}

// pick chooses what a short name stands for, in git's own order: a tag wins over a branch. A tag that is an object of
// its own stands for its commit. The kind is branch for everything that is not a tag.
func pick(found map[string]string, ref string) (kind, commit string) {
	for _, prefix := range []string{"", "refs/", "refs/tags/", "refs/heads/"} {
		for _, suffix := range []string{"^{}", ""} {
			if id := found[prefix+ref+suffix]; id != "" {
				if strings.HasPrefix(prefix+ref, "refs/tags/") {
					return messages.RefTag, id
				}
				return messages.RefBranch, id
			}
		}
	}
	return "", ""
}

// fetchPinned fetches the commit that was planned, or what ref names where none was planned. A ref that was moved or
// deleted since does not matter, as long as the repository still gives the commit.
func (g *Git) fetchPinned(ctx context.Context, repo, ref, planned string) (commit, error) {
	if planned == "" {
		return g.fetch(ctx, repo, ref)
	}
	if err := checkPlanned(planned); err != nil {
		return commit{}, err
	}
	c, err := g.fetch(ctx, repo, planned)
	if !unknownRef(err) {
		return c, err
	}
	// Some hosts give no commit by its id.
	if c, err = g.fetch(ctx, repo, ref); err == nil && c.id != planned || unknownRef(err) {
		return commit{}, gone(repo, ref, planned)
	}
	return c, err
}

// resolvePinned is the commit that was planned, if the repository still has it, or the commit behind ref where none was
// planned.
func (g *Git) resolvePinned(ctx context.Context, repo, ref, planned string) (string, error) {
	if planned == "" {
		return g.resolve(ctx, repo, ref)
	}
	if err := checkPlanned(planned); err != nil {
		return "", err
	}
	id, err := g.resolve(ctx, repo, ref)
	if err == nil && id == planned || err != nil && !unknownRef(err) {
		return id, err
	}
	if id, err = g.resolve(ctx, repo, planned); unknownRef(err) {
		return "", gone(repo, ref, planned)
	}
	return id, err
}

func checkPlanned(id string) error {
	if !fullCommit.MatchString(id) {
		return failure.New(failure.GitRefused, "the planned commit %q is not a full commit id", shorten(id))
	}
	return nil
}

func unknownRef(err error) bool {
	f, ok := failure.Of(err)
	return ok && f.Reason == failure.GitRefUnknown
}

func gone(repo, ref, planned string) error {
	return failure.New(failure.GitCommitGone, "%s does not give commit %s any more, for which the ref %q stood when the "+
		"upgrade was planned: the ref was moved or deleted since; the next check plans with what it stands for then",
		shorten(repo), planned, shorten(ref))
}
