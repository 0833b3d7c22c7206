package shim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/openaperture/openaperture/services/unitd/internal/service"
)

// ErrNotRunning says that no shim holds the unit's lock.
var ErrNotRunning = errors.New("unit has no shim")

// unreachableAfter is for how long a shim may hold its lock without answering before it is killed.
const unreachableAfter = 5 * time.Second

// Handle is unitd's end of one running shim.
type Handle struct {
	dir     string
	conn    net.Conn  // nil: not connected at the moment
	command *exec.Cmd // nil if this process did not start it
	stop    chan struct{}
}

// Start forks a shim for activation. program is the unitd binary. The runtime
// directory is made where missing. It fails if a shim of this unit is alive.
func Start(program, dir string, activation Activation) (*Handle, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make runtime directory: %w", err)
	}
	lock, err := takeLock(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }() // the shim has its own copy
	if err := writeJSON(filepath.Join(dir, activationFile), activation); err != nil {
		return nil, fmt.Errorf("write activation: %w", err)
	}
	conn, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("make control connection: %w", err)
	}
	defer func() { _ = theirs.Close() }()
	command, err := fork(program, dir, lock, theirs)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("start shim: %w", err)
	}
	return &Handle{dir: dir, conn: conn, command: command, stop: make(chan struct{}, 1)}, nil
}

func fork(program, dir string, lock, control *os.File) (*exec.Cmd, error) {
	complaints, err := os.OpenFile(filepath.Join(dir, errorFile), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = complaints.Close() }()
	command := exec.Command(program, "shim", dir) //nolint:noctx // the shim outlives every context of unitd
	command.Args[0] = "unitd"
	// GORACE is for builds with the race detector.
	command.Env = []string{"PATH=" + service.DefaultPath, "GOMAXPROCS=2", "GORACE=" + os.Getenv("GORACE")}
	command.Dir = "/"
	command.Stderr = complaints
	command.ExtraFiles = []*os.File{lock, control} // lockDescriptor, controlDescriptor
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return command, command.Start()
}

func socketPair() (net.Conn, *os.File, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer func() { _ = ours.Close() }()
	conn, err := net.FileConn(ours)
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

// Attach finds the running shim of a unit, ErrNotRunning if there is none.
func Attach(dir string) (*Handle, error) {
	running, err := isRunning(dir)
	if err != nil {
		return nil, err
	}
	if !running {
		return nil, ErrNotRunning
	}
	return &Handle{dir: dir, stop: make(chan struct{}, 1)}, nil
}

// Stop asks the shim to stop its unit. It returns at once; the end is seen by Follow.
func (h *Handle) Stop() {
	select {
	case h.stop <- struct{}{}:
	default: // asked already
	}
}

// Follow reports every status of the shim until it is dead and its lock free
// (nil) or until ctx ends (ctx.Err()), after which the shim runs on. Another
// error (the lock cannot be looked at) leaves the shim as it is: follow again.
// A status may be reported twice. The final record is to be read with Last.
func (h *Handle) Follow(ctx context.Context, report func(Status)) error {
	for {
		if h.conn == nil {
			dead, err := h.connect(ctx)
			if err != nil {
				return err
			}
			if dead {
				h.reapShim()
				return nil
			}
		}
		if err := h.readStatuses(ctx, report); err != nil {
			return err
		}
	}
}

// reapShim reaps a shim that this process started.
func (h *Handle) reapShim() {
	if h.command != nil {
		_ = h.command.Wait() // how it ended is in its record
	}
}

// readStatuses reads statuses until the connection breaks; an error only if ctx ended.
func (h *Handle) readStatuses(ctx context.Context, report func(Status)) error {
	conn := h.conn
	done := make(chan struct{})
	joined := make(chan struct{})
	go func() {
		defer close(joined)
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				_ = conn.Close()
				return
			case <-h.stop:
				if _, err := conn.Write([]byte(stopRequest + "\n")); err != nil {
					h.Stop() // for the next connection
					return
				}
			}
		}
	}()
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var status Status
		if err := json.Unmarshal(lines.Bytes(), &status); err == nil {
			report(status)
		}
	}
	close(done)
	<-joined
	_ = conn.Close()
	h.conn = nil
	return ctx.Err()
}

// connect dials the shim until it answers or is dead (true). This loops only
// in the moment between a shim's fork and its listening, or while it dies.
func (h *Handle) connect(ctx context.Context) (bool, error) {
	wait, begun := time.Millisecond, time.Now()
	for {
		running, err := isRunning(h.dir)
		if err != nil {
			return false, err
		}
		if !running {
			return true, nil
		}
		if conn, err := dial(ctx, h.dir); err == nil {
			h.conn = conn
			return false, nil
		}
		if time.Since(begun) > unreachableAfter {
			if _, status, ok, err := Last(h.dir); ok && err == nil {
				killShim(status)
			}
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, 250*time.Millisecond)
	}
}

func dial(ctx context.Context, dir string) (net.Conn, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }()
	dialer := net.Dialer{Timeout: time.Second}
	return dialer.DialContext(ctx, "unix", controlPath(d))
}

// takeLock opens and locks the unit's lock file.
func takeLock(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open unit lock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		if err == syscall.EWOULDBLOCK {
			return nil, fmt.Errorf("a shim of this unit is alive")
		}
		return nil, fmt.Errorf("lock unit: %w", err)
	}
	return file, nil
}

// isRunning tells whether a shim holds the unit's lock.
func isRunning(dir string) (bool, error) {
	file, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR, 0)
	if os.IsNotExist(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open unit lock: %w", err)
	}
	defer func() { _ = file.Close() }()
	switch err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err {
	case nil:
		// Not by closing alone: a fork elsewhere in this process may hold a copy of the descriptor until it execs.
		_ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN)
		return false, nil
	case syscall.EWOULDBLOCK:
		return true, nil
	default:
		return false, fmt.Errorf("lock unit: %w", err)
	}
}
