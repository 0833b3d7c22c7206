package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"

	"github.com/openaperture/openaperture/pkg/managerapi"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// manager is manager-api as one overseer sees it: an exchange, one lease, a snapshot that the spec sets, and a list of
// everything that was written, in order.
type manager struct {
	*httptest.Server
	mu       sync.Mutex
	exchange managerapi.Exchange
	away     bool
	lease    managerapi.Lease
	expires  time.Time
	snapshot managerapi.Snapshot
	writes   []string
	beats    []messages.ModuleStatus
	resigned time.Time
	covered  []bool
	onWrite  func(write string) // called under the lock
}

func newManager(name string) *manager {
	m := &manager{exchange: managerapi.Exchange{ID: 7, Name: name, RootExchangeName: name, RoutingKey: name}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /messaging/exchanges/7", func(w http.ResponseWriter, _ *http.Request) { reply(w, m.exchange) })
	mux.HandleFunc("GET /messaging/exchanges/7/snapshot", func(w http.ResponseWriter, _ *http.Request) {
		s := m.snapshot
		s.DatabaseTime, s.Exchange, s.Lease = time.Now(), m.exchange, &m.lease
		reply(w, s)
	})
	mux.HandleFunc("PUT /messaging/exchanges/7/leader", m.lead)
	mux.HandleFunc("DELETE /messaging/exchanges/7/leader", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("term") == fmt.Sprint(m.lease.Term) {
			m.write("resign " + m.lease.Holder)
			m.resigned, m.expires = time.Now(), time.Time{}
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /messaging/exchanges/7/modules/batch", func(w http.ResponseWriter, r *http.Request) {
		var b managerapi.ModuleBatch
		_ = json.NewDecoder(r.Body).Decode(&b)
		m.beats = append(m.beats, b.Modules...)
		reply(w, managerapi.BatchResult{Accepted: len(b.Modules)})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		_ = json.NewDecoder(r.Body).Decode(&body)
		if term, ok := body["term"].(float64); ok && int64(term) != m.lease.Term {
			m.write("stale " + r.URL.Path)
			w.WriteHeader(http.StatusConflict)
			_, _ = w.Write([]byte(`{"code":"stale_term","detail":"another leads"}`))
			return
		}
		m.write(strings.TrimSpace(fmt.Sprint(r.Method, " ", r.URL.Path, " ", body["component_type"])))
		reply(w, struct{}{})
	})
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.away {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	DeferCleanup(m.Close)
	return m
}

func reply(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

func (m *manager) write(text string) {
	m.writes = append(m.writes, text)
	if m.onWrite != nil {
		m.onWrite(text)
	}
}

func (m *manager) lead(w http.ResponseWriter, r *http.Request) {
	var q managerapi.LeaseRequest
	_ = json.NewDecoder(r.Body).Decode(&q)
	free := time.Now().After(m.expires)
	if (q.Term == 0 && !free) || (q.Term != 0 && (free || q.Term != m.lease.Term)) {
		w.WriteHeader(http.StatusConflict)
		return
	}
	if q.Term == 0 {
		m.lease = managerapi.Lease{Holder: q.Holder, Term: m.lease.Term + 1}
		m.covered = nil
		m.write("lead " + q.Holder)
	} else {
		m.covered = append(m.covered, q.Covered)
		m.lease.Covering = q.Covered
	}
	m.expires = time.Now().Add(time.Duration(q.TTLMS) * time.Millisecond)
	reply(w, m.lease)
}

func (m *manager) set(change func()) { m.mu.Lock(); defer m.mu.Unlock(); change() }

func (m *manager) written() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string{}, m.writes...)
}

// leadership is who has led and resigned, in order.
func (m *manager) leadership() string {
	terms := slices.DeleteFunc(m.written(), func(write string) bool {
		return !strings.HasPrefix(write, "lead ") && !strings.HasPrefix(write, "resign ")
	})
	return strings.Join(terms, ", ")
}

func (m *manager) heard() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := map[string]int{}
	for _, b := range m.beats {
		n[b.Hostname+" "+b.Status]++
	}
	return n
}

// coverage is what the leader of this term has said, as changes: "no yes no".
func (m *manager) coverage() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var words []string
	for i, c := range m.covered {
		word := map[bool]string{true: "yes", false: "no"}[c]
		if i == 0 || words[len(words)-1] != word {
			words = append(words, word)
		}
	}
	return strings.Join(words, " ")
}
