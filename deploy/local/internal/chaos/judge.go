package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
)

// judge waits until everything is right, and says what is not when the calm is over.
func (r *run) judge(ctx context.Context, last time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, last.Add(r.cfg.Calm))
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		wrong := r.wrong(ctx)
		if wrong == nil {
			fmt.Fprintf(r.out, "%7.1fs  right again, %.1f s after the last kill\n", time.Since(r.began).Seconds(), time.Since(last).Seconds())
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s after the last kill it is still not right: %w", r.cfg.Calm, wrong)
		case <-tick.C:
		}
	}
}

// tally says how many kills fell into each kind of moment, also into none: those of several seeds are added up.
func (r *run) tally(kills int) {
	fmt.Fprintf(r.out, "of %d kills with seed %d fell into\n", kills, r.cfg.Seed)
	for _, k := range counted {
		fmt.Fprintf(r.out, "%7d  %s\n", r.seen[k], k)
	}
}

// wrong lists what must hold and does not.
func (r *run) wrong(ctx context.Context) error {
	var all []error
	for _, claim := range []struct {
		what, sql string
		args      []any
		want      int
	}{
		{"components recorded at " + r.ref, `SELECT count(*) FROM system_components WHERE source_repo_git_ref = $1`, []any{r.ref}, len(types)},
		{"completed upgrades to " + r.ref, `SELECT count(*) FROM upgrades WHERE state = 'completed' AND to_source_repo_git_ref = $1`, []any{r.ref}, len(types)},
		{"components with such an upgrade", `SELECT count(DISTINCT component_id) FROM upgrades WHERE state = 'completed' AND to_source_repo_git_ref = $1`, []any{r.ref}, len(types)},
		{"open upgrades", `SELECT count(*) FROM upgrades WHERE state IN ('requested', 'in_progress', 'verifying', 'rolling_back')`, nil, 0},
		{"unpublished rows of the outbox", `SELECT count(*) FROM outbox WHERE published_at IS NULL`, nil, 0},
		{"quarantines", `SELECT count(*) FROM quarantines`, nil, 0},
	} {
		var n int
		if err := r.db.GetContext(ctx, &n, claim.sql, claim.args...); err != nil {
			return fmt.Errorf("count %s: %w", claim.what, err)
		}
		if n != claim.want {
			all = append(all, fmt.Errorf("%d %s, not %d", n, claim.what, claim.want))
		}
	}
	return errors.Join(append(all, r.processes()...)...)
}

// processes wants every instance to run, once, out of the release.
func (r *run) processes() []error {
	running, err := proc.Running(r.stack.Releases())
	if err != nil {
		return []error{err}
	}
	var wrong []error
	for _, v := range stack.Own {
		n := 0
		for _, p := range running {
			if p.Binary != v.Name {
				continue
			}
			n++
			if p.Ref != r.ref {
				wrong = append(wrong, fmt.Errorf("process %d of %s runs %s", p.PID, v.Name, p.Ref))
			}
		}
		if n != v.Instances {
			wrong = append(wrong, fmt.Errorf("%d processes of %s, not %d", n, v.Name, v.Instances))
		}
	}
	return wrong
}
