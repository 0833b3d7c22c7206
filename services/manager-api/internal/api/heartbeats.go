package api

import (
	"net/http"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
)

// registerHeartbeats registers what the overseer tells of the modules of its exchange, and the operator's answer to a
// deletion that is held.
func (s *Server) registerHeartbeats() {
	s.route("POST /messaging/exchanges/{id}/modules/batch", Services, s.beatBatch)
	s.route("POST /messaging/exchanges/{id}/modules/expire", Services, s.expireModules)
	s.route("DELETE /messaging/exchanges/{id}/deletion_hold", Operators, s.releaseHold)
}

// maxBatch bounds the heartbeats of one request.
const maxBatch = 5000

// beatBatch stores coalesced heartbeats. One that is not valid is left out: it must not hold up the others.
func (s *Server) beatBatch(w http.ResponseWriter, r *http.Request) error {
	ex, err := pathExchange(r)
	if err != nil {
		return err
	}
	var in managerapi.ModuleBatch
	if err := readMessages(r, &in); err != nil {
		return err
	}
	if len(in.Modules) > maxBatch {
		return fault.New(fault.TooLarge, "a batch holds at most %d heartbeats", maxBatch)
	}
	valid := in.Modules[:0]
	for _, m := range in.Modules {
		if m.Validate() == nil {
			valid = append(valid, m)
		}
	}
	n, err := s.Presence.Beat(r.Context(), ex, valid)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, managerapi.BatchResult{Accepted: n})
	return nil
}

func (s *Server) expireModules(w http.ResponseWriter, r *http.Request) error {
	ex, err := pathExchange(r)
	if err != nil {
		return err
	}
	var in managerapi.Expiry
	if err := readStrict(r, &in); err != nil {
		return err
	}
	out, err := s.Presence.Expire(r.Context(), ex, in)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

func (s *Server) releaseHold(w http.ResponseWriter, r *http.Request) error {
	ex, err := pathExchange(r)
	if err != nil {
		return err
	}
	if err := s.Presence.ReleaseHold(r.Context(), ex); err != nil {
		return err
	}
	noContent(w, http.StatusNoContent)
	return nil
}
