package demo

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/deploy/local/internal/table"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
)

// watch shows the table until done says so. A manager-api that does not answer is no failure: it is upgraded too.
func (s *Story) watch(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := s.show(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		ended, err := done()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if ended || (err != nil && !fault.Is(err, fault.Unavailable)) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// show draws the table. What runs is read from /proc, all else from the API; while that is away its last words stay.
func (s *Story) show(ctx context.Context) error {
	running, err := s.running()
	if err != nil {
		return err
	}
	snapshot, err := s.api.Snapshot(ctx, s.Stack.ExchangeID())
	switch {
	case err == nil:
		s.rows = rows(snapshot)
	case !fault.Is(err, fault.Unavailable):
		return err
	}
	shown := make([]table.Row, 0, len(s.rows))
	for _, r := range s.rows {
		r = slices.Clone(r)
		r[3] = running[component.Type(r[0])]
		if err != nil && component.Type(r[0]) == component.Manager {
			r[4] = "being replaced"
		}
		shown = append(shown, r)
	}
	s.table.Show(shown)
	return nil
}

// rows leaves the column "running" empty.
func rows(snapshot managerapi.Snapshot) []table.Row {
	wanted := map[component.Type]string{}
	for _, r := range snapshot.Refs {
		wanted[r.Type] = r.SourceRepoGitRef
	}
	state := map[component.ID]string{}
	for _, u := range snapshot.Upgrades {
		state[u.ComponentID] = string(u.State)
		if u.To.SourceRepoGitRef != "" { // a requested upgrade has no target: its start chooses
			state[u.ComponentID] += " → " + u.To.SourceRepoGitRef
		}
		if u.Phase > 1 {
			state[u.ComponentID] += fmt.Sprintf(", phase %d", u.Phase)
		}
	}
	for _, q := range snapshot.Quarantines {
		for _, c := range snapshot.Components {
			if c.Type == q.ComponentType && wanted[c.Type] == q.SourceRepoGitRef && state[c.ID] == "" {
				state[c.ID] = "quarantined: " + q.SourceRepoGitRef
			}
		}
	}
	shown := []table.Row{}
	for _, c := range snapshot.Components {
		if state[c.ID] == "" {
			state[c.ID] = "idle"
		}
		shown = append(shown, table.Row{string(c.Type), wanted[c.Type], c.SourceRepoGitRef, "", state[c.ID]})
	}
	return shown
}

// running tells for each type how many processes of which version there are, "1×v1 1×v2".
func (s *Story) running() (map[component.Type]string, error) {
	processes, err := proc.Running(s.Stack.Releases())
	if err != nil {
		return nil, err
	}
	counts := map[component.Type]map[string]int{}
	for _, v := range append(slices.Clone(stack.Own), stack.Hello) {
		for _, p := range processes {
			if p.Binary != v.Name {
				continue
			}
			if counts[v.Type] == nil {
				counts[v.Type] = map[string]int{}
			}
			counts[v.Type][p.Ref]++
		}
	}
	told := map[component.Type]string{}
	for t, refs := range counts {
		parts := []string{}
		for _, ref := range slices.Sorted(maps.Keys(refs)) {
			parts = append(parts, fmt.Sprintf("%d×%s", refs[ref], ref))
		}
		told[t] = strings.Join(parts, " ")
	}
	return told, nil
}
