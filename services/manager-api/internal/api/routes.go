package api

import "net/http"

// registerRoutes registers every route. Each family's file names its routes and who may call them.
func (s *Server) registerRoutes() {
	s.registerStatus()
	// The predecessor's families.
	s.registerRefs()
	s.registerComponents()
	s.registerExchanges()
	s.registerModules()
	s.registerBrokers()
	s.registerClusters()
	s.registerWorkflows()
	s.registerEvents()
	s.registerUsers()
	// The new resources.
	s.registerHealth()
	s.registerFreezes()
	s.registerUpgrades()
	s.registerJudgements()
	s.registerComponentRollback()
	s.registerReleases()
	s.registerOrders()
	s.registerLeader()
	s.registerSnapshot()
	s.registerHeartbeats()
	s.registerQuarantines()
	s.registerJournal()
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

// onceByID registers a PUT or POST of one thing that honours Idempotency-Key.
func (s *Server) onceByID(pattern, item string, access Access,
	h func(http.ResponseWriter, *http.Request, int64) error) {
	s.byID(pattern, item, access, func(w http.ResponseWriter, r *http.Request, id int64) error {
		once := s.idempotent(Route{pattern, access, item}, func(w http.ResponseWriter, r *http.Request) error {
			return h(w, r, id)
		})
		return once(w, r)
	})
}

// titled is the item as the predecessor named it in texts: components, events with their id.
func titled(item, id string) string {
	if item == componentItem || item == eventItem {
		return item + " " + id
	}
	return item
}

// posted registers a POST that honours Idempotency-Key.
func (s *Server) posted(pattern string, access Access, h handler) {
	s.route(pattern, access, s.idempotent(Route{Pattern: pattern, Access: access}, h))
}
