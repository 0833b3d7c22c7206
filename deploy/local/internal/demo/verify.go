package demo

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/component"
	messages "github.com/openaperture/openaperture/proto-messages"
)

func (s *Story) saw(format string, args ...any) {
	s.checked = append(s.checked, fmt.Sprintf(format, args...))
}

// verify wants services to be recorded at ref, to report it, and to run it in processes that did not run before.
func (s *Story) verify(ctx context.Context, services []stack.Service, ref string) error {
	for _, v := range services {
		if err := s.recorded(ctx, v.Type, ref); err != nil {
			return err
		}
		if err := s.reported(ctx, v, ref); err != nil {
			return err
		}
		pids, err := s.runs(ctx, v, ref)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if s.before[pid] {
				return fmt.Errorf("process %d of %s ran before the upgrade", pid, v.Name)
			}
		}
		s.saw("%-11s runs %s, recorded and proven, in new processes %v", v.Name, ref, pids)
	}
	return nil
}

// verifyReturned wants the services of a type to be recorded at, to report and to run the good version.
func (s *Story) verifyReturned(ctx context.Context, t component.Type) error {
	for _, v := range stack.Own {
		if v.Type != t {
			continue
		}
		if err := errors.Join(s.recorded(ctx, t, s.Versions.Good), s.reported(ctx, v, s.Versions.Good)); err != nil {
			return err
		}
		pids, err := s.runs(ctx, v, s.Versions.Good)
		if err != nil {
			return err
		}
		s.saw("%-11s is back at %s in processes %v; %s is rolled back and quarantined", v.Name, s.Versions.Good, pids, s.Versions.Bad)
	}
	return nil
}

func (s *Story) recorded(ctx context.Context, t component.Type, ref string) error {
	c, err := stack.FindComponent(ctx, s.api, t)
	if err != nil {
		return err
	}
	if c.SourceRepoGitRef != ref {
		return fmt.Errorf("the recorded version of %s is %s, not %s", t, c.SourceRepoGitRef, ref)
	}
	return nil
}

// reported wants as many active modules of a service as it has instances, all of them at ref. A service without
// heartbeats has none.
func (s *Story) reported(ctx context.Context, v stack.Service, ref string) error {
	if component.DefaultProof(v.Type) != component.ProofModules {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	var seen []string
	err := s.watch(ctx, func() (bool, error) {
		modules, err := stack.Modules(ctx, s.api)
		if err != nil {
			return false, err
		}
		right := 0
		seen = nil
		for _, m := range modules {
			if m.Service != v.Name || m.Status != messages.StatusActive {
				continue
			}
			seen = append(seen, m.Hostname+" "+m.SourceRepoGitRef)
			if m.SourceRepoGitRef == ref {
				right++
			}
		}
		return right == v.Instances && len(seen) == v.Instances, nil
	})
	if err != nil {
		return fmt.Errorf("want %d modules of %s at %s, not %v: %w", v.Instances, v.Name, ref, seen, err)
	}
	return nil
}

// runs wants exactly the instances of a service as processes, each out of the release of ref, and believes only what
// the executable of the process itself prints.
func (s *Story) runs(ctx context.Context, v stack.Service, ref string) ([]int, error) {
	processes, err := proc.Running(s.Stack.Releases())
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, p := range processes {
		if p.Binary != v.Name {
			continue
		}
		if p.Ref != ref {
			return nil, fmt.Errorf("process %d (%s) of %s runs out of release %s, not %s", p.PID, p.Hostname, v.Name, p.Ref, ref)
		}
		out, err := exec.CommandContext(ctx, fmt.Sprintf("/proc/%d/exe", p.PID), "--version").Output() //nolint:gosec // our own release
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

// quarantined wants a quarantine of the version, with a reason.
func (s *Story) quarantined(ctx context.Context, t component.Type, ref string) error {
	snapshot, err := s.api.Snapshot(ctx, s.Stack.ExchangeID())
	if err != nil {
		return err
	}
	for _, q := range snapshot.Quarantines {
		if q.ComponentType == t && q.SourceRepoGitRef == ref && q.Reason != "" {
			s.table.Say("%s %s is quarantined, reason %s: %s", t, ref, q.Reason, headline(q.Message))
			s.saw("%s %s is quarantined, reason %s", t, ref, q.Reason)
			return nil
		}
	}
	return fmt.Errorf("%s %s is not quarantined: %v", t, ref, snapshot.Quarantines)
}
