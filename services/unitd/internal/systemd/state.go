package systemd

import (
	"encoding/hex"
	"fmt"
	"syscall"
	"time"

	"github.com/openaperture/openaperture/services/unitd/internal/host"
	"github.com/openaperture/openaperture/services/unitd/internal/service"
)

// properties are those of one unit on D-Bus, read in one call. A missing property is zero.
type properties map[string]any

func property[T any](p properties, name string) T {
	value, _ := p[name].(T)
	return value
}

func (p properties) text(name string) string { return property[string](p, name) }

// moment reads a time stamp in microseconds, zero where there was none.
func (p properties) moment(name string) time.Time {
	if at := property[uint64](p, name); at > 0 {
		return time.UnixMicro(int64(at)) //nolint:gosec // microseconds since 1970 fit
	}
	return time.Time{}
}

// invocation is the ID of the unit's latest start, as long as systemd keeps the unit loaded.
func (p properties) invocation() string {
	return hex.EncodeToString(property[[]byte](p, "InvocationID"))
}

// pending tells whether a job of the unit waits or runs.
func (p properties) pending() bool {
	job := property[[]any](p, "Job")
	if len(job) == 0 {
		return false
	}
	id, _ := job[0].(uint32)
	return id != 0
}

// ending tells whether the unit is being stopped.
func (p properties) ending() bool { return p.text("ActiveState") == "deactivating" }

// alive tells whether the unit runs, ends, waits for its restart or is about to start.
func (p properties) alive() bool {
	state := p.text("ActiveState")
	return p.pending() || state != "" && state != "inactive" && state != "failed"
}

// status is what a living unit shows.
func (p properties) status() host.Status {
	s := host.Status{Active: p.text("ActiveState"), Sub: p.text("SubState"), MainPID: int(property[uint32](p, "MainPID")),
		Since: p.moment("ActiveEnterTimestamp"), Text: p.text("StatusText"), Restarts: int(property[uint32](p, "NRestarts"))}
	if s.Active == "inactive" || s.Active == "failed" { // its job is pending
		s.Active, s.Sub = "activating", "start"
	}
	if result := p.text("Result"); result != "" && result != "success" {
		s.Result = p.detail()
	}
	return s
}

// ended is how a unit that does not run has ended.
func (p properties) ended(requested bool, now time.Time) host.Ended {
	exit := service.Exit{At: p.moment("InactiveEnterTimestamp"), Result: p.result(), Detail: p.detail(),
		Requested: requested, Final: true}
	if exit.At.IsZero() {
		exit.At = now
	}
	ended := host.Ended{Status: p.status(), Exit: exit}
	if since := ended.Status.Since; !since.IsZero() && exit.At.After(since) {
		ended.Up = exit.At.Sub(since)
	}
	return ended
}

func (p properties) result() service.Result {
	switch state, result := p.text("LoadState"), p.text("Result"); {
	case state != "" && state != "loaded" && state != "not-found":
		return service.ResultResources // systemd cannot read the unit
	case result == "":
		return service.ResultSuccess // unloaded: it had ended in order
	default:
		return service.Result(result)
	}
}

// execFailures are exit codes of systemd's own, before the program ran (systemd.exec(5)).
var execFailures = map[int32]string{
	200: "working directory does not exist", 203: "program cannot be executed", 216: "group is unknown",
	217: "user is unknown",
}

// detail is the result for people.
func (p properties) detail() string {
	code, status := p.exit()
	switch result := p.result(); {
	case result == service.ResultProtocol:
		return "protocol: ended before READY=1"
	case result == service.ResultResources:
		return "resources: systemd cannot run the unit, its log says why"
	case result == service.ResultTimeout:
		return "timeout"
	case code == exited && execFailures[status] != "":
		return fmt.Sprintf("exit-code %d: %s", status, execFailures[status])
	case code == exited && status != 0:
		return fmt.Sprintf("exit-code %d", status)
	case (code == killed || code == dumped) && result != service.ResultSuccess:
		return "signal " + syscall.Signal(status).String()
	default:
		return string(result)
	}
}

// The codes of waitid(2).
const (
	exited = 1
	killed = 2
	dumped = 3
)

// exit is the code and status of the command that failed, or of the main process if no command failed.
func (p properties) exit() (code, status int32) {
	code, status = property[int32](p, "ExecMainCode"), property[int32](p, "ExecMainStatus")
	if p.mayBeCause(code, status) {
		return code, status
	}
	for _, key := range []string{"ExecStartPre", "ExecStart", "ExecStop"} {
		for _, command := range property[[][]any](p, key) {
			if c, s := commandExit(command); p.mayBeCause(c, s) {
				return c, s
			}
		}
	}
	return code, status
}

// mayBeCause tells whether a command's end may be the one that the result names. After an ExecStop
// that failed, the end of the main process is not.
func (p properties) mayBeCause(code, status int32) bool {
	switch p.result() {
	case service.ResultSuccess: // the failure was ignored
		return false
	case service.ResultExitCode:
		return code == exited && status != 0
	default:
		return code != exited && status != 0
	}
}

// commandExit reads the end of a command: (path, argv, ignore, start ×2, exit ×2, pid, code, status).
func commandExit(command []any) (code, status int32) {
	if len(command) < 10 {
		return 0, 0
	}
	code, _ = command[8].(int32)
	status, _ = command[9].(int32)
	return code, status
}
