package api

import (
	"net/http"
	"strings"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
)

func (s *Server) registerOrders() {
	s.route("POST /orders/{id}/claim", Services, s.claimOrder)
	s.route("POST /orders/{id}/renew", Services, s.renewClaim)
	s.route("POST /orders/{id}/release", Services, s.releaseClaim)
	s.route("GET /orders/{id}", Readers, s.showOrder)
	s.route("GET /orders", Services, s.listClaims)
}

func (s *Server) claimOrder(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r)
	if err != nil {
		return err
	}
	var in managerapi.ClaimRequest
	if err := readStrict(r, &in); err != nil {
		return err
	}
	if in.Hostname == "" || in.BootID == "" || in.Attempt < 1 {
		return fault.New(fault.Invalid, "a claim needs attempt, hostname and boot_id")
	}
	claim, err := s.Engine.Claim(r.Context(), id, callerExchange(r), in)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, claim)
	return nil
}

func (s *Server) renewClaim(w http.ResponseWriter, r *http.Request) error {
	id, token, err := heldClaim(r)
	if err != nil {
		return err
	}
	claim, err := s.Engine.Renew(r.Context(), id, callerExchange(r), token)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, claim)
	return nil
}

func (s *Server) releaseClaim(w http.ResponseWriter, r *http.Request) error {
	id, token, err := heldClaim(r)
	if err != nil {
		return err
	}
	if err := s.Engine.ReleaseClaim(r.Context(), id, callerExchange(r), token); err != nil {
		return err
	}
	noContent(w, http.StatusNoContent)
	return nil
}

// heldClaim is the claim that its holder speaks of: the order in the path, and the token by which it is held.
func heldClaim(r *http.Request) (id string, token int64, err error) {
	if id, err = pathUUID(r); err != nil {
		return "", 0, err
	}
	var in managerapi.Renewal
	if err = readStrict(r, &in); err != nil {
		return "", 0, err
	}
	return id, in.Token, nil
}

func (s *Server) showOrder(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r)
	if err != nil {
		return err
	}
	view, ex, err := s.Engine.OrderView(r.Context(), id)
	if err != nil {
		return err
	}
	if !callerOf(r.Context()).Within(ex) {
		return fault.New(fault.NotFound, "there is no order %s", id)
	}
	writeJSON(w, http.StatusOK, view)
	return nil
}

// listClaims lists the claims of one hostname in the caller's exchange: an executor that starts asks for its own, and
// announces itself by that. An executor of the former release announces nothing.
func (s *Server) listClaims(w http.ResponseWriter, r *http.Request) error {
	holder := r.URL.Query().Get("holder")
	if holder == "" {
		return fault.New(fault.Invalid, "name the holder")
	}
	query := r.URL.Query()
	if e := (managerapi.Executor{Hostname: holder, BootID: query.Get("boot_id"), Service: query.Get("service"),
		Capabilities: strings.Split(query.Get("capabilities"), ",")}); e.BootID != "" && callerExchange(r) != 0 {
		if err := s.Engine.Announce(r.Context(), callerExchange(r), e); err != nil {
			return err
		}
	}
	list, err := s.Engine.ClaimsOf(r.Context(), holder, callerExchange(r))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, managerapi.Page[managerapi.OrderView]{Items: list})
	return nil
}
