package service

import "time"

// Result says how an activation of a service ended.
type Result string

// The results. Those that systemd has too have systemd's names.
const (
	ResultSuccess   Result = "success"
	ResultExitCode  Result = "exit-code"
	ResultSignal    Result = "signal"
	ResultTimeout   Result = "timeout"
	ResultProtocol  Result = "protocol"  // Type=notify ended before READY=1
	ResultResources Result = "resources" // a process could not be started
	ResultLost      Result = "lost"      // the shim was killed, and the processes with it
)

// Restart is the policy of `Restart=`.
type Restart string

// The policies of systemd.
const (
	RestartNo         Restart = "no"
	RestartAlways     Restart = "always"
	RestartOnSuccess  Restart = "on-success"
	RestartOnFailure  Restart = "on-failure"
	RestartOnAbnormal Restart = "on-abnormal"
	RestartOnAbort    Restart = "on-abort"
	RestartOnWatchdog Restart = "on-watchdog"
)

// restartsOn is the table of systemd.service(5), except that a lost shim
// counts as a signal.
var restartsOn = map[Restart]map[Result]bool{
	RestartNo: {},
	RestartAlways: {ResultSuccess: true, ResultExitCode: true, ResultSignal: true, ResultTimeout: true,
		ResultProtocol: true, ResultResources: true, ResultLost: true},
	RestartOnSuccess: {ResultSuccess: true},
	RestartOnFailure: {ResultExitCode: true, ResultSignal: true, ResultTimeout: true, ResultProtocol: true,
		ResultResources: true, ResultLost: true},
	RestartOnAbnormal: {ResultSignal: true, ResultTimeout: true, ResultLost: true},
	RestartOnAbort:    {ResultSignal: true, ResultLost: true},
	RestartOnWatchdog: {},
}

// After tells whether the policy starts the service again after result.
func (r Restart) After(result Result) bool {
	return restartsOn[r][result]
}

// Back-off of restarts. The delay doubles with every start that did not stay up
// for steadyAfter, to at most maxDelay, or RestartSec if that is longer.
const (
	maxDelay    = 30 * time.Second
	steadyAfter = 10 * time.Second
)

// Delay is the pause before the next start after streak unsteady ones in a row (the first restart has streak 0).
func Delay(pause time.Duration, streak int) time.Duration {
	limit := max(maxDelay, pause)
	delay := max(pause, 0)
	for range streak {
		if delay >= limit/2 {
			return limit
		}
		delay = max(2*delay, 10*time.Millisecond)
	}
	return delay
}

// Streak is the next count of unsteady starts: 0 after an activation that was up for ten seconds, else one more.
func Streak(streak int, up time.Duration) int {
	if up >= steadyAfter {
		return 0
	}
	return streak + 1
}
