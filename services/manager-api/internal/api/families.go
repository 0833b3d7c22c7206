package api

import "net/http"

// registerFamilies registers the predecessor's families.
func (s *Server) registerFamilies() {
	s.route("GET /status", Public, func(w http.ResponseWriter, _ *http.Request) error {
		writeJSON(w, http.StatusOK, "")
		return nil
	})
}
