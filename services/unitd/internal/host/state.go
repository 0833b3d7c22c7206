package host

import (
	"time"

	"github.com/openaperture/openaperture/services/unitd/internal/service"
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

// describeState fills in what depends on the processes. status is the backend's latest of a living activation.
func describeState(s State, h have, status Status, then step) State {
	s.Load = "loaded"
	s.Restarts = h.restarts + status.Restarts
	if h.exit != nil {
		s.Result = h.exit.Detail
	}
	switch {
	case h.alive:
		describeAlive(&s, h, status)
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

func describeAlive(s *State, h have, status Status) {
	s.Active, s.Sub = "activating", "start"
	if status.Active != "" {
		s.Active, s.Sub = status.Active, status.Sub
	}
	if status.Result != "" {
		s.Result = status.Result
	}
	s.MainPID, s.StatusText = status.MainPID, status.Text
	if h.stopping && s.Active != "deactivating" {
		s.Active, s.Sub = "deactivating", "stop"
	}
	if s.Active == "active" {
		s.Since = status.Since.UTC().Format(time.RFC3339Nano)
	}
}
