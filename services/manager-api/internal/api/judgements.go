package api

import (
	"context"
	"net/http"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// registerJudgements registers what the overseer of an exchange decides. manager-api compares each judgement with the
// facts under their locks before it writes.
func (s *Server) registerJudgements() {
	s.route("POST /upgrades/{id}/start", Services, s.startUpgrade)
	s.route("POST /upgrades/{id}/refuse", Services, s.refuseUpgrade)
	s.route("POST /upgrades/{id}/proven", Services, s.proveUpgrade)
	s.route("PUT /system_components/{id}/check", Services, s.checkComponent)
}

// writeJudgement writes a judgement of the overseer about one upgrade of its exchange.
func writeJudgement(w http.ResponseWriter, r *http.Request,
	write func(context.Context, upgrade.ID, component.ExchangeID, managerapi.Judgement) error) error {
	id, err := pathUUID(r)
	if err != nil {
		return err
	}
	var in managerapi.Judgement
	if err := readStrict(r, &in); err != nil {
		return err
	}
	if err := write(r.Context(), upgrade.ID(id), callerExchange(r), in); err != nil {
		return err
	}
	noContent(w, http.StatusNoContent)
	return nil
}

func (s *Server) startUpgrade(w http.ResponseWriter, r *http.Request) error {
	return writeJudgement(w, r, s.Engine.Start)
}

func (s *Server) refuseUpgrade(w http.ResponseWriter, r *http.Request) error {
	return writeJudgement(w, r, s.Engine.Refuse)
}

func (s *Server) proveUpgrade(w http.ResponseWriter, r *http.Request) error {
	return writeJudgement(w, r, s.Engine.Prove)
}

func (s *Server) checkComponent(w http.ResponseWriter, r *http.Request) error {
	id, err := pathComponent(r)
	if err != nil {
		return err
	}
	var in managerapi.Check
	if err := readStrict(r, &in); err != nil {
		return err
	}
	if err := s.Engine.Check(r.Context(), id, callerExchange(r), in); err != nil {
		return err
	}
	noContent(w, http.StatusNoContent)
	return nil
}
