package api

import (
	"net/http"

	"github.com/openaperture/openaperture/pkg/managerapi"
)

func (s *Server) registerQuarantines() {
	s.route("GET /quarantines", Readers, s.listQuarantines)
	s.route("DELETE /quarantines/{id}", Operators, s.clearQuarantine)
}

func (s *Server) listQuarantines(w http.ResponseWriter, r *http.Request) error {
	cursor, limit, err := pageOf(r)
	if err != nil {
		return err
	}
	ex, err := exchangeFilter(r)
	if err != nil {
		return err
	}
	list, err := s.Engine.Quarantines(r.Context(), ex, cursor, limit)
	if err != nil {
		return err
	}
	return paged(w, list, limit, func(q managerapi.Quarantine) string { return q.ID })
}

func (s *Server) clearQuarantine(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r)
	if err != nil {
		return err
	}
	if err := s.Engine.ClearQuarantine(r.Context(), id, callerExchange(r)); err != nil {
		return err
	}
	noContent(w, http.StatusNoContent)
	return nil
}
