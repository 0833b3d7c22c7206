package api

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/services/manager-api/internal/registry"
)

const eventItem = "SystemEvent"

func (s *Server) registerEvents() {
	s.family("GET /system_events", eventItem, Readers, s.listEvents)
	s.once("POST /system_events", eventItem, Reporters, s.createEvent)
	s.byID("GET /system_events/{id}", eventItem, Readers, s.showEvent)
	s.byID("POST /system_events/{id}/assign", eventItem, Operators, s.assignEvent)
	s.byID("POST /system_events/{id}/dismiss", eventItem, Operators, s.dismissEvent)
}

func eventPath(id int64) string { return "/system_events/" + strconv.FormatInt(id, 10) }

// listEvents shows the last 24 hours; an assignee without lookback all time.
func (s *Server) listEvents(w http.ResponseWriter, r *http.Request) error {
	p, err := partOf(r, eventItem)
	if err != nil {
		return err
	}
	q := registry.EventQuery{Part: p}
	hours := 24
	if r.URL.Query().Get("assignee_id") != "" {
		id, ok := queryInt(r, "assignee_id", 0)
		if !ok {
			return invalidRequest(eventItem)
		}
		assignee := int64(id)
		q.Assignee, hours = &assignee, 0
	}
	var ok bool
	if q.Lookback, ok = queryInt(r, "lookback", hours); !ok {
		return invalidRequest(eventItem)
	}
	return stream(w, func(emit func(registry.EventRow) error) error { return s.Registry.EachEvent(r.Context(), q, emit) })
}

func (s *Server) showEvent(w http.ResponseWriter, r *http.Request, id int64) error {
	row, err := s.Registry.Event(r.Context(), id, callerExchange(r))
	if err != nil {
		return namedEvent(err, id)
	}
	writeJSON(w, http.StatusOK, row)
	return nil
}

func namedEvent(err error, id int64) error {
	return namedError(err, eventItem+" "+strconv.FormatInt(id, 10))
}

func (s *Server) createEvent(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(r)
	if err != nil {
		return err
	}
	spec := registry.EventSpec{Message: f.text("message"), Data: f.json("data"), Type: f.need("type"),
		Severity: f.need("severity"), ExchangeID: ownExchange(r)}
	if err := f.err(eventItem); err != nil {
		return err
	}
	id, err := s.Registry.CreateEvent(r.Context(), spec, f.params["unique"] == true)
	if fault.Is(err, fault.Conflict) {
		return alreadyExists(eventItem)
	}
	if err != nil {
		return err
	}
	// The predecessor named the collection, so that a creator never learned the id.
	answerLocation(w, http.StatusCreated, eventPath(id))
	return nil
}

// unknownUser is the predecessor's 400 without field entries.
func unknownUser(id any) error { return fieldsError(fmt.Sprintf("User %v", id), nil) }

func (s *Server) assignEvent(w http.ResponseWriter, r *http.Request, id int64) error {
	if _, err := s.Registry.Event(r.Context(), id, callerExchange(r)); err != nil {
		return namedEvent(err, id)
	}
	f, err := readForm(r)
	if err != nil {
		return err
	}
	assignee := f.integer("assignee_id")
	if assignee == nil {
		return unknownUser(shownParam(f, "assignee_id"))
	}
	err = s.Registry.AssignEvent(r.Context(), id, *assignee)
	if fault.Is(err, fault.Invalid) {
		return unknownUser(*assignee)
	}
	if err != nil {
		return namedEvent(err, id)
	}
	answerLocation(w, http.StatusNoContent, eventPath(id))
	return nil
}

// shownParam is a field as text, "" where it is missing.
func shownParam(f *form, name string) string {
	if !f.given(name) {
		return ""
	}
	return fmt.Sprint(f.params[name])
}

func (s *Server) dismissEvent(w http.ResponseWriter, r *http.Request, id int64) error {
	if _, err := s.Registry.Event(r.Context(), id, callerExchange(r)); err != nil {
		return namedEvent(err, id)
	}
	f, err := readForm(r)
	if err != nil {
		return err
	}
	by, reason := f.integer("dismissed_by_id"), f.text("dismissed_reason")
	if by == nil && f.given("dismissed_by_id") {
		return unknownUser(shownParam(f, "dismissed_by_id"))
	}
	if err := f.err(eventItem); err != nil {
		return err
	}
	err = s.Registry.DismissEvent(r.Context(), id, by, reason)
	if fault.Is(err, fault.Invalid) {
		return unknownUser(*by)
	}
	if err != nil {
		return namedEvent(err, id)
	}
	answerLocation(w, http.StatusNoContent, eventPath(id))
	return nil
}
