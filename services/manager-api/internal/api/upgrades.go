package api

import (
	"net/http"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

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

// exchangeFilter is the exchange that the query names, narrowed to the caller's own.
func exchangeFilter(r *http.Request) (component.ExchangeID, error) {
	n, err := queryID(r, "messaging_exchange_id")
	ex := component.ExchangeID(n)
	if err != nil || ex == 0 {
		return bound(r), err
	}
	return ex, inScope(r.Context(), ex)
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

func (s *Server) startUpgrade(w http.ResponseWriter, r *http.Request) error {
	return judge(w, r, s.Engine.Start)
}

func (s *Server) refuseUpgrade(w http.ResponseWriter, r *http.Request) error {
	return judge(w, r, s.Engine.Refuse)
}

func (s *Server) proveUpgrade(w http.ResponseWriter, r *http.Request) error {
	return judge(w, r, s.Engine.Prove)
}

func (s *Server) cancelUpgrade(w http.ResponseWriter, r *http.Request) error {
	id, err := pathUUID(r)
	if err != nil {
		return err
	}
	if err := readStrict(r, &struct{}{}); err != nil {
		return err
	}
	u, err := s.Engine.Cancel(r.Context(), upgrade.ID(id), bound(r))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, u)
	return nil
}

func (s *Server) rollbackComponent(w http.ResponseWriter, r *http.Request) error {
	id, err := pathComponent(r)
	if err != nil {
		return err
	}
	var in struct {
		ReleaseID string `json:"release_id"`
		Reason    string `json:"reason"`
	}
	if err := readStrict(r, &in); err != nil {
		return err
	}
	u, err := s.Engine.RequestRollback(r.Context(), engine.RollbackRequest{ComponentID: id, ExchangeID: bound(r),
		ReleaseID:   in.ReleaseID,
		RequestedBy: callerOf(r.Context()).Name, Reason: in.Reason})
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/upgrades/"+string(u.ID))
	writeJSON(w, http.StatusAccepted, u)
	return nil
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
	if err := s.Engine.Check(r.Context(), id, bound(r), in); err != nil {
		return err
	}
	noContent(w, http.StatusNoContent)
	return nil
}

func (s *Server) listReleases(w http.ResponseWriter, r *http.Request) error {
	id, err := pathComponent(r)
	if err != nil {
		return err
	}
	if _, err := s.component(r, int64(id)); err != nil {
		return err
	}
	cursor, limit, err := pageOf(r)
	if err != nil {
		return err
	}
	list, err := s.Engine.Releases(r.Context(), id, cursor, limit)
	if err != nil {
		return err
	}
	return paged(w, list, limit, func(r managerapi.Release) string { return r.ID })
}

func (s *Server) adoptRelease(w http.ResponseWriter, r *http.Request) error {
	id, err := pathComponent(r)
	if err != nil {
		return err
	}
	if _, err := s.component(r, int64(id)); err != nil {
		return err
	}
	var in managerapi.Release
	if err := readStrict(r, &in); err != nil {
		return err
	}
	in.ComponentID = id
	if err := checkRelease(in); err != nil {
		return err
	}
	out, err := s.Engine.Adopt(r.Context(), in)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, out)
	return nil
}

func checkRelease(r managerapi.Release) error {
	var wrong []fault.Field
	for _, f := range []struct{ name, value string }{{"source_repo", r.SourceRepo},
		{"source_repo_git_ref", r.SourceRepoGitRef}, {"etcd_token", r.EtcdToken}} {
		if component.Blank(f.value) {
			wrong = append(wrong, fault.Field{Name: f.name, Message: "is required"})
		}
	}
	if len(r.Units) == 0 {
		wrong = append(wrong, fault.Field{Name: "units", Message: "is required"})
	}
	if len(wrong) == 0 {
		return nil
	}
	return fault.New(fault.Invalid, "the release is not complete").WithFields(wrong...)
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
	if err := s.Engine.ClearQuarantine(r.Context(), id, bound(r)); err != nil {
		return err
	}
	noContent(w, http.StatusNoContent)
	return nil
}
