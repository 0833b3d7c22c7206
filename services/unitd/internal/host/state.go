package host

import (
	"time"

	"github.com/openaperture/openaperture/services/unitd/internal/service"
	"github.com/openaperture/openaperture/services/unitd/internal/shim"
)

// State is what a unit does at the moment: Fleet's fields and ours.
type State struct {
	Hash       string `json:"hash"`
	MachineID  string `json:"machineID"`
	Name       string `json:"name"`
	Active     string `json:"systemdActiveState"`
	Load       string `json:"systemdLoadState"`
	Sub        string `json:"systemdSubState"`
	Since      string `json:"activeSince,omitempty"` // RFC 3339 with nanoseconds, only while active
	Restarts   int    `json:"restarts"`              // automatic ones of this definition
	MainPID    int    `json:"mainPID,omitempty"`
	Result     string `json:"result,omitempty"`     // how the last activation that ended did so
	StatusText string `json:"statusText,omitempty"` // STATUS= of the service
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

// describe fills in what depends on the processes. status is the shim's latest, if it is alive.
func describe(s State, h have, status shim.Status, then step) State {
	s.Load = "loaded"
	s.Restarts = h.restarts
	if h.exit != nil {
		s.Result = h.exit.Detail
	}
	switch {
	case h.alive:
		s.Active, s.Sub = "activating", "start"
		if names, ok := phases[status.Phase]; ok {
			s.Active, s.Sub = names[0], names[1]
		}
		s.MainPID, s.StatusText = status.MainPID, status.Text
		if h.stopping && s.Active != "deactivating" {
			s.Active, s.Sub = "deactivating", "stop"
		}
		if s.Active == "active" {
			s.Since = status.ActiveSince.UTC().Format(time.RFC3339Nano)
		}
	case then.verb == wait || then.verb == restart:
		s.Active, s.Sub = "activating", "auto-restart"
	case then.verb == start:
		s.Active, s.Sub = "activating", "start"
	case h.exit != nil && h.exit.Result != service.ResultSuccess:
		s.Active, s.Sub = "failed", "failed"
	default:
		s.Active, s.Sub = "inactive", "dead"
	}
	return s
}
