package soak

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/deploy/local/internal/witness"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// settled says whether a release has come to its end: proven for every type in which it is good, and blamed for the one
// in which it is bad, with nothing under way.
func settled(now Observation, release Release) bool {
	if len(now.Components) == 0 || len(now.open()) > 0 {
		return false
	}
	for _, c := range now.Components {
		if broken(release, c.Type) {
			blamed := func(q Quarantine) bool { return q.Type == c.Type && q.Ref == release.Ref }
			if !slices.ContainsFunc(now.Quarantines, blamed) {
				return false
			}
		} else if c.Recorded != release.Ref {
			return false
		}
	}
	return true
}

func broken(release Release, t component.Type) bool {
	return release.Broken != nil && release.Broken.Type == t
}

// Amiss says what is not as it should be at rest, as far as an observation shows: every instance runs its recorded
// version and reports it, nothing is under way, nothing waits.
func Amiss(now Observation) error {
	var all []error
	if open := now.open(); len(open) > 0 {
		all = append(all, fmt.Errorf("%d upgrades are open, the first is %s of %s", len(open), open[0].State, open[0].Type))
	}
	if now.Outbox.Waiting > 0 {
		all = append(all, fmt.Errorf("%d messages wait to be sent", now.Outbox.Waiting))
	}
	for unit, state := range now.Units {
		if state != "active" {
			all = append(all, fmt.Errorf("%s is %s", unit, state))
		}
	}
	if now.Units == nil {
		all = append(all, errors.New("unitd does not answer"))
	}
	for _, v := range stack.Own {
		all = append(all, amissOf(now, v)...)
	}
	return errors.Join(all...)
}

// amissOf says what is amiss with one service.
func amissOf(now Observation, v stack.Service) []error {
	var all []error
	want := now.recorded(v.Type)
	running, reported := 0, 0
	for _, p := range now.Processes {
		if p.Binary != v.Name {
			continue
		}
		running++
		if p.Ref != want {
			all = append(all, fmt.Errorf("process %d of %s runs %s, not %s", p.PID, v.Name, p.Ref, want))
		}
	}
	for _, m := range now.Modules {
		if m.Service != v.Name || m.Status != "active" {
			continue
		}
		reported++
		if m.Ref != want {
			all = append(all, fmt.Errorf("module %s reports %s, not %s", m.Hostname, m.Ref, want))
		}
	}
	if running != v.Instances || reported != v.Instances {
		all = append(all, fmt.Errorf("%d processes and %d active modules of %s, not %d", running, reported, v.Name,
			v.Instances))
	}
	return all
}

// amiss adds what REST shows, and what the executables themselves say.
func (r *run) amiss(ctx context.Context) error {
	if err := Amiss(r.before); err != nil {
		return err
	}
	snapshot, err := r.api.Snapshot(ctx, r.stack.ExchangeID())
	if err != nil {
		return err
	}
	if snapshot.Lease == nil || !snapshot.Lease.Covering {
		return errors.New("no leader covers the exchange")
	}
	var all []error
	for _, c := range snapshot.Components {
		if want := r.before.recorded(c.Type); c.SourceRepoGitRef != want {
			all = append(all, fmt.Errorf("REST shows %s at %s, the database %s", c.Type, c.SourceRepoGitRef, want))
		}
	}
	for _, v := range stack.Own {
		_, err := r.see.Runs(ctx, v, r.before.recorded(v.Type))
		all = append(all, err)
	}
	return errors.Join(all...)
}

// again counts the upgrades to a release that failed by the environment and were made once more.
func again(now Observation, release Release) int {
	n := 0
	for _, u := range now.Upgrades {
		if u.To == release.Ref && u.Cause == upgrade.CauseEnvironment {
			n++
		}
	}
	return n
}

// Right looks once at a stack and says what is not as it should be at rest: in the rows, over REST, and in /proc.
func Right(ctx context.Context, s *stack.Stack) error {
	db, err := sqlx.ConnectContext(ctx, "postgres", s.DatabaseURL())
	if err != nil {
		return fmt.Errorf("connect to the stack's database: %w", err)
	}
	defer func() { _ = db.Close() }()
	api, err := s.Client()
	if err != nil {
		return err
	}
	r := &run{stack: s, db: db, api: api, see: witness.Witness{Stack: s, API: api},
		observer: &observer{stack: s, db: db, logs: map[string]int64{}}}
	if r.before, err = r.observer.observe(ctx, Told{}); err != nil {
		return err
	}
	return r.amiss(ctx)
}
