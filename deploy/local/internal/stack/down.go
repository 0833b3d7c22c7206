package stack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
)

// serverPrograms are what our servers consist of. They are the distribution's, so that they are ours only where they
// work in a directory of ours.
var serverPrograms = []string{"postgres", "beam.smp", "erl_child_setup", "inet_gethost", "epmd"}

// Down stops everything that Up has started, also after an Up that failed midway, and removes what it left. What does
// not stop by itself is killed, and that it had to be is an error. What others do under the directory is left alone;
// say is told of it. Doing it twice is harmless.
func (s *Stack) Down(ctx context.Context, say func(string)) error {
	if _, err := os.Stat(s.Dir); errors.Is(err, os.ErrNotExist) {
		return s.removePostgres()
	}
	units := s.stopUnits(ctx)
	s.stopLinks() // the units use them until they have ended
	stopped := errors.Join(units, s.RabbitMQ.Stop(ctx), s.Postgres.Stop(ctx))
	if err := s.killRest(ctx); err != nil {
		return errors.Join(stopped, err) // whoever runs still needs what is there
	}
	guests, err := workingIn(s.Dir)
	for _, pid := range slices.Sorted(maps.Keys(guests)) {
		say(fmt.Sprintf("process %d (%s) works under %s and is left alone", pid, guests[pid], s.Dir))
	}
	return errors.Join(stopped, err, s.removePostgres(), os.RemoveAll(s.Dir))
}

// killRest ends what of ours is left: nothing, unless something would not stop.
func (s *Stack) killRest(ctx context.Context) error {
	return s.until(ctx, 15*time.Second, "nothing of the stack runs", func() (string, bool) {
		left, err := s.ours()
		if err != nil {
			return err.Error(), false
		}
		for pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone meanwhile: fine
		}
		return fmt.Sprint(left), len(left) == 0
	})
}

// ours are the processes whose executable is under our directory, and the servers. Whoever merely works there may be
// the user's shell.
func (s *Stack) ours() (map[int]string, error) {
	found, err := proc.Under(s.Dir)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{s.Postgres.Dir, s.RabbitMQ.Dir} {
		working, err := workingIn(dir)
		if err != nil {
			return nil, err
		}
		for pid, exe := range working {
			if slices.Contains(serverPrograms, filepath.Base(exe)) {
				found[pid] = exe
			}
		}
	}
	return found, nil
}

// workingIn is nobody where the directory was never made.
func workingIn(dir string) (map[int]string, error) {
	found, err := proc.WorkingIn(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return found, err
}

// removePostgres removes the data where it is not under our directory.
func (s *Stack) removePostgres() error {
	if s.Postgres.Dir == "" || strings.HasPrefix(s.Postgres.Dir, s.Dir+"/") {
		return nil
	}
	return os.RemoveAll(filepath.Dir(s.Postgres.Dir))
}
