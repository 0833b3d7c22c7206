package api

import (
	"encoding/json"
	"errors"
	"net/http"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/postgres"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// answer is an error that knows its whole answer: the predecessor's families have shapes that follow from no rule.
type answer struct {
	status int
	body   any  // nil: empty body
	plain  bool // body is text without a content type (E6)
}

func (a *answer) Error() string { return http.StatusText(a.status) }

// message is one entry of the predecessor's {"errors":[…]}.
type message map[string]string

type errorList struct {
	Errors []message `json:"errors"`
}

func messageBody(text string) errorList { return errorList{[]message{{"message": text}}} }

// messageError is {"errors":[{"message":…}]}.
func messageError(status int, text string) error {
	return &answer{status: status, body: messageBody(text)}
}

// fieldsError lists the fields that are wrong: one object per error, a field may repeat.
func fieldsError(item string, fields []fault.Field) error { return invalidFields(item, fields) }

func invalidFields(item string, fields []fault.Field) *answer {
	list := messageBody("One or more fields for " + item + " were invalid")
	for _, f := range fields {
		list.Errors = append(list.Errors, message{f.Name: f.Message})
	}
	return &answer{status: http.StatusBadRequest, body: list}
}

// flatFieldsError is a flat map of fields; a repeated field becomes an array.
func flatFieldsError(fields []fault.Field) error {
	flat := map[string]any{}
	for _, f := range fields {
		switch old := flat[f.Name].(type) {
		case nil:
			flat[f.Name] = f.Message
		case string:
			flat[f.Name] = []string{old, f.Message}
		case []string:
			flat[f.Name] = append(old, f.Message)
		}
	}
	return &answer{status: http.StatusBadRequest, body: flat}
}

// emptyError is a status with an empty body.
func emptyError(status int) error { return &answer{status: status} }

// textError is plain text.
func textError(status int, text string) error {
	return &answer{status: status, body: text, plain: true}
}

// notFound, exists and invalidRequest are the predecessor's sentences about an item.
func notFound(item string) error { return messageError(http.StatusNotFound, item+" was not found") }
func alreadyExists(item string) error {
	return messageError(http.StatusConflict, "A "+item+" already exists with that identifier")
}
func invalidRequest(item string) error {
	return messageError(http.StatusBadRequest, "An invalid request was made for "+item)
}

func (a *answer) write(w http.ResponseWriter) {
	switch {
	case a.body == nil:
		noContent(w, a.status)
	case a.plain:
		w.Header()["Content-Type"] = nil // the predecessor sends none
		w.WriteHeader(a.status)
		_, _ = w.Write([]byte(a.body.(string)))
	default:
		writeJSON(w, a.status, a.body)
	}
}

// writeJSON answers with a JSON body.
func writeJSON(w http.ResponseWriter, status int, body any) {
	raw, err := json.Marshal(body)
	if err != nil { // only a value of ours can fail to encode
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "max-age=0, private, must-revalidate")
	w.WriteHeader(status)
	_, _ = w.Write(raw) // a client that hung up is no news
}

func noContent(w http.ResponseWriter, status int) {
	w.Header()["Content-Type"] = nil
	w.Header().Set("Cache-Control", "max-age=0, private, must-revalidate")
	w.WriteHeader(status)
}

// answerLocation answers without a body and with a Location, which is a bare path.
func answerLocation(w http.ResponseWriter, status int, location string) {
	w.Header().Set("Location", location)
	noContent(w, status)
}

// unauthorized is the one 401 of all routes.
func unauthorized(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", "Bearer")
	(&answer{status: http.StatusUnauthorized, body: "Unauthorized", plain: true}).write(w)
}

// answerError turns an error into the answer of its route's style. Only what is internal is logged: the rest is the
// client's.
func (s *Server) answerError(rt Route, w http.ResponseWriter, r *http.Request, err error) {
	var whole *answer
	if errors.As(err, &whole) {
		whole.write(w)
		return
	}
	err = tooLarge(err)
	if kind := fault.KindOf(err); kind == fault.Internal || (kind == fault.Unavailable && r.Context().Err() == nil) {
		fields := append(boot.TraceFields(r.Context()), zap.String("route", rt.Pattern),
			zap.String("request_id", requestIDOf(r.Context())), zap.Error(err))
		s.Log.Error("request did not succeed", fields...)
	}
	if rt.Item == "" {
		answerProblem(w, r, err)
		return
	}
	familyError(rt.Item, err).write(w)
}

// tooLarge gives the error of http.MaxBytesReader its kind.
func tooLarge(err error) error {
	var limit *http.MaxBytesError
	if errors.As(err, &limit) {
		return fault.New(fault.TooLarge, "the body is larger than %d bytes", limit.Limit).WithCode("too_large")
	}
	return err
}

// familyError is E1 or E2 by the error's kind.
func familyError(item string, err error) *answer {
	view := fault.Public(err)
	status := statusOf(view)
	text := view.Message
	switch view.Kind {
	case fault.NotFound:
		text = item + " was not found"
	case fault.Invalid:
		if len(view.Fields) > 0 {
			return invalidFields(item, view.Fields)
		}
	case fault.Internal:
		text = "An unexpected error occurred with " + item
	case fault.Conflict, fault.Unauthorized, fault.Forbidden, fault.TooLarge, fault.Unavailable:
	}
	return &answer{status: status, body: messageBody(text)}
}

// statusOf is the status of a kind, but for the two codes that HTTP has statuses of their own for.
func statusOf(view fault.View) int {
	switch view.Code {
	case codePrecondition:
		return http.StatusPreconditionFailed
	case codeKeyReused:
		return http.StatusUnprocessableEntity
	default:
		return fault.HTTPStatus(view.Kind)
	}
}

// answerProblem answers with RFC 9457 problem details.
func answerProblem(w http.ResponseWriter, _ *http.Request, err error) {
	view := fault.Public(err)
	status := statusOf(view)
	body := struct {
		managerapi.Problem
		Errors []fault.Field `json:"errors,omitempty"`
	}{managerapi.Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: view.Message,
		Code: view.Code}, view.Fields}
	if body.Code == "" {
		body.Code = view.Kind.String()
	}
	raw, err := json.Marshal(body)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(raw)
}

// namedError gives the two failures that name their item its name: not found, and a duplicate. Others stay as they are.
func namedError(err error, item string) error {
	var use *db.InUse
	switch {
	case errors.As(err, &use):
		return inUse(use)
	case fault.Is(err, fault.NotFound):
		return notFound(item)
	case fault.CodeOf(err) == postgres.CodeDuplicate:
		return alreadyExists(item)
	default:
		return err
	}
}

// inUse is 409 in E1 with the list of what stands in the way.
func inUse(use *db.InUse) error {
	return &answer{status: http.StatusConflict, body: struct {
		errorList
		DependsOn []db.Use `json:"in_use_by"`
	}{messageBody(use.Error()), use.Uses}}
}
