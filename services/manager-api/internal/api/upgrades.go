package api

import (
	"net/http"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

func (s *Server) registerUpgrades() {
	s.posted("POST /upgrades", Operators|forService, s.requestUpgrade)
	s.route("GET /upgrades", Readers, s.listUpgrades)
	s.route("GET /upgrades/{id}", Readers, s.showUpgrade)
	s.posted("POST /upgrades/{id}/cancel", Operators, s.cancelUpgrade)
}

// requestUpgrade makes an upgrade (201) or answers with the open one (200). Force is an operator's; hourly is the
// overseer's, under its term.
func (s *Server) requestUpgrade(w http.ResponseWriter, r *http.Request) error {
	var in managerapi.UpgradeRequest
	if err := readStrict(r, &in); err != nil {
		return err
	}
	if err := allowRequest(callerOf(r.Context()), &in); err != nil {
		return err
	}
	u, created, err := s.Engine.RequestUpgrade(r.Context(), in)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/upgrades/"+string(u.ID))
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	writeJSON(w, status, u)
	return nil
}

// allowRequest keeps a request within what its caller may ask for.
func allowRequest(c Caller, in *managerapi.UpgradeRequest) error {
	if in.ComponentID == 0 && (in.ExchangeID == 0 || in.ComponentType == "") {
		return fault.New(fault.Invalid, "name component_id, or messaging_exchange_id and component_type")
	}
	if c.ExchangeID != 0 {
		if in.ExchangeID != 0 && in.ExchangeID != c.ExchangeID {
			return fault.New(fault.NotFound, "there is no such component")
		}
		in.ExchangeID = c.ExchangeID
	}
	switch in.Trigger {
	case "", upgrade.TriggerRequest:
	case upgrade.TriggerHourly:
		if !c.May(Services) || in.ExchangeID == 0 {
			return fault.New(fault.Forbidden, "only the overseer of an exchange makes hourly upgrades")
		}
	case upgrade.TriggerRollback:
		return fault.New(fault.Invalid, "POST /system_components/:id/rollback asks for a rollback")
	default:
		return fault.New(fault.Invalid, "unknown trigger %q", in.Trigger)
	}
	if in.Force && !c.May(Operators) {
		return fault.New(fault.Forbidden, "force needs the role operator or admin")
	}
	if in.RequestedBy == "" || !c.May(Services) {
		in.RequestedBy = c.Name
	}
	return nil
}

func (s *Server) listUpgrades(w http.ResponseWriter, r *http.Request) error {
	cursor, limit, err := pageOf(r)
	if err != nil {
		return err
	}
	of, err := queryID(r, "component_id")
	if err != nil {
		return err
	}
	ex, err := exchangeFilter(r)
	if err != nil {
		return err
	}
	list, err := s.Engine.Upgrades(r.Context(), engine.UpgradeQuery{ComponentID: component.ID(of), ExchangeID: ex,
		State: upgrade.State(r.URL.Query().Get("state")), Before: upgrade.ID(cursor), Limit: limit})
	if err != nil {
		return err
	}
	return paged(w, list, limit, func(u managerapi.Upgrade) string { return string(u.ID) })
}

func (s *Server) showUpgrade(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r)
	if err != nil {
		return err
	}
	u, err := s.Engine.Upgrade(r.Context(), upgrade.ID(id))
	if err != nil {
		return err
	}
	if !callerOf(r.Context()).Within(u.ExchangeID) {
		return fault.New(fault.NotFound, "there is no upgrade %s", id)
	}
	writeJSON(w, http.StatusOK, u)
	return nil
}

func (s *Server) cancelUpgrade(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r)
	if err != nil {
		return err
	}
	if err := readStrict(r, &struct{}{}); err != nil {
		return err
	}
	u, err := s.Engine.Cancel(r.Context(), upgrade.ID(id), callerExchange(r))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, u)
	return nil
}
