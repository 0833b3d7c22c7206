package api

import "net/http"

// registerFamilies registers the predecessor's families.
func (s *Server) registerFamilies() {
	s.route("GET /status", Public, func(w http.ResponseWriter, _ *http.Request) error {
		writeJSON(w, http.StatusOK, "")
		return nil
	})
	s.registerRefs()
	s.registerComponents()
	s.registerExchanges()
	s.registerModules()
	s.registerBrokers()
	s.registerClusters()
	s.registerWorkflows()
	s.registerEvents()
	s.registerUsers()
	s.registerHealth()
}

// byID registers a route whose handler gets the number that the path names; another form of it is not found.
func (s *Server) byID(pattern, item string, access Access, h func(http.ResponseWriter, *http.Request, int64) error) {
	s.family(pattern, item, access, func(w http.ResponseWriter, r *http.Request) error {
		id, ok := pathID(r, "id")
		if !ok {
			return notFound(titled(item, r.PathValue("id")))
		}
		return h(w, r, id)
	})
}

// once registers a POST or PUT that honours Idempotency-Key.
func (s *Server) once(pattern, item string, access Access, h handler) {
	s.family(pattern, item, access, s.idempotent(Route{pattern, access, item}, h))
}

// titled is the item as the predecessor named it in texts: components, events with their id.
func titled(item, id string) string {
	if item == componentItem || item == eventItem {
		return item + " " + id
	}
	return item
}
