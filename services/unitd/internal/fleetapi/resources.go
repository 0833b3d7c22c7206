package fleetapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/services/unitd/internal/host"
)

// The pages are `{}` when there is nothing to list, as Fleet's are.
type machinePage struct {
	Machines      []host.Machine `json:"machines,omitempty"`
	NextPageToken string         `json:"nextPageToken,omitempty"`
}

type unitPage struct {
	NextPageToken string      `json:"nextPageToken,omitempty"`
	Units         []host.Unit `json:"units,omitempty"`
}

type statePage struct {
	NextPageToken string       `json:"nextPageToken,omitempty"`
	States        []host.State `json:"states,omitempty"`
}

func (a *api) handleMachines(w http.ResponseWriter, r *http.Request) {
	page, err := parsePage(r.URL.Query().Get("nextPageToken"))
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	var body machinePage
	body.Machines, body.NextPageToken = pageOf([]host.Machine{a.Host.Machine()}, page)
	writeJSON(w, body)
}

func (a *api) handleUnits(w http.ResponseWriter, r *http.Request) {
	page, err := parsePage(r.URL.Query().Get("nextPageToken"))
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	var body unitPage
	body.Units, body.NextPageToken = pageOf(a.Host.Units(), page)
	writeJSON(w, body)
}

// handleStates answers /state, at once or, with unitName, index and wait, when the
// unit's state has changed since index.
func (a *api) handleStates(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	page, err := parsePage(query.Get("nextPageToken"))
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	name := query.Get("unitName")
	if query.Has("wait") || query.Has("index") {
		if err := a.awaitChange(w, r, name, query.Get("index"), query.Get("wait")); err != nil {
			writeError(w, http.StatusBadRequest, err.Error())
			return
		}
	}
	list, index := a.listStates(name)
	if id := query.Get("machineID"); id != "" && id != a.Host.Machine().ID {
		list = nil
	}
	w.Header().Set(IndexHeader, strconv.FormatUint(index, 10))
	var body statePage
	body.States, body.NextPageToken = pageOf(list, page)
	writeJSON(w, body)
}

func (a *api) listStates(name string) ([]host.State, uint64) {
	if name == "" {
		return a.Host.States()
	}
	state, index, ok := a.Host.State(name)
	if !ok {
		return nil, index
	}
	return []host.State{state}, index
}

func (a *api) awaitChange(w http.ResponseWriter, r *http.Request, name, index, span string) error {
	if name == "" {
		return errors.New("wait and index need unitName")
	}
	seen, err := strconv.ParseUint(index, 10, 64)
	if err != nil {
		return fmt.Errorf("index %q is no number", index)
	}
	limit, err := time.ParseDuration(span)
	if err != nil || limit < 0 {
		return fmt.Errorf("wait %q is no duration such as 20s", span)
	}
	limit = min(limit, maxWait)
	// The read deadline too: when it passes, the server ends the request's
	// context. An error means that the server has no such limit.
	deadline, controller := time.Now().Add(limit+10*time.Second), http.NewResponseController(w)
	_ = controller.SetWriteDeadline(deadline)
	_ = controller.SetReadDeadline(deadline)
	a.Host.Wait(r.Context(), name, seen, limit, a.Stopping)
	return nil
}

func (a *api) handleUnit(w http.ResponseWriter, r *http.Request, name string) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		shown, err := a.Host.Unit(name)
		if err != nil {
			a.writeHostError(w, r, err)
			return
		}
		writeJSON(w, shown)
	case http.MethodPut:
		a.putUnit(w, r, name)
	case http.MethodDelete:
		token, err := tokenOf(r)
		if err == nil {
			err = a.Host.Delete(name, token)
		}
		if err != nil {
			a.writeHostError(w, r, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Allow", "GET, HEAD, PUT, DELETE")
		writeError(w, http.StatusMethodNotAllowed, "only GET, PUT and DELETE supported against this resource")
	}
}

// unitRequest is the body of a PUT; fields that Fleet does not know either are ignored.
type unitRequest struct {
	Name         string            `json:"name"`
	DesiredState host.DesiredState `json:"desiredState"`
	Options      []unit.Option     `json:"options"`
}

func (a *api) putUnit(w http.ResponseWriter, r *http.Request, name string) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		writeError(w, http.StatusUnsupportedMediaType, "only acceptable Content-Type is application/json")
		return
	}
	body, err := decodeUnitRequest(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		writeError(w, http.StatusRequestEntityTooLarge, "body exceeds 1 MiB")
		return
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, "unable to decode body: "+err.Error())
		return
	}
	if body.Name != "" && body.Name != name {
		writeError(w, http.StatusBadRequest, fmt.Sprintf("name in URL %q differs from unit name in request body %q", name,
			body.Name))
		return
	}
	token, err := tokenOf(r)
	if err != nil {
		a.writeHostError(w, r, err)
		return
	}
	created, err := a.Host.Put(r.Context(), name,
		host.Change{Options: body.Options, DesiredState: body.DesiredState, Token: token})
	switch {
	case err != nil:
		a.writeHostError(w, r, err)
	case created:
		w.WriteHeader(http.StatusCreated)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// decodeUnitRequest reads exactly one JSON value.
func decodeUnitRequest(from io.Reader) (unitRequest, error) {
	var body unitRequest
	decoder := json.NewDecoder(from)
	if err := decoder.Decode(&body); err != nil {
		return body, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("more than one JSON value")
		}
		return body, err
	}
	return body, nil
}

// tokenOf reads the fencing token, nil where none is sent.
func tokenOf(r *http.Request) (*int64, error) {
	text := r.Header.Get(TokenHeader)
	if text == "" {
		return nil, nil
	}
	token, err := strconv.ParseInt(text, 10, 64)
	if err != nil || token < 0 {
		return nil, host.Invalid{Err: fmt.Errorf("%s %q is no positive number", TokenHeader, text)}
	}
	return &token, nil
}

// handleLogs answers the last lines of a unit's output as plain text.
func (a *api) handleLogs(w http.ResponseWriter, r *http.Request, name string) {
	lines := 200
	if text := r.URL.Query().Get("lines"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			writeError(w, http.StatusBadRequest, fmt.Sprintf("lines %q is no positive number", text))
			return
		}
		lines = min(n, maxLogLines)
	}
	text, err := a.Host.Logs(r.Context(), name, lines, maxLogBytes)
	if err != nil {
		a.writeHostError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = io.WriteString(w, text) // a client that hung up is no news
}
