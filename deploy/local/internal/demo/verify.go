package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/component"
)

func (s *Story) saw(format string, args ...any) {
	s.checked = append(s.checked, fmt.Sprintf(format, args...))
}

// verify wants services to be recorded at ref, to report it, and to run it in processes that did not run before.
func (s *Story) verify(ctx context.Context, services []stack.Service, ref string) error {
	for _, v := range services {
		if err := s.witness.Recorded(ctx, v.Type, ref); err != nil {
			return err
		}
		if err := s.reported(ctx, v, ref); err != nil {
			return err
		}
		pids, err := s.witness.Runs(ctx, v, ref)
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
		if err := errors.Join(s.witness.Recorded(ctx, t, s.Versions.Good), s.reported(ctx, v, s.Versions.Good)); err != nil {
			return err
		}
		pids, err := s.witness.Runs(ctx, v, s.Versions.Good)
		if err != nil {
			return err
		}
		s.saw("%-11s is back at %s in processes %v; %s is rolled back and quarantined", v.Name, s.Versions.Good, pids,
			s.Versions.Bad)
	}
	return nil
}

// reported waits until the modules of a service report ref.
func (s *Story) reported(ctx context.Context, v stack.Service, ref string) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	var last error
	err := s.watch(ctx, func() (bool, error) {
		last = s.witness.Reported(ctx, v, ref)
		return last == nil, nil
	})
	return errors.Join(err, last)
}

// quarantined wants a quarantine of the version, with a reason.
func (s *Story) quarantined(ctx context.Context, t component.Type, ref string) error {
	q, found, err := s.witness.Quarantine(ctx, t, ref)
	if err != nil {
		return err
	}
	if !found || q.Reason == "" {
		return fmt.Errorf("%s %s is not quarantined with a reason: %v", t, ref, q)
	}
	s.table.Say("%s %s is quarantined, reason %s: %s", t, ref, q.Reason, headline(q.Message))
	s.saw("%s %s is quarantined, reason %s", t, ref, q.Reason)
	return nil
}
