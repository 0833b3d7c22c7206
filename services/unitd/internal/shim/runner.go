package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/services/unitd/internal/service"
)

// runner performs one activation from start to end on one goroutine, whose
// thread is locked: the unit's processes die with that thread.
type runner struct {
	dir        string
	activation Activation
	identity   identity
	status     Status
	control    *controller
	out        *output
	null, pipe *os.File // stdin; stdout and stderr of the unit
	notifyName string

	children      <-chan os.Signal // SIGCHLD
	notifications chan notification
	left          chan int // pids of followed processes that have ended
	stops         <-chan struct{}
	drained       <-chan struct{} // closed when all output is in the log

	exits     map[int]*syscall.WaitStatus // of the processes that this runner started, and of the main process
	main      int                         // pid of the main process, 0 before
	marks     int                         // marks in the notify socket that have not come back
	childless bool                        // no descendant is left
	ready     bool                        // READY=1 was seen
	stopping  bool                        // a stop was requested
}

// outcome is why handleEvents returned.
type outcome int

const (
	met outcome = iota
	stopped
	expired
)

// handleEvents handles events until done, until a stop is requested (where heedStop) or until deadline.
func (r *runner) handleEvents(deadline <-chan time.Time, heedStop bool, done func() bool) outcome {
	for {
		switch {
		case done():
			return met
		case heedStop && r.stopping:
			return stopped
		}
		select {
		case <-r.children:
			r.reapChildren()
		case n := <-r.notifications:
			r.heedNotification(n)
		case pid := <-r.left:
			r.processLeft(pid)
		case <-r.stops:
			r.stopping = true
		case <-deadline:
			return expired
		}
	}
}

// timerFor is a timer for a time span that may be infinite.
func timerFor(span time.Duration) <-chan time.Time {
	if span == service.Infinity {
		return nil
	}
	return time.After(span)
}

// reapChildren collects every dead child, adopted ones too.
func (r *runner) reapChildren() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			r.childless = true
			return
		case pid == 0:
			return
		}
		if _, own := r.exits[pid]; own {
			r.exits[pid] = &status
			if pid == r.main {
				r.markNotifications()
			}
		}
	}
}

// heedNotification acts on a notification if its sender may send it.
func (r *runner) heedNotification(n notification) {
	if n.pid == os.Getpid() {
		r.marks--
		return
	}
	allowed := n.pid == r.main && r.main != 0
	if r.activation.Service.NotifyAll {
		allowed = allowed || n.uid == r.identity.uid || n.uid == 0
	}
	if !allowed {
		return
	}
	if text, ok := n.fields["MAINPID"]; ok {
		r.followMain(text)
	}
	if n.fields["READY"] == "1" {
		r.ready = true
	}
	if n.fields["STOPPING"] == "1" && r.status.Phase == PhaseRunning {
		r.publishPhase(PhaseSigterm) // it ends by itself: not active any more
	}
	if text, ok := n.fields["STATUS"]; ok && text != r.status.Text {
		r.status.Text = text
		r.publishPhase(r.status.Phase)
	}
}

// publishPhase records a phase and tells every connected unitd.
func (r *runner) publishPhase(phase Phase) {
	r.status.Phase = phase
	if err := writeJSON(filepath.Join(r.dir, statusFile), r.status); err != nil {
		r.out.writeLine("status cannot be recorded: %v", err) // the connected unitd still learns it
	}
	r.control.tellStatus(r.status)
}

func (r *runner) processGone(pid int) bool { return pid == 0 || r.exits[pid] != nil }
func (r *runner) mainGone() bool           { return r.marks == 0 && r.processGone(r.main) }
func (r *runner) noneLeft() bool           { return r.childless }
func (r *runner) active() bool {
	return r.status.Phase == PhaseRunning || r.status.Phase == PhaseExited
}

// run performs the whole activation.
func (r *runner) run() {
	r.publishPhase(PhaseStart) // before any process: an activation without status never ran
	exit := r.activate()
	r.terminate() // what a main process that ended by itself left behind
	_ = r.pipe.Close()
	select { // what a process that escaped (it is nobody's child) writes later is lost
	case <-r.drained:
	case <-time.After(drainLimit):
	}
	exit.At = time.Now().UTC()
	exit.Requested = r.stopping
	r.out.writeLine("ended: %s", exit.Detail)
	r.status.MainPID = 0
	r.status.Exit = &exit
	r.publishPhase(PhaseDead)
}

func (r *runner) activate() Exit {
	s := r.activation.Service
	r.out.markStart(s.Specifiers.Name.String())
	identity, err := lookUp(s.User, s.Group)
	if err != nil {
		return resources(err)
	}
	r.identity = identity
	startBy := timerFor(s.TimeoutStart)
	if exit, ok := r.startPre(startBy); !ok {
		return exit
	}
	if s.Type == service.Oneshot {
		return r.oneshot(startBy)
	}
	return r.daemon(startBy)
}

// startPre runs the ExecStartPre commands one after another.
func (r *runner) startPre(startBy <-chan time.Time) (Exit, bool) {
	for _, command := range r.activation.Service.StartPre {
		r.publishPhase(PhaseStartPre)
		exit, ok := r.runCommand(command, startBy)
		if !ok {
			return exit, false
		}
	}
	return Exit{}, true
}

// runCommand runs one command to its end; false: the activation must not go on.
func (r *runner) runCommand(command unit.Command, by <-chan time.Time) (Exit, bool) {
	pid, err := r.spawnCommand(command)
	if err != nil {
		return resources(err), command.IgnoreFailure
	}
	switch r.handleEvents(by, true, func() bool { return r.processGone(pid) }) {
	case stopped:
		return r.stop(), false
	case expired:
		return timeout, false
	case met:
	}
	exit := exitOf(*r.exits[pid], false)
	return exit, exit.Result == service.ResultSuccess || command.IgnoreFailure
}

// daemon runs a service of Type simple or notify.
func (r *runner) daemon(startBy <-chan time.Time) Exit {
	command := r.activation.Service.Start[0]
	if err := r.startMain(command); err != nil {
		return resources(err)
	}
	if r.activation.Service.Type == service.Notify {
		if exit, ok := r.awaitReady(startBy); !ok {
			return exit
		}
	}
	r.status.ActiveSince = time.Now().UTC()
	r.publishPhase(PhaseRunning)
	if r.handleEvents(nil, true, r.mainGone) == stopped {
		return r.stop()
	}
	exit := r.mainExit(command)
	if exit.Result != service.ResultSuccess || !r.active() { // or it had said STOPPING=1
		return exit
	}
	return r.completed(exit)
}

func (r *runner) awaitReady(startBy <-chan time.Time) (Exit, bool) {
	r.publishPhase(PhaseStart)
	switch r.handleEvents(startBy, true, func() bool { return r.ready || r.mainGone() }) {
	case stopped:
		return r.stop(), false
	case expired:
		return timeout, false
	case met:
	}
	if r.ready {
		return Exit{}, true
	}
	exit := exitOf(*r.exits[r.main], true)
	if exit.Result == service.ResultSuccess {
		exit = Exit{Result: service.ResultProtocol, Detail: "protocol: ended before READY=1"}
	}
	return exit, false
}

// oneshot runs its commands one after another.
func (r *runner) oneshot(startBy <-chan time.Time) Exit {
	r.publishPhase(PhaseStart)
	for _, command := range r.activation.Service.Start {
		if err := r.startMain(command); err != nil {
			return resources(err)
		}
		switch r.handleEvents(startBy, true, r.mainGone) {
		case stopped:
			return r.stop()
		case expired:
			return timeout
		case met:
		}
		if exit := r.mainExit(command); exit.Result != service.ResultSuccess {
			return exit
		}
	}
	return r.completed(success)
}

// completed is what follows when a service that had started has ended in
// order: ExecStop, or with RemainAfterExit it is active until it is stopped.
func (r *runner) completed(exit Exit) Exit {
	if !r.activation.Service.RemainAfterExit {
		return r.stopCommands(exit)
	}
	r.status.MainPID = 0
	if r.status.ActiveSince.IsZero() {
		r.status.ActiveSince = time.Now().UTC()
	}
	r.publishPhase(PhaseExited)
	r.handleEvents(nil, true, func() bool { return false })
	return r.stop()
}

func (r *runner) startMain(command unit.Command) error {
	pid, err := r.spawnCommand(command)
	if err != nil {
		return err
	}
	r.main, r.status.MainPID = pid, pid
	return nil
}

func (r *runner) mainExit(command unit.Command) Exit {
	exit := exitOf(*r.exits[r.main], r.activation.Service.Type != service.Oneshot)
	if command.IgnoreFailure {
		exit.Result = service.ResultSuccess
	}
	return exit
}

// Ends that have no details.
var (
	success = Exit{Result: service.ResultSuccess, Detail: "success"}
	timeout = Exit{Result: service.ResultTimeout, Detail: "timeout"}
)

func resources(err error) Exit {
	return Exit{Result: service.ResultResources, Detail: err.Error()}
}

// endingSignals ask a daemon to end: one that obeys has not failed.
var endingSignals = []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE}

// exitOf judges an exit as systemd does. Code 0 is success. For a daemon the
// ending signals are success too; a command that they end has not done its work.
func exitOf(status syscall.WaitStatus, daemon bool) Exit {
	if status.Signaled() {
		exit := Exit{Result: service.ResultSignal, Detail: "signal " + status.Signal().String()}
		if daemon && slices.Contains(endingSignals, status.Signal()) {
			exit.Result = service.ResultSuccess
		}
		return exit
	}
	if code := status.ExitStatus(); code != 0 {
		return Exit{Result: service.ResultExitCode, Detail: fmt.Sprintf("exit-code %d", code)}
	}
	return success
}
