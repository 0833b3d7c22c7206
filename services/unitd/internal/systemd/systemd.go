package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/services/unitd/internal/host"
	"github.com/openaperture/openaperture/services/unitd/internal/service"
	"github.com/openaperture/openaperture/services/unitd/internal/shim"
)

// Backend implements host.Backend by systemd. Use Open, then Run beside what uses it, then Close.
type Backend struct {
	bus    *bus
	files  unitFiles
	notes  notes
	bootID string
	log    *zap.Logger
}

var _ host.Backend = (*Backend)(nil)

// Open connects to systemd. unitDir is where unit files are written, /run/systemd/system or /etc/systemd/system.
func Open(ctx context.Context, stateDir, unitDir string, log *zap.Logger) (*Backend, error) {
	b := &Backend{bus: &bus{log: log, waiters: map[string]map[chan struct{}]bool{}},
		notes: notes{filepath.Join(stateDir, "systemd")}, log: log}
	if err := os.MkdirAll(b.notes.dir, 0o700); err != nil {
		return nil, fmt.Errorf("state_dir cannot be used: %w", err)
	}
	id, err := host.MachineID(stateDir)
	if err != nil {
		return nil, err
	}
	b.files = unitFiles{dir: unitDir, machine: id}
	if b.bootID, err = shim.BootID(); err != nil {
		return nil, err
	}
	return b, b.bus.dial(ctx)
}

// Run follows systemd's signals and keeps the connection until ctx ends.
func (b *Backend) Run(ctx context.Context) error { return b.bus.run(ctx) }

// Close ends the connection. The units run on.
func (b *Backend) Close() { b.bus.close() }

// Name implements host.Backend.
func (b *Backend) Name() string { return "systemd" }

// Honours implements host.Backend: limits, users and sandboxing are systemd's.
func (b *Backend) Honours() bool { return true }

// Units implements host.Backend.
func (b *Backend) Units() ([]string, error) {
	if err := errors.Join(removeUnfinished(b.notes.dir, temporaryPrefix),
		removeUnfinished(b.files.dir, b.files.temporary())); err != nil {
		return nil, err
	}
	noted, err := b.notes.list()
	if err != nil {
		return nil, err
	}
	written, err := b.files.list()
	if err != nil {
		return nil, err
	}
	all := append(noted, written...)
	slices.Sort(all)
	return slices.Compact(all), nil
}

// Check implements host.Backend: no unit of this name is somebody else's, in any of systemd's directories.
// The options are written for a try.
func (b *Backend) Check(ctx context.Context, name string, options []unit.Option) error {
	if _, _, err := b.lookUpUnit(ctx, name); err != nil || len(options) == 0 {
		return err
	}
	if err := b.files.tryWrite(name, options); err != nil {
		return fmt.Errorf("%w: %w", host.ErrNotStored, err)
	}
	return nil
}

// lookUpUnit reads a unit's properties, and whether its file is there. host.ErrForeign: the unit is somebody else's.
func (b *Backend) lookUpUnit(ctx context.Context, name string) (p properties, written bool, err error) {
	exists, ours, err := b.files.ownership(name)
	if err != nil {
		return nil, false, err
	}
	if exists && !ours {
		return nil, false, fmt.Errorf("%w: %s", host.ErrForeign, b.files.path(name))
	}
	if p, err = b.bus.properties(ctx, name); err != nil {
		return nil, false, err
	}
	where := p.text("FragmentPath")
	switch {
	case p.text("LoadState") == "masked":
		err = fmt.Errorf("%w: it is masked", host.ErrForeign)
	case where != "" && where != b.files.path(name):
		err = fmt.Errorf("%w: %s", host.ErrForeign, where)
	case !exists && p.alive():
		err = fmt.Errorf("%w: it runs without its file", host.ErrForeign)
	}
	return p, exists, err
}

// Find implements host.Backend. A unit of somebody else counts as nothing.
func (b *Backend) Find(ctx context.Context, name string) (host.Found, error) {
	p, written, err := b.lookUpUnit(ctx, name)
	switch {
	case errors.Is(err, host.ErrForeign):
		return host.Found{}, nil
	case err != nil || !written:
		return host.Found{}, err
	}
	kept, known, err := b.notes.read(name)
	if err != nil {
		b.log.Warn("unit's note cannot be read", zap.String("unit", name), zap.Error(err))
	}
	found := host.Found{Generation: kept.Generation, Hash: kept.Hash, Status: p.status()}
	switch {
	case p.alive():
		found.Running = newRunning(b.bus, name, b.log)
		if !kept.ranSinceOrder(p) { // it ran before systemd had the definition that the note names
			found.Generation, found.Hash = "", ""
		}
	case known && kept.BootID == b.bootID && kept.ranSinceOrder(p):
		ended := p.ended(kept.Stopped, time.Now())
		found.Status, found.Exit, found.Up = ended.Status, &ended.Exit, ended.Up
	}
	return found, nil
}

// Watch implements host.Backend: every signal of a unit may be of a start.
func (b *Backend) Watch(name string) (<-chan struct{}, func()) { return b.bus.watch(name) }

// Start implements host.Backend. Somebody else may start the unit before the note is written, by
// either definition. unitd replaces what they started: the old note names another generation, and
// the new note names their run as the one before the order. After the note is written, systemd
// knows the new definition only.
func (b *Backend) Start(ctx context.Context, name string, a host.Activation) (host.Running, error) {
	if err := b.Check(ctx, name, nil); err != nil {
		return nil, err
	}
	earlier, known, err := b.notes.read(name)
	if err != nil {
		return nil, err
	}
	kept := note{Generation: a.Generation, Hash: a.Service.Hash, BootID: b.bootID, Created: time.Now()}
	if known {
		kept.Created = earlier.Created
	}
	if err := b.files.write(name, a.Options); err != nil {
		return nil, err
	}
	if err := b.bus.reload(ctx); err != nil {
		return nil, err
	}
	p, err := b.bus.properties(ctx, name)
	if err != nil {
		return nil, err
	}
	kept.Before = p.invocation()
	if err := b.notes.write(name, kept); err != nil {
		return nil, err
	}
	b.bus.resetFailed(ctx, name)
	if err := b.bus.start(ctx, name); err != nil {
		return nil, err
	}
	kept.Taken = true
	if err := b.notes.write(name, kept); err != nil {
		b.log.Warn("unit's note cannot be written", zap.String("unit", name), zap.Error(err)) // it runs
	}
	return newRunning(b.bus, name, b.log), nil
}

// End implements host.Backend. systemd does not tell who asked for a stop, so the note does.
func (b *Backend) End(ctx context.Context, name string, requested bool) host.Ended {
	if kept, known, err := b.notes.read(name); requested && known && err == nil {
		kept.Stopped = true
		if err := b.notes.write(name, kept); err != nil {
			b.log.Warn("unit's note cannot be written", zap.String("unit", name), zap.Error(err))
		}
	}
	p, err := b.bus.properties(ctx, name)
	if err != nil {
		b.log.Error("unit's end cannot be read", zap.String("unit", name), zap.Error(err))
		return host.Ended{Exit: service.Exit{At: time.Now(), Result: service.ResultLost, Detail: "systemd was not reached",
			Requested: requested}}
	}
	return p.ended(requested, time.Now())
}

// Forget implements host.Backend. Somebody else may have started the unit from unitd's file just
// before: such a run is stopped first.
func (b *Backend) Forget(ctx context.Context, name string) error {
	p, written, err := b.lookUpUnit(ctx, name)
	if err != nil && !errors.Is(err, host.ErrForeign) {
		return err
	}
	if written && err == nil {
		unit := newRunning(b.bus, name, b.log)
		unit.Stop()
		if err := unit.Follow(ctx, func(host.Status) {}); err != nil {
			return err
		}
	}
	removed, err := b.files.remove(name)
	if err != nil {
		return err
	}
	// Without a file, systemd still knows the path if it has not been told to reload since the file was removed.
	if removed || p.text("FragmentPath") == b.files.path(name) {
		b.bus.resetFailed(ctx, name)
		if err := b.bus.reload(ctx); err != nil {
			return err
		}
	}
	return b.notes.remove(name)
}

// running is a unit that systemd runs.
type running struct {
	bus  *bus
	name string
	log  *zap.Logger
	ask  chan struct{}
}

func newRunning(b *bus, name string, log *zap.Logger) running {
	return running{bus: b, name: name, log: log.With(zap.String("unit", name)), ask: make(chan struct{}, 1)}
}

// Stop implements host.Running.
func (r running) Stop() {
	select {
	case r.ask <- struct{}{}:
	default: // asked already
	}
}

// Follow implements host.Running. Signals wake it; the state is always read anew, and once a second without a signal.
func (r running) Follow(ctx context.Context, report func(host.Status)) error {
	signals, done := r.bus.watch(r.name)
	defer done()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	var last host.Status
	var asked, taken bool // a stop was asked for; systemd has taken the order
	unreached := false
	for {
		p, err := r.bus.properties(ctx, r.name)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && !p.alive():
			return nil
		case err == nil:
			unreached = false
			if status := p.status(); status != last {
				last = status
				report(status)
			}
			if asked && (!taken || !p.pending() && !p.ending()) { // again if somebody else has started it meanwhile
				taken = r.stop(ctx)
			}
		case !unreached:
			unreached = true
			r.log.Error("unit cannot be followed, trying again", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-signals:
		case <-ticker.C:
		case <-r.ask:
			asked = true
		}
	}
}

// stop asks systemd to stop the unit, and tells whether systemd took the order.
func (r running) stop(ctx context.Context) bool {
	err := r.bus.stop(ctx, r.name)
	if err != nil && ctx.Err() == nil {
		r.log.Error("unit cannot be stopped, trying again", zap.Error(err))
	}
	return err == nil
}
