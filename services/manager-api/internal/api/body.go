package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/openaperture/openaperture/pkg/fault"
)

// codeMalformed is the code of a body that is no JSON.
const codeMalformed = "malformed_body"

// readStrict reads the JSON body of a new resource: one object with known fields, valid UTF-8, no key twice. An empty
// body reads as {}. Anything else is Invalid (400); more than 1 MiB is TooLarge (413).
func readStrict(r *http.Request, v any) error {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	if kind := r.Header.Get("Content-Type"); len(raw) > 0 && kind != "" && !isJSON(kind) {
		return malformed("the body must be application/json")
	}
	if !utf8.Valid(raw) {
		return malformed("the body is not valid UTF-8")
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil
	}
	if err := wellFormed(raw); err != nil {
		return malformed("malformed JSON: %v", err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return malformed("%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// readMessages reads what carries messages of modules: once, as there may be thousands a second, and ignoring unknown
// fields, as every receiver of messages does, so that a newer overseer may pass on what a newer module says.
func readMessages(r *http.Request, v any) error {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return malformed("%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
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
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
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
	if err := wellFormed(raw); err != nil {
		return malformed("malformed JSON: %v", err)
	}
	var body any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&body); err != nil {
		return malformed("malformed JSON: %v", err)
	}
	fields, _ := body.(map[string]any) // a top-level array or scalar is ignored, as it was
	for key, v := range fields {
		p[key] = v
	}
	return nil
}

func (p params) addMultipart(raw []byte, boundary string) error {
	if boundary == "" {
		return malformed("malformed multipart body")
	}
	req := http.Request{Method: http.MethodPost, Body: io.NopCloser(bytes.NewReader(raw)),
		Header: http.Header{"Content-Type": {mime.FormatMediaType("multipart/form-data", map[string]string{"boundary": boundary})}}}
	if err := req.ParseMultipartForm(maxBody); err != nil {
		return malformed("malformed multipart body")
	}
	defer func() { _ = req.MultipartForm.RemoveAll() }()
	p.addValues(req.MultipartForm.Value)
	return nil
}

var (
	errTwice    = errors.New("a key stands twice")
	errTrailing = errors.New("something follows the value")
)

// wellFormed checks that raw is exactly one JSON value in which no object has a key twice.
func wellFormed(raw []byte) error {
	if !json.Valid(raw) {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			return err
		}
		return errTrailing
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return uniqueKeys(d)
}

// uniqueKeys walks valid JSON without recursion: one set of keys per open object, nil for an array.
func uniqueKeys(d *json.Decoder) error {
	var open []*objectKeys
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		top := len(open) - 1
		if delim, ok := token.(json.Delim); ok && (delim == '}' || delim == ']') {
			open = open[:top]
			continue
		}
		if top >= 0 && !open[top].take(token) {
			return errTwice
		}
		switch token {
		case json.Delim('{'):
			open = append(open, &objectKeys{seen: map[string]bool{}})
		case json.Delim('['):
			open = append(open, &objectKeys{})
		}
	}
}

// objectKeys follows one object: its tokens alternate between key and value.
type objectKeys struct {
	seen  map[string]bool // nil for an array
	value bool            // the next token is a value
}

// take reports whether the token is no key that was there before.
func (o *objectKeys) take(token json.Token) bool {
	if o.seen == nil {
		return true
	}
	if o.value {
		o.value = false
		return true
	}
	key, _ := token.(string)
	if o.seen[key] {
		return false
	}
	o.seen[key], o.value = true, true
	return true
}
