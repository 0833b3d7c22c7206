package api

import (
	"net/http"
	"time"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/health"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

func (s *Server) registerHealth() {
	s.route("GET /messaging/exchanges/{id}/health", Readers, s.showHealth)
}

// exchangeHealth compares what is supposed to run in an exchange with what runs (design section 7).
type exchangeHealth struct {
	ExchangeID component.ExchangeID `json:"messaging_exchange_id"`
	At         time.Time            `json:"at"` // on the database's clock
	Entries    []health.Line        `json:"entries"`
}

func (s *Server) showHealth(w http.ResponseWriter, r *http.Request) error {
	id, ok := pathID(r, "id")
	if !ok {
		return fault.New(fault.NotFound, "there is no such exchange")
	}
	if err := inScope(r.Context(), component.ExchangeID(id)); err != nil {
		return err
	}
	snapshot, err := s.Store.Snapshot(r.Context(), component.ExchangeID(id), true)
	if err != nil {
		return err
	}
	shown := exchangeHealth{ExchangeID: component.ExchangeID(id), At: snapshot.DatabaseTime, Entries: health.Judge(healthInput(snapshot))}
	if shown.Entries == nil {
		shown.Entries = []health.Line{}
	}
	writeJSON(w, http.StatusOK, shown)
	return nil
}

// healthInput is what a snapshot says about health.
func healthInput(s managerapi.Snapshot) health.Input {
	in := health.Input{Refs: s.Refs, Components: s.Components, Counts: s.Counts, Modules: s.Modules, Now: s.DatabaseTime,
		LiveWithin: time.Duration(s.LiveWithinMS) * time.Millisecond,
		Open:       map[component.ID]upgrade.State{}, Quarantined: map[component.Type][]upgrade.Version{}}
	for _, u := range s.Upgrades {
		in.Open[u.ComponentID] = u.State
	}
	for _, q := range s.Quarantines {
		version := upgrade.Version{SourceRepo: q.SourceRepo, SourceRepoGitRef: q.SourceRepoGitRef}
		in.Quarantined[q.ComponentType] = append(in.Quarantined[q.ComponentType], version)
	}
	return in
}
