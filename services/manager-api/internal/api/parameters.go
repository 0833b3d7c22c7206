package api

import (
	"net/http"

	"github.com/google/uuid"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
)

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

// callerExchange is the exchange that the caller is bound to, 0 for none.
func callerExchange(r *http.Request) component.ExchangeID { return callerOf(r.Context()).ExchangeID }

// ownExchange is the exchange of what the caller makes: the one that it is bound to, nil for none.
func ownExchange(r *http.Request) *component.ExchangeID {
	if ex := callerExchange(r); ex != 0 {
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

// exchangeFilter is the exchange that the query names, narrowed to the caller's own.
func exchangeFilter(r *http.Request) (component.ExchangeID, error) {
	n, err := queryID(r, "messaging_exchange_id")
	ex := component.ExchangeID(n)
	if err != nil || ex == 0 {
		return callerExchange(r), err
	}
	return ex, inScope(r.Context(), ex)
}
