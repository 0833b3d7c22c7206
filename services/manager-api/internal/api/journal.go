package api

import (
	"net/http"
	"strconv"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// registerJournal registers the two views of one journal: /audit names who did it, /events does not.
func (s *Server) registerJournal() {
	s.route("GET /events", Readers, s.journalForReaders)
	s.route("GET /audit", Operators, s.journalWithActors)
}

// journalWithActors is what happened and who did it.
func (s *Server) journalWithActors(w http.ResponseWriter, r *http.Request) error {
	return s.listJournal(w, r, db.JournalQuery{Actor: r.URL.Query().Get("actor")}, nil)
}

// journalForReaders is what happened, for everybody who may read, without who did it.
func (s *Server) journalForReaders(w http.ResponseWriter, r *http.Request) error {
	return s.listJournal(w, r, db.JournalQuery{}, func(e *managerapi.JournalEntry) { e.Actor = "" })
}

// listJournal shows the journal, which says who did what. after=<seq> reads on, oldest first; else the newest come
// first and cursor leads back. A caller that is bound to an exchange sees that exchange's subject only.
func (s *Server) listJournal(w http.ResponseWriter, r *http.Request, q db.JournalQuery,
	hide func(*managerapi.JournalEntry)) error {
	limit, ok := queryInt(r, "limit", defaultPage)
	if !ok {
		return fault.New(fault.Invalid, "limit must be a number")
	}
	limit = min(max(limit, 1), maxPage)
	before, err := queryID(r, "cursor")
	if err != nil {
		return err
	}
	after, err := queryID(r, "after")
	if err != nil {
		return err
	}
	q.Subject, q.Before, q.After, q.Limit = r.URL.Query().Get("subject"), before, after, limit
	if ex := callerExchange(r); ex != 0 {
		q.Subject = "exchange/" + strconv.FormatInt(int64(ex), 10)
	}
	list, err := s.DB.Journal(r.Context(), q)
	if err != nil {
		return err
	}
	if hide != nil {
		for i := range list {
			hide(&list[i])
		}
	}
	return paged(w, list, limit, func(e managerapi.JournalEntry) string { return strconv.FormatInt(e.Seq, 10) })
}
