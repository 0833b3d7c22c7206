package api

import (
	"net/http"

	"github.com/google/uuid"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
)

// maxPage is the largest page of a new resource, and defaultPage what a request without limit gets.
const (
	maxPage     = 200
	defaultPage = 50
)

// registerUpgradeRoutes registers the new resources.
func registerUpgradeRoutes(s *Server) {
	s.posted("POST /upgrades", Operators|forService, s.requestUpgrade)
	s.route("GET /upgrades", Readers, s.listUpgrades)
	s.route("GET /upgrades/{id}", Readers, s.showUpgrade)
	s.route("POST /upgrades/{id}/start", Services, s.startUpgrade)
	s.route("POST /upgrades/{id}/refuse", Services, s.refuseUpgrade)
	s.route("POST /upgrades/{id}/proven", Services, s.proveUpgrade)
	s.posted("POST /upgrades/{id}/cancel", Operators, s.cancelUpgrade)
	s.posted("POST /system_components/{id}/rollback", Operators, s.rollbackComponent)
	s.route("PUT /system_components/{id}/check", Services, s.checkComponent)
	s.route("GET /system_components/{id}/releases", Readers, s.listReleases)
	s.posted("POST /system_components/{id}/releases", Operators, s.adoptRelease)

	s.route("POST /orders/{id}/claim", Services, s.claimOrder)
	s.route("POST /orders/{id}/renew", Services, s.renewClaim)
	s.route("POST /orders/{id}/release", Services, s.releaseClaim)
	s.route("GET /orders/{id}", Readers, s.showOrder)
	s.route("GET /orders", Services, s.listClaims)

	s.route("GET /messaging/exchanges/{id}/leader", Readers, s.showLeader)
	s.route("PUT /messaging/exchanges/{id}/leader", Services, s.lead)
	s.route("DELETE /messaging/exchanges/{id}/leader", Services, s.resign)
	s.route("GET /messaging/exchanges/{id}/snapshot", Readers, s.showSnapshot)
	s.route("POST /messaging/exchanges/{id}/modules/batch", Services, s.beatBatch)
	s.route("POST /messaging/exchanges/{id}/modules/expire", Services, s.expireModules)
	s.route("DELETE /messaging/exchanges/{id}/deletion_hold", Operators, s.releaseHold)

	s.route("GET /quarantines", Readers, s.listQuarantines)
	s.route("DELETE /quarantines/{id}", Operators, s.clearQuarantine)
	s.route("GET /events", Readers, s.journalForReaders)
	s.route("GET /audit", Operators, s.journalWithActors)
}

// posted registers a POST that honours Idempotency-Key.
func (s *Server) posted(pattern string, access Access, h handler) {
	s.route(pattern, access, s.idempotent(Route{Pattern: pattern, Access: access}, h))
}

// pathUUID is the id of a new resource; another form of it does not exist.
func pathUUID(r *http.Request) (string, error) {
	id, err := uuid.Parse(r.PathValue("id"))
	if err != nil {
		return "", fault.New(fault.NotFound, "there is no %q", r.PathValue("id"))
	}
	return id.String(), nil
}

// pathExchange is the exchange that the path names, if the caller may know about it.
func pathExchange(r *http.Request) (component.ExchangeID, error) {
	id, ok := pathID(r, "id")
	if !ok {
		return 0, fault.New(fault.NotFound, "there is no such exchange")
	}
	return component.ExchangeID(id), inScope(r.Context(), component.ExchangeID(id))
}

func pathComponent(r *http.Request) (component.ID, error) {
	id, ok := pathID(r, "id")
	if !ok {
		return 0, fault.New(fault.NotFound, "there is no such component")
	}
	return component.ID(id), nil
}

// bound is the exchange that the caller is bound to, 0 for none.
func bound(r *http.Request) component.ExchangeID { return callerOf(r.Context()).ExchangeID }

// ownExchange is the exchange of what the caller makes: the one that it is bound to, nil for none.
func ownExchange(r *http.Request) *component.ExchangeID {
	if ex := bound(r); ex != 0 {
		return &ex
	}
	return nil
}

// queryID reads a positive number of the query, 0 without one.
func queryID(r *http.Request, name string) (int64, error) {
	if r.URL.Query().Get(name) == "" {
		return 0, nil
	}
	n, ok := queryInt(r, name, 0)
	if !ok || n < 0 {
		return 0, fault.New(fault.Invalid, "%s must be a positive number", name)
	}
	return int64(n), nil
}

// pageOf reads limit, which is clamped to 1…200, and cursor, the id of the last item of the page before.
func pageOf(r *http.Request) (cursor string, limit int, err error) {
	limit, ok := queryInt(r, "limit", defaultPage)
	if !ok {
		return "", 0, fault.New(fault.Invalid, "limit must be a number")
	}
	limit = min(max(limit, 1), maxPage)
	cursor = r.URL.Query().Get("cursor")
	if cursor == "" {
		return "", limit, nil
	}
	id, err := uuid.Parse(cursor)
	if err != nil {
		return "", 0, fault.New(fault.Invalid, "cursor is not one of ours")
	}
	return id.String(), limit, nil
}

// paged answers with a page; a full one carries the cursor of its last item.
func paged[T any](w http.ResponseWriter, items []T, limit int, id func(T) string) error {
	page := managerapi.Page[T]{Items: items}
	if page.Items == nil {
		page.Items = []T{}
	}
	if len(items) == limit {
		page.Next = id(items[len(items)-1])
	}
	writeJSON(w, http.StatusOK, page)
	return nil
}
