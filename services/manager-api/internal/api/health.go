package api

import (
	"net/http"
	"time"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/health"
	"github.com/openaperture/openaperture/pkg/managerapi"
)

func (s *Server) registerHealth() {
	s.route("GET /messaging/exchanges/{id}/health", Readers, s.showHealth)
}

// exchangeHealth compares what is supposed to run in an exchange with what runs
// (docs/concepts.md#health-of-an-exchange).
type exchangeHealth struct {
	ExchangeID component.ExchangeID `json:"messaging_exchange_id"`
	At         time.Time            `json:"at"` // on the database's clock
	Entries    []health.Line        `json:"entries"`
	Freeze     *managerapi.Freeze   `json:"freeze,omitempty"` // nothing starts while it holds
}

func (s *Server) showHealth(w http.ResponseWriter, r *http.Request) error {
	id, ok := pathID(r, "id")
	if !ok {
		return fault.New(fault.NotFound, "there is no such exchange")
	}
	if err := inScope(r.Context(), component.ExchangeID(id)); err != nil {
		return err
	}
	snapshot, err := s.Engine.Snapshot(r.Context(), component.ExchangeID(id), true)
	if err != nil {
		return err
	}
	shown := exchangeHealth{ExchangeID: component.ExchangeID(id), At: snapshot.DatabaseTime,
		Entries: health.Judge(snapshot.Health()), Freeze: snapshot.Freeze}
	if shown.Entries == nil {
		shown.Entries = []health.Line{}
	}
	writeJSON(w, http.StatusOK, shown)
	return nil
}
