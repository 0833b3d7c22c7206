package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
)

// Down stops everything that Up has started, also after an Up that failed midway, and removes what it left. What does
// not stop by itself is killed: it is found by its executable and its directory, never by its name. Doing it twice is
// harmless.
func (s *Stack) Down(ctx context.Context) error {
	if _, err := os.Stat(s.Dir); errors.Is(err, os.ErrNotExist) {
		return s.removePostgres()
	}
	stopped := errors.Join(s.stopUnits(ctx), s.RabbitMQ.Stop(ctx), s.Postgres.Stop(ctx))
	if err := s.killRest(ctx); err != nil {
		return errors.Join(stopped, err)
	}
	return errors.Join(s.removePostgres(), os.RemoveAll(s.Dir))
}

// killRest ends what is left under the stack's directory: nothing, unless something would not stop.
func (s *Stack) killRest(ctx context.Context) error {
	return s.until(ctx, 15*time.Second, "nothing runs under "+s.Dir, func() (string, bool) {
		left, err := proc.Under(s.Dir)
		if err != nil {
			return err.Error(), false
		}
		for pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone meanwhile: fine
		}
		return fmt.Sprint(left), len(left) == 0
	})
}

// removePostgres removes the data where it is not under our directory.
func (s *Stack) removePostgres() error {
	if s.Postgres.Dir == "" || strings.HasPrefix(s.Postgres.Dir, s.Dir+"/") {
		return nil
	}
	return os.RemoveAll(filepath.Dir(s.Postgres.Dir))
}
