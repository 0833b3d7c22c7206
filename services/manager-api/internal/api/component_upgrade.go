package api

import (
	"net/http"
	"strings"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// registerComponentUpgrade registers the predecessor's request for an upgrade.
func (s *Server) registerComponentUpgrade() {
	const pattern = "POST /system_components/{id}/upgrade"
	post := s.idempotent(Route{pattern, Operators, componentItem}, s.upgradeComponent)
	s.byID(pattern, componentItem, Operators, func(w http.ResponseWriter, r *http.Request,
		_ int64) error {
		return post(w, r)
	})
}

// upgradeComponent makes the component's upgrade or finds the open one: a repeat answers the same with the same id. The
// predecessor's clients get its 204, now with a Location; who prefers a representation gets the Upgrade.
func (s *Server) upgradeComponent(w http.ResponseWriter, r *http.Request) error {
	id, _ := pathID(r, "id")
	row, err := s.component(r, id)
	if err != nil {
		return named(err, numbered(id))
	}
	if tag := ifMatch(r, tagOfComponent); tag != nil {
		if err := tag(row); err != nil {
			return err
		}
	}
	f, err := readForm(r)
	if err != nil {
		return err
	}
	force, reason := f.boolean("force"), f.text("reason")
	if err := f.err(numbered(id)); err != nil {
		return err
	}
	request := managerapi.UpgradeRequest{ComponentID: component.ID(id), ExchangeID: row.ExchangeID,
		Trigger:     upgrade.TriggerRequest,
		RequestedBy: callerOf(r.Context()).Name, Force: force != nil && *force}
	if reason != nil {
		request.Reason = *reason
	}
	made, _, err := s.Engine.RequestUpgrade(r.Context(), request)
	if fault.Is(err, fault.NotFound) {
		return notFound(numbered(id))
	}
	if err != nil {
		return err
	}
	location := "/upgrades/" + string(made.ID)
	if !prefersRepresentation(r) {
		located(w, http.StatusNoContent, location)
		return nil
	}
	w.Header().Set("Location", location)
	w.Header().Set("Preference-Applied", "return=representation")
	writeJSON(w, http.StatusAccepted, made)
	return nil
}

func prefersRepresentation(r *http.Request) bool {
	for _, line := range r.Header.Values("Prefer") {
		for preference := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(preference), "return=representation") {
				return true
			}
		}
	}
	return false
}
