// Package direct is the backend that supervises processes itself: a shim beside each unit, without
// any service manager.
package direct

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/services/unitd/internal/host"
	"github.com/openaperture/openaperture/services/unitd/internal/service"
	"github.com/openaperture/openaperture/services/unitd/internal/shim"
)

// Backend implements host.Backend by shims. Use New.
type Backend struct {
	program string
	dir     string
	bootID  string
	log     *zap.Logger
}

var _ host.Backend = (*Backend)(nil)

// New returns the backend over the directories run and logs of a state directory, which it makes.
// program is the unitd binary, which is the shim too.
func New(stateDir, program string, log *zap.Logger) (*Backend, error) {
	for _, dir := range []string{"run", "logs"} {
		if err := os.MkdirAll(filepath.Join(stateDir, dir), 0o700); err != nil {
			return nil, fmt.Errorf("state_dir cannot be used: %w", err)
		}
	}
	id, err := shim.BootID()
	if err != nil {
		return nil, err
	}
	return &Backend{program: program, dir: stateDir, bootID: id, log: log}, nil
}

func (b *Backend) runDir(name string) string { return filepath.Join(b.dir, "run", name) }
func (b *Backend) logDir(name string) string { return filepath.Join(b.dir, "logs", name) }

// Name implements host.Backend.
func (b *Backend) Name() string { return "direct" }

// Honours implements host.Backend.
func (b *Backend) Honours() bool { return false }

// Units implements host.Backend.
func (b *Backend) Units() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(b.dir, "run"))
	if err != nil {
		return nil, fmt.Errorf("read runtime directory: %w", err)
	}
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, nil
}

// Check implements host.Backend: every name is free, and the options are written nowhere but in the unit's record.
func (b *Backend) Check(context.Context, string, []unit.Option) error { return nil }

// Find implements host.Backend.
func (b *Backend) Find(ctx context.Context, name string) (host.Found, error) {
	activation, status, known, err := shim.Last(b.runDir(name))
	if err != nil {
		b.log.Warn("unit's last activation cannot be read", zap.String("unit", name), zap.Error(err))
	}
	var found host.Found
	if known {
		found = host.Found{Generation: activation.Generation, Hash: activation.Service.Hash,
			Restarts: activation.Restarts, Streak: activation.Streak, Status: hostStatus(status)}
	}
	handle, err := shim.Attach(b.runDir(name))
	switch {
	case err == nil:
		found.Running, found.Exit = running{handle}, activation.Previous
	case !errors.Is(err, shim.ErrNotRunning):
		return found, fmt.Errorf("look for unit's shim: %w", err)
	case known && activation.BootID == b.bootID && status.Invocation != "":
		ended := b.End(ctx, name, false)
		found.Status, found.Exit, found.Up = ended.Status, &ended.Exit, ended.Up
	case known && activation.BootID == b.bootID:
		// The earlier unitd was killed before the shim wrote its first status:
		// nothing has run, and the order stands.
		b.endRemains(ctx, name, activation, status)
	}
	return found, nil
}

// Watch implements host.Backend: only unitd starts units.
func (b *Backend) Watch(string) (<-chan struct{}, func()) { return nil, func() {} }

// Start implements host.Backend.
func (b *Backend) Start(_ context.Context, name string, a host.Activation) (host.Running, error) {
	handle, err := shim.Start(b.program, b.runDir(name), shim.Activation{
		Invocation: uuid.NewString(), Generation: a.Generation, BootID: b.bootID,
		Restarts: a.Restarts, Streak: a.Streak, Previous: a.Previous, LogDir: b.logDir(name), Service: a.Service,
	})
	if err != nil {
		return nil, err
	}
	return running{handle}, nil
}

// End implements host.Backend. Processes that a killed shim left behind are ended first, so that
// there are never two copies.
func (b *Backend) End(ctx context.Context, name string, requested bool) host.Ended {
	activation, status, known, err := shim.Last(b.runDir(name))
	if err != nil || !known {
		b.log.Error("unit's last activation cannot be read", zap.String("unit", name), zap.Error(err))
	}
	if status.Exit == nil {
		status.Exit = b.endLost(ctx, name, activation, status, requested)
	}
	return host.Ended{Status: hostStatus(status), Exit: *status.Exit, Up: status.Up()}
}

// endLost ends what a killed shim left behind, and says how the activation ended.
func (b *Backend) endLost(ctx context.Context, name string, activation shim.Activation, status shim.Status,
	requested bool) *service.Exit {
	b.endRemains(ctx, name, activation, status)
	exit := &service.Exit{At: time.Now(), Result: service.ResultLost, Detail: "shim killed", Requested: requested}
	if complaint := shim.Complaint(b.runDir(name)); status.Invocation == "" && complaint != "" {
		exit.Result, exit.Detail = service.ResultResources, complaint
	}
	return exit
}

// endRemains returns when no process of the activation is left, or ctx ends.
func (b *Backend) endRemains(ctx context.Context, name string, activation shim.Activation, status shim.Status) {
	for {
		err := shim.KillRemains(ctx, activation, status)
		if err == nil || ctx.Err() != nil {
			return
		}
		b.log.Error("processes of a killed shim cannot be ended, trying again", zap.String("unit", name), zap.Error(err))
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// Forget implements host.Backend.
func (b *Backend) Forget(_ context.Context, name string) error {
	return errors.Join(os.RemoveAll(b.runDir(name)), os.RemoveAll(b.logDir(name)))
}

// Logs implements host.Backend.
func (b *Backend) Logs(_ context.Context, name string, lines, limit int) (string, error) {
	return shim.Tail(b.logDir(name), lines, limit)
}

// running is a living shim.
type running struct{ *shim.Handle }

// Follow implements host.Running.
func (r running) Follow(ctx context.Context, report func(host.Status)) error {
	return r.Handle.Follow(ctx, func(s shim.Status) { report(hostStatus(s)) })
}

// phases maps a living activation's phase to systemd's active and sub state.
var phases = map[shim.Phase][2]string{
	shim.PhaseStartPre: {"activating", "start-pre"},
	shim.PhaseStart:    {"activating", "start"},
	shim.PhaseRunning:  {"active", "running"},
	shim.PhaseExited:   {"active", "exited"},
	shim.PhaseStop:     {"deactivating", "stop"},
	shim.PhaseSigterm:  {"deactivating", "stop-sigterm"},
	shim.PhaseSigkill:  {"deactivating", "stop-sigkill"},
	shim.PhaseDead:     {"deactivating", "final"}, // its shim is about to end
}

func hostStatus(s shim.Status) host.Status {
	names := phases[s.Phase]
	return host.Status{Active: names[0], Sub: names[1], MainPID: s.MainPID, Since: s.ActiveSince, Text: s.Text}
}
