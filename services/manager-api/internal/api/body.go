package api

import (
	"bytes"
	v1 "encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json" // encoding/json/v2
	"github.com/go-json-experiment/json/jsontext"

	"github.com/openaperture/openaperture/pkg/fault"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// codeMalformed is the code of a body that is no JSON.
const codeMalformed = "malformed_body"

// readBody reads it all, into one buffer if its length was announced. More than 1 MiB is TooLarge (413).
func readBody(r *http.Request) ([]byte, error) {
	var body bytes.Buffer
	body.Grow(int(min(max(r.ContentLength, 0), maxBody)) + bytes.MinRead)
	if _, err := body.ReadFrom(r.Body); err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	return body.Bytes(), nil
}

// readStrict reads the JSON body of a new resource: one object with known fields, valid UTF-8, no key twice. An empty
// body and null read as {}. Anything else is Invalid (400).
func readStrict(r *http.Request, v any) error {
	raw, err := readBody(r)
	if err != nil {
		return err
	}
	if kind := r.Header.Get("Content-Type"); len(raw) > 0 && kind != "" && !isJSON(kind) {
		return malformed("the body must be application/json")
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil
	}
	return unreadable(json.Unmarshal(raw, v, json.RejectUnknownMembers(true)))
}

// readMessages reads what carries messages of modules: as tolerantly as every receiver of messages does, so that a
// newer overseer may pass on what a newer module says.
func readMessages(r *http.Request, v any) error {
	raw, err := readBody(r)
	if err != nil {
		return err
	}
	return unreadable(messages.Unmarshal(raw, v))
}

// unreadable says what is wrong with a body, in words that do not depend on how it is read. The value is not quoted.
func unreadable(err error) error {
	var semantic *json.SemanticError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &semantic):
		return malformed("malformed JSON: %s", strings.TrimPrefix(err.Error(), "jsontext: "))
	case errors.Is(err, json.ErrUnknownName):
		return malformed("unknown field %s", semantic.JSONPointer)
	case semantic.JSONPointer == "":
		return malformed("the body must be a JSON object")
	default:
		return malformed("field %s does not take this JSON %s", semantic.JSONPointer, semantic.JSONKind)
	}
}

func malformed(format string, args ...any) error {
	return fault.New(fault.Invalid, format, args...).WithCode(codeMalformed)
}

// params are the inputs of a predecessor's family: query and body merged, the body wins. Nothing in them can override
// the path.
type params map[string]any

// readLenient reads what the predecessor accepted: JSON or form bodies, Latin-1 where the bytes are no valid UTF-8,
// query fields as body fields, any other content type as no fields at all. Malformed JSON is 400.
func readLenient(r *http.Request) (params, error) {
	p := params{}
	p.addValues(r.URL.Query())
	raw, err := readBody(r)
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return p, nil
	}
	kind, options, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case kind == "" || isJSON(kind):
		return p, p.addJSON(utf8From(raw))
	case kind == "application/x-www-form-urlencoded":
		form, err := url.ParseQuery(string(raw))
		if err != nil {
			return nil, malformed("malformed form")
		}
		p.addValues(form)
	case strings.HasPrefix(kind, "multipart/"):
		return p, p.addMultipart(raw, options["boundary"])
	}
	return p, nil
}

func isJSON(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json"))
}

// utf8From returns raw if it is UTF-8; else every byte is a Latin-1 character, as Erlang's httpc sends text.
func utf8From(raw []byte) []byte {
	if utf8.Valid(raw) {
		return raw
	}
	out := make([]rune, len(raw))
	for i, b := range raw {
		out[i] = rune(b)
	}
	return []byte(string(out))
}

func (p params) addValues(values url.Values) {
	for key, all := range values {
		p[key] = string(utf8From([]byte(all[len(all)-1])))
	}
}

func (p params) addJSON(raw []byte) error {
	var body jsontext.Value // one value, with no key twice
	if err := json.Unmarshal(raw, &body); err != nil || body.Kind() != '{' {
		return unreadable(err) // a top-level array or scalar is ignored, as it was
	}
	var fields map[string]any
	d := v1.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&fields); err != nil {
		return unreadable(err)
	}
	maps.Copy(p, fields)
	return nil
}

func (p params) addMultipart(raw []byte, boundary string) error {
	if boundary == "" {
		return malformed("malformed multipart body")
	}
	req := http.Request{Method: http.MethodPost, Body: io.NopCloser(bytes.NewReader(raw)),
		Header: http.Header{"Content-Type": {mime.FormatMediaType("multipart/form-data",
			map[string]string{"boundary": boundary})}}}
	if err := req.ParseMultipartForm(maxBody); err != nil {
		return malformed("malformed multipart body")
	}
	defer func() { _ = req.MultipartForm.RemoveAll() }()
	p.addValues(req.MultipartForm.Value)
	return nil
}
