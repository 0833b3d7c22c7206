package render

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/openaperture/openaperture/pkg/deploy/failure"
)

// Git fetches repositories into a cache of bare, shallow ones. It is safe for concurrent use; use NewGit.
type Git struct {
	cfg GitConfig
	// cached keeps an order from changing a repository of the cache while another one fetches into it or reads it. A
	// repository that is slow keeps no other one waiting.
	cached locks
}

const (
	unfinished = "new-"              // begins the name of a repository that is being made
	unusedFor  = 30 * 24 * time.Hour // until a cached repository is dropped
)

// NewGit returns a Git. It creates the cache directory, and drops what nobody uses any more and what a killed process
// has left half made: no other process may use it. What cannot be dropped stays, and is tried again by the next start.
func NewGit(c GitConfig) (*Git, error) {
	if err := os.MkdirAll(c.CacheDir, 0o700); err != nil {
		return nil, fmt.Errorf("make git cache: %w", err)
	}
	entries, err := os.ReadDir(c.CacheDir)
	if err != nil {
		return nil, fmt.Errorf("read git cache: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && (strings.HasPrefix(e.Name(), unfinished) || time.Since(info.ModTime()) > unusedFor) {
			_ = os.RemoveAll(filepath.Join(c.CacheDir, e.Name()))
		}
	}
	return &Git{cfg: c.withDefaults()}, nil
}

// inCache calls do while nobody else fetches a repository into the cache or reads it there.
func (g *Git) inCache(ctx context.Context, repo string, do func() error) error {
	a, err := parseAddress(repo, g.cfg.AllowLocal)
	if err != nil {
		return err
	}
	return g.cached.hold(ctx, name(a.url), do)
}

// commit is one fetched commit: where it is cached and its full id.
type commit struct {
	repo address
	dir  string
	id   string
}

// fetch brings the commit that ref names into the cache. A full commit id that is there already costs no exchange, a
// ref that points at one costs the question where it points, which is several times cheaper than a fetch. The caller
// holds the repository (inCache).
func (g *Git) fetch(ctx context.Context, repo, ref string) (commit, error) {
	a, err := g.accept(repo, ref)
	if err != nil {
		return commit{}, err
	}
	c := commit{repo: a, dir: filepath.Join(g.cfg.CacheDir, name(a.url)+".git")}
	now := time.Now()
	// it is in use, also where nothing has to be fetched; one that is not there is made below
	_ = os.Chtimes(c.dir, now, now)
	if fullCommit.MatchString(ref) {
		if c.id, err = g.peel(ctx, c, keep(ref)); err == nil {
			return c, nil
		}
	}
	extra, err := g.admit(ctx, a)
	if err != nil {
		return commit{}, err
	}
	if !fullCommit.MatchString(ref) {
		id, err := g.ask(ctx, a, extra, ref)
		if err != nil {
			return commit{}, err
		}
		if c.id, err = g.peel(ctx, c, keep(id)); err == nil {
			return c, nil
		}
	}
	err = g.fetchInto(ctx, c, extra, ref)
	if err != nil && g.damaged(ctx, a, extra, ref, err) { // such as a lock that a killed fetch left behind
		_ = os.RemoveAll(c.dir)
		err = g.fetchInto(ctx, c, extra, ref)
	}
	if err != nil {
		return commit{}, g.explain(ctx, a, extra, ref, err)
	}
	if c.id, err = g.peel(ctx, c, keep(ref)); err != nil {
		return commit{}, failure.New(failure.GitRefUnknown, "ref %q of %s is not a commit", ref, shorten(a.url))
	}
	// This commit is here as a whole. Not returned: without the ref it is fetched once more.
	_, _ = g.command(ctx, a, nil, nil, "--git-dir="+c.dir, "update-ref", keep(c.id), c.id)
	return c, nil
}

func (g *Git) accept(repo, ref string) (address, error) {
	a, err := parseAddress(repo, g.cfg.AllowLocal)
	if err != nil {
		return a, err
	}
	return a, checkRef(ref)
}

func name(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:12])
}

// keep is the local ref under which a fetched ref or commit is kept. It is written last: an object alone may be what a
// killed fetch left behind.
func keep(ref string) string { return "refs/openaperture/" + name(ref) }

func (g *Git) fetchInto(ctx context.Context, c commit, extra []string, ref string) error {
	ctx, stop := context.WithTimeout(ctx, g.cfg.Timeout)
	defer stop()
	if err := g.prepare(ctx, c); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { watchSize(ctx, cancel, c.dir, g.cfg.MaxBytes) })
	_, err := g.command(ctx, c.repo, extra, nil, "--git-dir="+c.dir, "fetch", "--quiet", "--depth=1", "--no-tags",
		"--force",
		"--no-recurse-submodules", "--no-write-fetch-head", "--no-auto-gc", "--", c.repo.url, "+"+ref+":"+keep(ref))
	cause := context.Cause(ctx)
	cancel(nil)
	watcher.Wait()
	if err == nil && size(c.dir) > g.cfg.MaxBytes {
		err = errTooLarge
	}
	if err != nil && errors.Is(cause, errTooLarge) {
		err = errTooLarge
	}
	if errors.Is(err, errTooLarge) {
		_ = os.RemoveAll(c.dir)
	}
	return err
}

// prepare makes the bare repository, whole or not at all. One that has grown to half of the limit starts anew.
func (g *Git) prepare(ctx context.Context, c commit) error {
	if _, err := os.Stat(c.dir); err == nil {
		if size(c.dir) < g.cfg.MaxBytes/2 {
			return nil
		}
		_ = os.RemoveAll(c.dir)
	}
	fresh, err := os.MkdirTemp(g.cfg.CacheDir, unfinished)
	if err != nil {
		return fmt.Errorf("make cached repository: %w", err)
	}
	defer func() { _ = os.RemoveAll(fresh) }()
	if _, err := g.command(ctx, c.repo, nil, nil, "init", "--quiet", "--bare", "--template=", "--", fresh); err != nil {
		return err
	}
	return os.Rename(fresh, c.dir)
}

// peel resolves a revision of the cache to a commit that is there.
func (g *Git) peel(ctx context.Context, c commit, revision string) (string, error) {
	if _, err := os.Stat(c.dir); err != nil {
		return "", err
	}
	out, err := g.command(ctx, c.repo, nil, nil, "--git-dir="+c.dir, "rev-parse", "--verify", "--quiet",
		"--end-of-options", revision+"^{commit}")
	return strings.TrimSpace(string(out)), err
}

// damaged tells whether a failed fetch may be the fault of our cache: the remote answers and has the ref.
func (g *Git) damaged(ctx context.Context, a address, extra []string, ref string, err error) bool {
	return !errors.Is(err, errTooLarge) && ctx.Err() == nil && g.probe(ctx, a, extra, ref) == nil
}

// probe asks the remote for a ref, or for anything when ref is a commit id: nil means that it is there.
func (g *Git) probe(ctx context.Context, a address, extra []string, ref string) error {
	ctx, stop := context.WithTimeout(ctx, g.cfg.Timeout)
	defer stop()
	args := []string{"ls-remote", "--quiet", "--exit-code", "--", a.url}
	if !fullCommit.MatchString(ref) {
		args = append(args, ref)
	}
	_, err := g.command(ctx, a, extra, nil, args...)
	return err
}

// explain turns a failed fetch into a reason, by what the remote answers and never by git's words.
func (g *Git) explain(ctx context.Context, a address, extra []string, ref string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, errTooLarge) {
		return failure.New(failure.GitRefused, "%s is larger than %d bytes", shorten(a.url), g.cfg.MaxBytes)
	}
	var exit *exec.ExitError
	switch probed := g.probe(ctx, a, extra, ref); {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(probed, &exit) && exit.ExitCode() == 2: // no matching ref; the remote answers
		return failure.New(failure.GitRefUnknown, "%s has no ref %q", shorten(a.url), ref)
	case probed != nil:
		return failure.New(failure.GitUnreachable, "%s does not answer: %w", shorten(a.url), err)
	case fullCommit.MatchString(ref):
		return failure.New(failure.GitRefUnknown, "%s has no commit %s, or does not give it", shorten(a.url), ref)
	default:
		return failure.New(failure.GitRefused, "%s cannot be fetched: %w", shorten(a.url), err)
	}
}

// resolve finds the full commit that ref names, without its content unless ref is a commit id that no ref points at.
// A tag wins over a branch of the same name, as in fetch.
func (g *Git) resolve(ctx context.Context, repo, ref string) (string, error) {
	a, err := g.accept(repo, ref)
	if err != nil {
		return "", err
	}
	if fullCommit.MatchString(ref) {
		return g.resolveCommit(ctx, repo, ref, a)
	}
	extra, err := g.admit(ctx, a)
	if err != nil {
		return "", err
	}
	return g.ask(ctx, a, extra, ref)
}

// ask asks the remote which commit ref points at.
func (g *Git) ask(ctx context.Context, a address, extra []string, ref string) (string, error) {
	found, err := g.listRemote(ctx, a, extra, ref)
	if err != nil {
		return "", err
	}
	if _, id := pick(found, ref); id != "" {
		return id, nil
	}
	return "", failure.New(failure.GitRefUnknown, "%s has no ref %q", shorten(a.url), ref)
}

// resolveCommit proves that a commit id exists: some ref points at it, or it can be fetched.
func (g *Git) resolveCommit(ctx context.Context, repo, id string, a address) (string, error) {
	extra, err := g.admit(ctx, a)
	if err != nil {
		return "", err
	}
	limited, stop := context.WithTimeout(ctx, g.cfg.Timeout)
	defer stop()
	out, err := g.command(limited, a, extra, nil, "ls-remote", "--quiet", "--", a.url)
	if err == nil && strings.Contains("\n"+string(out), "\n"+id+"\t") {
		return id, nil
	}
	var c commit
	err = g.inCache(ctx, repo, func() (err error) { c, err = g.fetch(ctx, repo, id); return err })
	return c.id, err
}
