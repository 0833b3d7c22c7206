// Package fleetapi answers the Fleet HTTP API v1 for one host, in Fleet's
// words (recorded from a real fleet), and what OpenAperture adds to it: tokens
// that fence changes, waiting for a change of state, logs.
package fleetapi

import (
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/services/unitd/internal/host"
)

// Headers of ours.
const (
	TokenHeader = "X-OpenAperture-Token" // on PUT and DELETE: the caller's fencing token
	IndexHeader = "X-OpenAperture-Index" // in answers of /state: to be sent back as index=
)

const (
	base    = "/fleet/v1/"
	logBase = "/openaperture/v1/units/"

	maxBody     = 1 << 20
	maxWait     = 60 * time.Second
	maxLogLines = 10_000
	maxLogBytes = 256 << 10
)

//go:embed discovery.json
var discovery []byte

// Config is what the API needs.
type Config struct {
	Host     *host.Host
	Token    string // bearer token that every request needs, "": none
	Version  string
	Log      *zap.Logger
	Stopping <-chan struct{} // closed when waiting requests must end
}

type api struct {
	Config
	want [sha256.Size]byte
}

// New returns the handler of everything but health and metrics.
func New(c Config) http.Handler {
	return &api{Config: c, want: sha256.Sum256([]byte(c.Token))}
}

// ServeHTTP answers a request. One that panics is answered 500.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := loop.Contain(r.Context(), "api", r.Method+" "+r.URL.Path, func() error {
		a.dispatch(w, r)
		return nil
	})
	if err != nil {
		a.writeHostError(w, r, err)
	}
}

// dispatch finds the handler by hand. The standard mux would redirect, and would
// answer wrong methods in words that are not Fleet's.
func (a *api) dispatch(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "unitd/"+a.Version)
	if !a.tokenMatches(r) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		writeError(w, http.StatusUnauthorized, "Unauthorized")
		return
	}
	path := r.URL.Path
	name, isUnit := strings.CutPrefix(path, base+"units/")
	logName, isLog := strings.CutPrefix(path, logBase)
	logName, isLog = cutSuffix(logName, "/logs", isLog)
	switch {
	case path == base+"discovery":
		a.answerGet(w, r, func() { writeBody(w, discovery) })
	case path == base+"machines":
		a.answerGet(w, r, func() { a.handleMachines(w, r) })
	case path == base+"units":
		a.answerGet(w, r, func() { a.handleUnits(w, r) })
	case path == base+"state":
		a.answerGet(w, r, func() { a.handleStates(w, r) })
	case isLog:
		a.answerGet(w, r, func() { a.handleLogs(w, r, logName) })
	case isUnit && name != "" && !strings.Contains(name, "/"):
		a.handleUnit(w, r, name)
	case path == "/":
		writeError(w, http.StatusMethodNotAllowed, "")
	default:
		writeError(w, http.StatusNotFound, "")
	}
}

func cutSuffix(text, suffix string, matched bool) (string, bool) {
	if !matched {
		return "", false
	}
	name, ok := strings.CutSuffix(text, suffix)
	return name, ok && name != "" && !strings.Contains(name, "/")
}

// tokenMatches compares tokens in constant time.
func (a *api) tokenMatches(r *http.Request) bool {
	if a.Token == "" {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], a.want[:]) == 1
}

func (a *api) answerGet(w http.ResponseWriter, r *http.Request, answer func()) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		writeError(w, http.StatusMethodNotAllowed, "only GET supported against this resource")
		return
	}
	answer()
}

// errorBody is Fleet's error shape.
type errorBody struct {
	Error errorDetail `json:"error"`
}

type errorDetail struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func writeError(w http.ResponseWriter, code int, message string) {
	text, err := json.Marshal(errorBody{errorDetail{code, message}})
	if err != nil {
		text = []byte("{}") // two plain fields: cannot be
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(code)
	_, _ = w.Write(text) // a client that hung up is no news
}

func writeJSON(w http.ResponseWriter, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		writeError(w, http.StatusInternalServerError, "")
		return
	}
	writeBody(w, text)
}

func writeBody(w http.ResponseWriter, text []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text) // a client that hung up is no news
}

// writeHostError maps the host's errors to answers. Any other error is a fault
// of this host: it is logged, and only told to the caller if the host lacks space.
func (a *api) writeHostError(w http.ResponseWriter, r *http.Request, err error) {
	var invalid host.Invalid
	var superseded host.Superseded
	switch {
	case errors.As(err, &invalid):
		writeError(w, http.StatusBadRequest, err.Error())
	case errors.As(err, &superseded), errors.Is(err, host.ErrForeign), errors.Is(err, host.ErrNoOptions),
		errors.Is(err, host.ErrNoDesired):
		writeError(w, http.StatusConflict, err.Error())
	case errors.Is(err, host.ErrUnknown):
		writeError(w, http.StatusNotFound, err.Error())
	case errors.Is(err, host.ErrNotStored):
		a.Log.Error("request failed", zap.String("method", r.Method), zap.String("path", r.URL.Path), zap.Error(err))
		writeError(w, http.StatusInternalServerError, err.Error())
	default:
		a.Log.Error("request failed", zap.String("method", r.Method), zap.String("path", r.URL.Path), zap.Error(err))
		writeError(w, http.StatusInternalServerError, "")
	}
}
