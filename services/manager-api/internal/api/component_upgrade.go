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
	s.onceByID("POST /system_components/{id}/upgrade", componentItem, Operators, s.upgradeComponent)
}

// upgradeComponent makes the component's upgrade, or finds the open one: a repeat gets the same answer with the same
// id. The answer is the predecessor's 204, now with a Location. A caller that prefers a representation gets the
// Upgrade.
func (s *Server) upgradeComponent(w http.ResponseWriter, r *http.Request, id int64) error {
	row, err := s.component(r, id)
	if err != nil {
		return namedError(err, numbered(id))
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
		Trigger: upgrade.TriggerRequest, RequestedBy: callerOf(r.Context()).Name, Force: force != nil && *force}
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
		answerLocation(w, http.StatusNoContent, location)
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
