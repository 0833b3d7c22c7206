package api

import (
	"context"
	"net/http"
	"strconv"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// judge writes a judgement of the overseer about one upgrade of its exchange.
func judge(w http.ResponseWriter, r *http.Request, write func(context.Context, upgrade.ID, component.ExchangeID,
	managerapi.Judgement) error) error {
	id, err := pathUUID(r)
	if err != nil {
		return err
	}
	var in managerapi.Judgement
	if err := readStrict(r, &in); err != nil {
		return err
	}
	if err := write(r.Context(), upgrade.ID(id), bound(r), in); err != nil {
		return err
	}
	noContent(w, http.StatusNoContent)
	return nil
}

func (s *Server) showLeader(w http.ResponseWriter, r *http.Request) error {
	ex, err := pathExchange(r)
	if err != nil {
		return err
	}
	l, err := s.Presence.Leader(r.Context(), ex)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, l)
	return nil
}

func (s *Server) lead(w http.ResponseWriter, r *http.Request) error {
	ex, err := pathExchange(r)
	if err != nil {
		return err
	}
	var in managerapi.LeaseRequest
	if err := readStrict(r, &in); err != nil {
		return err
	}
	l, err := s.Presence.Lead(r.Context(), ex, in)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, l)
	return nil
}

func (s *Server) resign(w http.ResponseWriter, r *http.Request) error {
	ex, err := pathExchange(r)
	if err != nil {
		return err
	}
	term, err := strconv.ParseInt(r.URL.Query().Get("term"), 10, 64)
	if err != nil {
		return fault.New(fault.Invalid, "term must be a number")
	}
	if err := s.Presence.Resign(r.Context(), ex, term); err != nil {
		return err
	}
	noContent(w, http.StatusNoContent)
	return nil
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

// maxBatch bounds the heartbeats of one request.
const maxBatch = 5000

// beatBatch stores coalesced heartbeats. One that is not valid is left out: it must not hold up the others.
func (s *Server) beatBatch(w http.ResponseWriter, r *http.Request) error {
	ex, err := pathExchange(r)
	if err != nil {
		return err
	}
	var in managerapi.ModuleBatch
	if err := readMessages(r, &in); err != nil {
		return err
	}
	if len(in.Modules) > maxBatch {
		return fault.New(fault.TooLarge, "a batch holds at most %d heartbeats", maxBatch)
	}
	valid := in.Modules[:0]
	for _, m := range in.Modules {
		if m.Validate() == nil {
			valid = append(valid, m)
		}
	}
	n, err := s.Presence.Beat(r.Context(), ex, valid)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, managerapi.BatchResult{Accepted: n})
	return nil
}

func (s *Server) expireModules(w http.ResponseWriter, r *http.Request) error {
	ex, err := pathExchange(r)
	if err != nil {
		return err
	}
	var in managerapi.Expiry
	if err := readStrict(r, &in); err != nil {
		return err
	}
	out, err := s.Presence.Expire(r.Context(), ex, in)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

func (s *Server) releaseHold(w http.ResponseWriter, r *http.Request) error {
	ex, err := pathExchange(r)
	if err != nil {
		return err
	}
	if err := s.Presence.ReleaseHold(r.Context(), ex); err != nil {
		return err
	}
	noContent(w, http.StatusNoContent)
	return nil
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
	if ex := bound(r); ex != 0 {
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
