// Package shim runs one activation of one unit in a process of its own, and
// lets unitd start it, follow it, stop it and find it again.
//
// The shim (`unitd shim <dir>`) leads its own session, adopts every descendant
// of the unit (child subreaper), starts ExecStartPre and ExecStart, owns the
// notify socket and the log, performs the stop, and records how it ended. It
// needs unitd for nothing once it runs, so that unitd may be killed at any
// instruction.
//
// Invariants:
//   - `lock` in the unit's runtime directory is held (flock) from before the
//     shim is forked until it is dead. Whoever gets the lock knows that there
//     is no shim, so there are never two.
//   - The shim's status file is replaced atomically and says `dead` only after
//     the unit's processes have ended. A free lock without that record means
//     that the shim was killed; KillRemains then ends what it left behind.
//   - unitd learns of changes and of the shim's death by its control
//     connection, which the kernel breaks with the process; nobody polls.
package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/openaperture/openaperture/services/unitd/internal/service"
)

// Names within a unit's runtime directory.
const (
	activationFile = "activation.json"
	statusFile     = "status.json"
	lockFile       = "lock"
	controlSocket  = "control.sock"
	errorFile      = "shim.err"
)

// Activation is one order to run a unit once.
type Activation struct {
	Invocation string // unique; INVOCATION_ID of every process of the unit
	Generation string // which definition of the unit this is
	BootID     string // of the host
	Restarts   int    // automatic restarts of this definition before this one
	Streak     int    // how many of the latest restarts in a row did not stay up
	Previous   *Exit  // how the activation before this one ended, nil for the first of a definition
	LogDir     string
	Service    service.Service
}

// Phase is where an activation stands.
type Phase string

// The phases, in the order in which an activation may pass them.
const (
	PhaseStartPre Phase = "start-pre"
	PhaseStart    Phase = "start"
	PhaseRunning  Phase = "running"
	PhaseExited   Phase = "exited" // RemainAfterExit
	PhaseStop     Phase = "stop"
	PhaseSigterm  Phase = "stop-sigterm"
	PhaseSigkill  Phase = "stop-sigkill"
	PhaseDead     Phase = "dead"
)

// Status is what the shim tells about its activation, all of it each time.
type Status struct {
	Invocation  string
	ShimPID     int
	ShimStart   uint64 // start time of the shim in /proc: with the pid it names one process
	Phase       Phase
	MainPID     int
	ActiveSince time.Time // zero unless it was active in this activation
	Text        string    // STATUS= of the service
	Exit        *Exit     // set with PhaseDead
}

// Exit says how an activation ended.
type Exit = service.Exit

// Up is how long the activation was active before it ended.
func (s Status) Up() time.Duration {
	if s.ActiveSince.IsZero() || s.Exit == nil {
		return 0
	}
	return s.Exit.At.Sub(s.ActiveSince)
}

// BootID identifies the boot of this host.
func BootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// Last reads what is recorded of a unit's latest activation: whether there is
// one, and the status that its shim wrote last (zero if none).
func Last(dir string) (Activation, Status, bool, error) {
	var activation Activation
	err := readJSON(filepath.Join(dir, activationFile), &activation)
	if errors.Is(err, os.ErrNotExist) {
		return Activation{}, Status{}, false, nil
	}
	if err != nil {
		return Activation{}, Status{}, false, err
	}
	var status Status
	err = readJSON(filepath.Join(dir, statusFile), &status)
	if errors.Is(err, os.ErrNotExist) || status.Invocation != activation.Invocation {
		return activation, Status{}, true, nil // killed before its first word
	}
	return activation, status, true, err
}

// Complaint is what a shim wrote before it could record a status, "" for nothing.
func Complaint(dir string) string {
	text, _ := os.ReadFile(filepath.Join(dir, errorFile)) // no file, no complaint
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return line
}

func readJSON(file string, into any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	return nil
}

// writeJSON replaces a file atomically. It is not synced: these files are of no use after a reboot.
func writeJSON(file string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
