package api

import (
	"net/http"
	"strings"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

// registerFreezes registers the emergency stop, of one exchange and of everything.
func (s *Server) registerFreezes() {
	s.route("GET /messaging/exchanges/{id}/freeze", Readers, s.showFreeze)
	s.route("PUT /messaging/exchanges/{id}/freeze", Operators, s.freeze)
	s.route("DELETE /messaging/exchanges/{id}/freeze", Operators, s.thaw)
	s.route("GET /freeze", Readers, s.showFreeze)
	s.route("PUT /freeze", Operators, s.freeze)
	s.route("DELETE /freeze", Operators, s.thaw)
}

// freezeScope is the exchange in the path; without one it is everything, which only an unbound caller may touch.
func freezeScope(r *http.Request) (component.ExchangeID, error) {
	if r.PathValue("id") != "" {
		return pathExchange(r)
	}
	if callerExchange(r) != 0 && r.Method != http.MethodGet {
		return 0, fault.New(fault.Forbidden, "a token that is bound to an exchange can freeze that exchange alone")
	}
	return engine.Everything, nil
}

func (s *Server) freeze(w http.ResponseWriter, r *http.Request) error {
	ex, err := freezeScope(r)
	if err != nil {
		return err
	}
	var in managerapi.FreezeRequest
	if err := readStrict(r, &in); err != nil {
		return err
	}
	if strings.TrimSpace(in.Reason) == "" || len(in.Reason) > 1000 {
		return fault.New(fault.Invalid, "a freeze needs a reason of at most 1000 bytes")
	}
	f, err := s.Engine.Freeze(r.Context(), ex, in.Reason, in.Until)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, f)
	return nil
}

func (s *Server) showFreeze(w http.ResponseWriter, r *http.Request) error {
	ex, err := freezeScope(r)
	if err != nil {
		return err
	}
	f, err := s.Engine.FreezeOf(r.Context(), ex)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, f)
	return nil
}

func (s *Server) thaw(w http.ResponseWriter, r *http.Request) error {
	ex, err := freezeScope(r)
	if err != nil {
		return err
	}
	if err := s.Engine.Thaw(r.Context(), ex); err != nil {
		return err
	}
	noContent(w, http.StatusNoContent)
	return nil
}
