package api

import (
	"net/http"
	"strconv"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
)

func (s *Server) registerLeader() {
	s.route("GET /messaging/exchanges/{id}/leader", Readers, s.showLeader)
	s.route("PUT /messaging/exchanges/{id}/leader", Services, s.takeLead)
	s.route("DELETE /messaging/exchanges/{id}/leader", Services, s.resignLead)
}

func (s *Server) showLeader(w http.ResponseWriter, r *http.Request) error {
	ex, err := pathExchange(r)
	if err != nil {
		return err
	}
	l, err := s.Presence.Leader(r.Context(), ex)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, l)
	return nil
}

func (s *Server) takeLead(w http.ResponseWriter, r *http.Request) error {
	ex, err := pathExchange(r)
	if err != nil {
		return err
	}
	var in managerapi.LeaseRequest
	if err := readStrict(r, &in); err != nil {
		return err
	}
	l, err := s.Presence.Lead(r.Context(), ex, in)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, l)
	return nil
}

func (s *Server) resignLead(w http.ResponseWriter, r *http.Request) error {
	ex, err := pathExchange(r)
	if err != nil {
		return err
	}
	term, err := strconv.ParseInt(r.URL.Query().Get("term"), 10, 64)
	if err != nil {
		return fault.New(fault.Invalid, "term must be a number")
	}
	if err := s.Presence.Resign(r.Context(), ex, term); err != nil {
		return err
	}
	noContent(w, http.StatusNoContent)
	return nil
}
