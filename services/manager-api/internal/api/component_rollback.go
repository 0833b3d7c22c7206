package api

import (
	"net/http"

	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

// registerComponentRollback registers an operator's return to a stored release.
func (s *Server) registerComponentRollback() {
	s.posted("POST /system_components/{id}/rollback", Operators, s.rollbackComponent)
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
	u, err := s.Engine.RequestRollback(r.Context(), engine.RollbackRequest{ComponentID: id, ExchangeID: callerExchange(r),
		ReleaseID:   in.ReleaseID,
		RequestedBy: callerOf(r.Context()).Name, Reason: in.Reason})
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/upgrades/"+string(u.ID))
	writeJSON(w, http.StatusAccepted, u)
	return nil
}
