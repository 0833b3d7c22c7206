package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/times"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
	"github.com/openaperture/openaperture/services/manager-api/internal/presence"
	"github.com/openaperture/openaperture/services/manager-api/internal/registry"
	"github.com/openaperture/openaperture/services/manager-api/internal/seal"
)

// Config is what the server needs. Metrics may be nil; without Keys no broker password can be stored or read.
type Config struct {
	DB       *db.DB
	Engine   *engine.Engine
	Presence *presence.Presence
	Registry *registry.Registry
	Tokens   []Token
	Times    times.Times
	Keys     *seal.Ring
	Log      *zap.Logger
	Metrics  prometheus.Registerer
	Version  string
}

// Server answers REST requests. It is safe for concurrent use.
type Server struct {
	Config
	credentials []credential
	mux         *http.ServeMux
	table       []Route
	metrics     *requestMetrics
}

// Route is one line of the role × route table. Item names the thing in the error texts of a predecessor's family; it
// is empty for the new resources, whose errors are problem details.
type Route struct {
	Pattern string
	Access  Access
	Item    string
}

type handler func(http.ResponseWriter, *http.Request) error

// New checks the tokens and registers every route.
func New(cfg Config) (*Server, error) {
	creds, err := credentials(cfg.Tokens)
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	s := &Server{Config: cfg, credentials: creds, mux: http.NewServeMux()}
	if s.metrics, err = newRequestMetrics(cfg.Metrics); err != nil {
		return nil, fmt.Errorf("register request metrics: %w", err)
	}
	s.registerRoutes()
	return s, nil
}

// Routes is the role × route table, for specs and documentation.
func (s *Server) Routes() []Route { return slices.Clone(s.table) }

// route registers a new resource: errors become problem details.
func (s *Server) route(pattern string, access Access, h func(http.ResponseWriter, *http.Request) error) {
	s.register(Route{Pattern: pattern, Access: access}, h)
}

// family registers a route of a predecessor's family: errors take its shapes, with item in their texts.
func (s *Server) family(pattern, item string, access Access, h handler) {
	s.register(Route{Pattern: pattern, Access: access, Item: item}, h)
}

func (s *Server) register(rt Route, h handler) {
	if rt.Access == 0 {
		panic("route " + rt.Pattern + " does not say who may call it")
	}
	s.table = append(s.table, rt)
	s.mux.HandleFunc(rt.Pattern, func(w http.ResponseWriter, r *http.Request) { s.serveRoute(rt, h, w, r) })
}

// ServeHTTP cleans the path in place (a redirect would lose the predecessor's POSTs), answers preflights, and hands
// the request to its route.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r, finish := s.beginRequest(w, r)
	rec := &recorder{ResponseWriter: w}
	defer func() { finish(r, rec) }()
	if answerPreflight(rec, r) {
		return
	}
	cleanPath(r)
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if _, pattern := s.mux.Handler(r); pattern == "" {
		s.unknown(rec, r)
		return
	}
	s.mux.ServeHTTP(rec, r)
}

// serveRoute answers a request by its route. A panic ends the request alone, as an internal error.
func (s *Server) serveRoute(rt Route, h handler, w http.ResponseWriter, r *http.Request) {
	err := loop.Contain(r.Context(), "api", rt.Pattern, func() error { return s.handle(rt, h, w, r) })
	switch {
	case err == nil:
	case errors.Is(err, errCut):
		panic(http.ErrAbortHandler) // as net/http has it
	default:
		s.answerError(rt, w, r, err)
	}
}

// handle authenticates, checks the role and runs the handler; nothing runs after a failed check.
func (s *Server) handle(rt Route, h handler, w http.ResponseWriter, r *http.Request) error {
	if rt.Access&Public == 0 {
		caller, ok := s.authenticate(r)
		if !ok {
			unauthorized(w)
			return nil
		}
		if !rt.Access.Allows(caller.Role) {
			return fault.New(fault.Forbidden, "role %s may not do this", caller.Role).WithCode("forbidden")
		}
		ctx := db.WithActor(r.Context(), db.Actor{Name: caller.Name, RequestID: requestIDOf(r.Context())})
		*r = *r.WithContext(context.WithValue(ctx, callerKey, caller))
	}
	return h(w, r)
}

// unknown answers what no route matches: 401 without a token, 405 for another method of a known path, else 404.
func (s *Server) unknown(w http.ResponseWriter, r *http.Request) {
	if _, ok := s.authenticate(r); !ok {
		unauthorized(w)
		return
	}
	if allowed := s.allowed(r); allowed != "" {
		w.Header().Set("Allow", allowed)
		writeJSON(w, http.StatusMethodNotAllowed, messageBody("Method not allowed"))
		return
	}
	writeJSON(w, http.StatusNotFound, messageBody("Page not found"))
}
