// Package host keeps the units of one host as they are desired. It owns the
// records, decides which units this machine takes, has a backend run each of
// them, and knows every unit's state.
//
// Invariants:
//   - A change is on disk before it is answered, and is checked against the
//     unit's token in the same critical section (docs/deployment.md#fencing).
//   - One unitd per state directory (flock); one activation per unit (the backend).
//   - The end of Run leaves every unit running; Open finds them again.
//   - A panic in the work on one unit ends that work alone: the unit is found
//     anew, as after a kill of unitd, and the others are supervised on.
package host

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/services/unitd/internal/service"
)

// Config is what a host needs.
type Config struct {
	StateDir string
	Backend  Backend           // what runs the units
	Hostname string            // %H
	Metadata map[string]string // shown with the machine
	Log      *zap.Logger
	// Contain is loop.Contain under the context of the process, for work that has no context of its own. nil: panics are
	// contained, and told to nobody.
	Contain func(part, item string, do func() error) error

	parse      parser        // nil: service.Parse
	panicPause time.Duration // before a unit is supervised again after a panic; zero: a second
}

// Host is one machine with its units. Its methods may be called from anywhere.
type Host struct {
	cfg     Config
	machine Machine
	lock    *os.File
	files   records

	change sync.Mutex // serialises changes, held over the fsync

	mu          sync.Mutex // guards what follows, held briefly
	records     map[string]record
	placed      map[string]bool // which units this machine takes
	supervisors map[string]*supervisor
	states      map[string]unitState
	definitions map[string]definition // of the records that are supervised or want a place
	waiting     []*supervisor         // made, and to be started by Run
	index       uint64                // rises with every change of any state, across restarts too
	epoch       uint64                // the index at the start
	changed     chan struct{}         // closed at the next change
	spawn       chan struct{}
}

// unitState is the latest state of one unit.
type unitState struct {
	state      State
	listed     bool // shown in /state
	alive      bool
	generation string
	index      uint64 // when it changed
}

// Open locks and reads the state directory. Nothing is started before Run.
func Open(cfg Config) (*Host, error) {
	for _, dir := range []string{"", "units"} {
		if err := os.MkdirAll(filepath.Join(cfg.StateDir, dir), 0o700); err != nil {
			return nil, fmt.Errorf("state_dir cannot be used: %w", err)
		}
	}
	lock, err := takeLock(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	if err := keepBackend(cfg.StateDir, cfg.Backend); err != nil {
		_ = lock.Close()
		return nil, err
	}
	h := &Host{
		cfg: cfg, lock: lock, files: records{filepath.Join(cfg.StateDir, "units")},
		supervisors: map[string]*supervisor{}, states: map[string]unitState{}, definitions: map[string]definition{},
		changed: make(chan struct{}), spawn: make(chan struct{}, 1),
		epoch: uint64(time.Now().UnixMicro()),
	}
	if h.cfg.Contain == nil {
		h.cfg.Contain = func(part, item string, do func() error) error {
			return loop.Contain(context.Background(), part, item, do)
		}
	}
	if h.cfg.parse == nil {
		h.cfg.parse = service.Parse
	}
	h.index = h.epoch
	if err := h.readState(); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return h, nil
}

// Close releases the state directory. Run must have returned.
func (h *Host) Close() error { return h.lock.Close() }

// readState loads what is on disk and makes a supervisor for every unit that is
// recorded or has a runtime directory (deleted, but perhaps not stopped).
func (h *Host) readState() error {
	id, err := MachineID(h.cfg.StateDir)
	if err != nil {
		return err
	}
	h.machine = Machine{ID: id, Metadata: maps.Clone(h.cfg.Metadata), PrimaryIP: "127.0.0.1"}
	if h.records, err = h.files.load(); err != nil {
		return err
	}
	left, err := h.cfg.Backend.Units()
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range left {
		h.ensureSupervisor(name)
	}
	h.reconcile()
	return nil
}

// Run supervises the units until ctx ends. The units run on.
func (h *Host) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		h.mu.Lock()
		fresh := h.waiting
		h.waiting = nil
		h.mu.Unlock()
		for _, s := range fresh {
			all.Go(func() { h.keepSupervised(ctx, s) })
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-h.spawn:
		}
	}
}

// keepSupervised supervises a unit, and begins anew after a panic: the supervisor
// then finds out what runs, as after a kill of unitd. The pause before that doubles
// with every panic in a row.
func (h *Host) keepSupervised(ctx context.Context, s *supervisor) {
	pause := cmp.Or(h.cfg.panicPause, time.Second)
	longest := 30 * pause
	for ; ; pause = min(2*pause, longest) {
		err := loop.Contain(ctx, "supervisor", "unit "+s.name, func() error {
			h.superviseUntilForgotten(ctx, s)
			return nil
		})
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// superviseUntilForgotten runs a supervisor until its unit is forgotten or ctx
// ends. A unit that was put again in the moment in which it was forgotten is
// supervised again.
func (h *Host) superviseUntilForgotten(ctx context.Context, s *supervisor) {
	for s.run(ctx) {
		s.removeRemains(ctx)
		h.mu.Lock()
		again := !s.wanted().forgotten
		if !again {
			delete(h.supervisors, s.name)
			delete(h.states, s.name)
			delete(h.definitions, s.name)
		}
		h.mu.Unlock()
		if !again {
			return
		}
	}
}

// ensureSupervisor makes a unit's supervisor where there is none; h.mu is held.
func (h *Host) ensureSupervisor(name string) *supervisor {
	if s, ok := h.supervisors[name]; ok {
		return s
	}
	s := &supervisor{
		name: name, backend: h.cfg.Backend, now: time.Now,
		log:    h.cfg.Log.With(zap.String("unit", name)),
		wake:   make(chan struct{}, 1),
		events: make(chan event),
		want:   want{forgotten: true},
	}
	s.report = func(have have, status Status, then step) { h.observeUnit(s, have, status, then) }
	h.supervisors[name] = s
	h.waiting = append(h.waiting, s)
	select {
	case h.spawn <- struct{}{}:
	default:
	}
	return s
}

// takeLock makes this process the only one that works on the state directory.
// The holder writes its pid, for the error of a second unitd.
func takeLock(stateDir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(stateDir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state_dir cannot be used: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder := make([]byte, 32)
		n, _ := file.Read(holder)
		_ = file.Close()
		return nil, fmt.Errorf("state_dir %s is in use by another unitd (pid %s)%w", stateDir,
			strings.TrimSpace(string(holder[:n])), ErrInUse)
	}
	// On a full disk the error of a second unitd names no pid, or that of an earlier one.
	if _, err := file.WriteAt(fmt.Appendf(nil, "%-10d\n", os.Getpid()), 0); err == nil {
		_ = file.Truncate(11)
	}
	return file, nil
}

// MachineID reads the id of this machine, made at the first start.
func MachineID(stateDir string) (string, error) {
	file := filepath.Join(stateDir, "machine-id")
	text, err := os.ReadFile(file)
	if err == nil && len(strings.TrimSpace(string(text))) == 32 {
		return strings.TrimSpace(string(text)), nil
	}
	if err != nil && !os.IsNotExist(err) {
		return "", fmt.Errorf("read machine id: %w", err)
	}
	random := make([]byte, 16)
	_, _ = rand.Read(random) // never fails
	id := hex.EncodeToString(random)
	if err := replaceSynced(file, []byte(id+"\n")); err != nil {
		return "", fmt.Errorf("write machine id: %w", err)
	}
	return id, nil
}
