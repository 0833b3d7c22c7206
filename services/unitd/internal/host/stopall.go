package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/loop"
)

// StopAll stops every unit of a host whose unitd has ended, and returns when
// all are stopped. Desired states stay, so that the next unitd starts the
// units again, unless forget sets them to inactive first.
func (h *Host) StopAll(ctx context.Context, forget bool) error {
	if forget {
		if err := h.forgetAll(); err != nil {
			return err
		}
	}
	names, err := h.cfg.Backend.Units()
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	failures := make([]error, len(names))
	for i, name := range names {
		all.Go(func() {
			failures[i] = loop.Contain(ctx, "stop-all", "unit "+name, func() error { return h.stopOne(ctx, name) })
			var panicked *loop.Panic
			if errors.As(failures[i], &panicked) {
				failures[i] = fmt.Errorf("stop %s: %w", name, panicked)
			}
		})
	}
	all.Wait()
	if err := errors.Join(failures...); err != nil {
		return err
	}
	return saveBackend(h.cfg.StateDir, nobody) // with nothing running, another one may take over
}

func (h *Host) stopOne(ctx context.Context, name string) error {
	found, err := h.cfg.Backend.Find(ctx, name)
	if err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	if found.Running != nil {
		found.Running.Stop()
		if err := found.Running.Follow(ctx, func(Status) {}); err != nil {
			return fmt.Errorf("stop %s: %w", name, err)
		}
		h.cfg.Backend.End(ctx, name, true)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	h.cfg.Log.Info("unit is stopped", zap.String("unit", name))
	return nil
}

// nobody is what the file `backend` says when nothing runs.
const nobody = "none"

// keepBackend refuses a state directory whose units another backend runs. Otherwise a unit would run twice.
func keepBackend(stateDir string, b Backend) error {
	file := filepath.Join(stateDir, "backend")
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("read backend: %w", err)
	}
	held := strings.TrimSpace(string(text))
	if shims, _ := filepath.Glob(filepath.Join(stateDir, "run", "*")); held == "" && len(shims) > 0 {
		held = "direct" // it left them before this file was kept
	}
	if held != "" && held != nobody && held != b.Name() {
		return fmt.Errorf("backend %s: units of this state_dir run on backend %s; "+
			"end them by unitd stop-all with that backend first", b.Name(), held)
	}
	if strings.TrimSpace(string(text)) == b.Name() {
		return nil // a start needs no space on the disk
	}
	return saveBackend(stateDir, b.Name())
}

func saveBackend(stateDir, name string) error {
	if err := replaceSynced(filepath.Join(stateDir, "backend"), []byte(name+"\n")); err != nil {
		return fmt.Errorf("write backend: %w", err)
	}
	return nil
}

func (h *Host) forgetAll() error {
	h.change.Lock()
	defer h.change.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, r := range h.records {
		if r.Deleted || r.DesiredState == Inactive {
			continue
		}
		r.DesiredState = Inactive
		if err := h.files.save(r); err != nil {
			return err
		}
		h.records[name] = r
	}
	return nil
}
