package api

import "net/http"

// registerStatus registers the predecessor's sign of life. It says nothing about the database: /readyz does.
func (s *Server) registerStatus() {
	s.route("GET /status", Public, func(w http.ResponseWriter, _ *http.Request) error {
		writeJSON(w, http.StatusOK, "")
		return nil
	})
}
