package api

import (
	"net/http"

	"github.com/google/uuid"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
)

// maxPage is the largest page of a new resource, and defaultPage what a request without limit gets.
const (
	maxPage     = 200
	defaultPage = 50
)

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
