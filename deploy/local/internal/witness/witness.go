// Package witness sees what the suite claims twice: over REST, and in /proc. Each claim is one look; whoever expects
// that it becomes true asks again. An error says what was seen instead, or that it could not be seen.
package witness

import (
	"context"
	"fmt"
	"net/url"
	"os/exec"
	"slices"
	"strings"

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// Witness looks at one stack.
type Witness struct {
	Stack *stack.Stack
	API   *managerapi.Client
}

// Upgrades are all upgrades of a type, oldest first.
func (w Witness) Upgrades(ctx context.Context, t component.Type) ([]managerapi.Upgrade, error) {
	c, err := stack.FindComponent(ctx, w.API, t)
	if err != nil {
		return nil, err
	}
	page, err := w.API.Upgrades(ctx, url.Values{"component_id": {fmt.Sprint(c.ID)}, "limit": {"200"}})
	slices.SortFunc(page.Items, func(a, b managerapi.Upgrade) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return page.Items, err
}

// Upgrade is the newest upgrade of a type to a ref that was not refused.
func (w Witness) Upgrade(ctx context.Context, t component.Type, ref string) (managerapi.Upgrade, bool, error) {
	all, err := w.Upgrades(ctx, t)
	for _, u := range slices.Backward(all) {
		if u.To.SourceRepoGitRef == ref && u.State != upgrade.Ineligible {
			return u, true, err
		}
	}
	return managerapi.Upgrade{}, false, err
}

// Recorded wants ref to be the recorded version of a type.
func (w Witness) Recorded(ctx context.Context, t component.Type, ref string) error {
	c, err := stack.FindComponent(ctx, w.API, t)
	if err != nil {
		return err
	}
	if c.SourceRepoGitRef != ref {
		return fmt.Errorf("the recorded version of %s is %s, not %s", t, c.SourceRepoGitRef, ref)
	}
	return nil
}

// Reported wants as many active modules of a service as it has instances, all of them at ref. A service without
// heartbeats has none.
func (w Witness) Reported(ctx context.Context, v stack.Service, ref string) error {
	if component.DefaultProof(v.Type) != component.ProofModules {
		return nil
	}
	modules, err := stack.Modules(ctx, w.API)
	if err != nil {
		return err
	}
	right := 0
	seen := []string{}
	for _, m := range modules {
		if m.Service != v.Name || m.Status != messages.StatusActive {
			continue
		}
		seen = append(seen, m.Hostname+" "+m.SourceRepoGitRef)
		if m.SourceRepoGitRef == ref {
			right++
		}
	}
	if right != v.Instances || len(seen) != v.Instances {
		return fmt.Errorf("want %d modules of %s at %s, not %v", v.Instances, v.Name, ref, seen)
	}
	return nil
}

// Runs wants exactly the instances of a service as processes, each out of the release of ref, and believes only what
// the executable of the process itself prints. It returns their numbers.
func (w Witness) Runs(ctx context.Context, v stack.Service, ref string) ([]int, error) {
	processes, err := w.Processes(v)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, p := range processes {
		if p.Ref != ref {
			return nil, fmt.Errorf("process %d (%s) of %s runs out of release %s, not %s", p.PID, p.Hostname, v.Name, p.Ref, ref)
		}
		//nolint:gosec // our own release
		out, err := exec.CommandContext(ctx, fmt.Sprintf("/proc/%d/exe", p.PID), "--version").Output()
		if err != nil {
			return nil, fmt.Errorf("ask process %d of %s for its version: %w", p.PID, v.Name, err)
		}
		if said := strings.TrimSpace(string(out)); !strings.HasSuffix(said, " "+ref) {
			return nil, fmt.Errorf("the executable of process %d says %q, not %s", p.PID, said, ref)
		}
		pids = append(pids, p.PID)
	}
	if len(pids) != v.Instances {
		return nil, fmt.Errorf("%d processes of %s run, not %d", len(pids), v.Name, v.Instances)
	}
	return pids, nil
}

// Processes are those of a service, of whatever release.
func (w Witness) Processes(v stack.Service) ([]proc.Process, error) {
	all, err := proc.Running(w.Stack.Releases())
	return slices.DeleteFunc(all, func(p proc.Process) bool { return p.Binary != v.Name }), err
}

// Quarantine is the quarantine of a version of a type, if there is one.
func (w Witness) Quarantine(ctx context.Context, t component.Type, ref string) (managerapi.Quarantine, bool, error) {
	snapshot, err := w.API.Snapshot(ctx, w.Stack.ExchangeID())
	if err != nil {
		return managerapi.Quarantine{}, false, err
	}
	for _, q := range snapshot.Quarantines {
		if q.ComponentType == t && q.SourceRepoGitRef == ref {
			return q, true, nil
		}
	}
	return managerapi.Quarantine{}, false, nil
}
