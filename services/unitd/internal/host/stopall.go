package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/services/unitd/internal/shim"
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
	entries, err := os.ReadDir(filepath.Join(h.cfg.StateDir, "run"))
	if err != nil {
		return fmt.Errorf("read runtime directory: %w", err)
	}
	var all sync.WaitGroup
	failures := make([]error, len(entries))
	for i, entry := range entries {
		all.Go(func() { failures[i] = h.stopOne(ctx, entry.Name()) })
	}
	all.Wait()
	return errors.Join(failures...)
}

func (h *Host) stopOne(ctx context.Context, name string) error {
	dir := filepath.Join(h.cfg.StateDir, "run", name)
	handle, err := shim.Attach(dir)
	if err == nil {
		handle.Stop()
		err = handle.Follow(ctx, func(shim.Status) {})
	}
	if err != nil && !errors.Is(err, shim.ErrNotRunning) {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	activation, status, known, err := shim.Last(dir)
	if err != nil || !known {
		return err
	}
	if status.Exit == nil && activation.BootID == h.bootID {
		if err := shim.KillRemains(ctx, activation, status); err != nil {
			return fmt.Errorf("stop %s: %w", name, err)
		}
	}
	h.cfg.Log.Info("unit is stopped", zap.String("unit", name))
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
