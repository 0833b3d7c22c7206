package shim

import (
	"syscall"
	"time"

	"github.com/openaperture/openaperture/services/unitd/internal/service"
)

// stop performs a requested stop: ExecStop if the service had started, then
// signals by KillMode. The first failure is the result.
func (r *runner) stop() Exit {
	exit := success
	if r.active() {
		exit = r.stopCommands(exit)
	}
	if r.terminate() && exit.Result == service.ResultSuccess {
		return timeout
	}
	return exit
}

// stopCommands runs ExecStop, with MAINPID while the main process lives, and
// returns exit or the first failure, after which it runs no more commands: the
// signals follow.
func (r *runner) stopCommands(exit Exit) Exit {
	if r.mainGone() {
		r.status.MainPID = 0
	}
	if len(r.activation.Service.Stop) == 0 {
		return exit
	}
	r.publishPhase(PhaseStop)
	stopBy := timerFor(r.activation.Service.TimeoutStop)
	for _, command := range r.activation.Service.Stop {
		pid, err := r.spawnCommand(command)
		var failure Exit
		switch {
		case err != nil:
			failure = resources(err)
		case r.handleEvents(stopBy, false, func() bool { return r.processGone(pid) }) == expired:
			_ = syscall.Kill(-pid, syscall.SIGKILL) // its group; the rest follows with the unit
			failure = timeout
		default:
			failure = exitOf(*r.exits[pid], false)
		}
		if failure.Result == service.ResultSuccess {
			continue
		}
		r.out.writeLine("ExecStop: %s", failure.Detail)
		if failure.Result == service.ResultTimeout || !command.IgnoreFailure {
			return failure
		}
	}
	return exit
}

// terminate ends the unit's processes by KillMode and returns when they are
// gone; true if it needed SIGKILL. Called again it has nothing to do.
func (r *runner) terminate() bool {
	r.reapChildren()
	switch r.activation.Service.KillMode {
	case service.KillNone:
		return false
	case service.KillProcess:
		return r.endProcesses(r.mainOnly, noProcesses, r.mainOnly, r.mainGone)
	case service.KillMixed:
		forced := r.endProcesses(r.mainOnly, noProcesses, r.mainOnly, r.mainGone)
		if !r.childless {
			r.killProcesses(r.everyone, r.noneLeft)
		}
		return forced
	case service.KillControlGroup:
	}
	return r.endProcesses(r.everyone, r.orphans, r.everyone, r.noneLeft)
}

func noProcesses() []int { return nil }

func (r *runner) everyone() []int { return descendants(r.status.ShimPID) }

// orphans are the processes that lost their parents and were adopted, with their descendants.
func (r *runner) orphans() []int {
	var found []int
	for _, pid := range childrenOf(r.status.ShimPID) {
		if _, own := r.exits[pid]; !own {
			found = append(append(found, pid), descendants(pid)...)
		}
	}
	return found
}

func (r *runner) mainOnly() []int {
	if r.mainGone() {
		return nil
	}
	return []int{r.main}
}

// endProcesses sends SIGTERM to ask, waits for TimeoutStopSec and then kills
// force. It returns true if it had to kill. A process that was forked while its
// parent was being signalled gets SIGTERM after its parent has ended (later). A
// process that a living parent forks to clean up is left to that parent.
func (r *runner) endProcesses(ask, later, force func() []int, gone func() bool) bool {
	if gone() {
		return false
	}
	r.publishPhase(PhaseSigterm)
	asked := map[int]bool{}
	signal := func(pids []int) {
		for _, pid := range pids {
			if !asked[pid] {
				asked[pid] = true
				_ = syscall.Kill(pid, syscall.SIGTERM) // gone already is as good
				_ = syscall.Kill(pid, syscall.SIGCONT) // a stopped process would not see it
			}
		}
	}
	signal(ask())
	ended := func() bool {
		if gone() {
			return true
		}
		signal(later())
		return false
	}
	if r.handleEvents(timerFor(r.activation.Service.TimeoutStop), false, ended) == met {
		return false
	}
	r.killProcesses(force, gone)
	return true
}

// killProcesses repeats SIGKILL until the processes are gone: one may have forked meanwhile.
func (r *runner) killProcesses(targets func() []int, gone func() bool) {
	r.publishPhase(PhaseSigkill)
	for {
		for _, pid := range targets() {
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is as good
		}
		if r.handleEvents(time.After(100*time.Millisecond), false, gone) == met {
			return
		}
	}
}
