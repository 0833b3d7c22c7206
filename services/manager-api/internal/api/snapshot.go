package api

import "net/http"

// registerSnapshot registers the facts on which an overseer judges its exchange.
func (s *Server) registerSnapshot() {
	s.route("GET /messaging/exchanges/{id}/snapshot", Readers, s.showSnapshot)
}

func (s *Server) showSnapshot(w http.ResponseWriter, r *http.Request) error {
	ex, err := pathExchange(r)
	if err != nil {
		return err
	}
	snapshot, err := s.Engine.Snapshot(r.Context(), ex, false)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, snapshot)
	return nil
}
