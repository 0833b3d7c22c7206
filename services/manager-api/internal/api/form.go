package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// form reads typed fields from the inputs of a predecessor's family and collects what is wrong with them in its order:
// conversions in the order in which they are asked for, later checks in front.
type form struct {
	params
	wrong []fault.Field
}

// The predecessor's field messages.
const (
	blank   = "can't be blank"
	invalid = "is invalid"
)

// maxText bounds every string; the predecessor's columns were shorter and answered 500.
const maxText = 1024

func (f *form) bad(name, message string) {
	f.wrong = append(f.wrong, fault.Field{Name: name, Message: message})
}

// before puts an error in front, as the predecessor's validators did.
func (f *form) before(name, message string) {
	f.wrong = append([]fault.Field{{Name: name, Message: message}}, f.wrong...)
}

// given reports whether a field is there and not null.
func (f *form) given(name string) bool { return f.params[name] != nil }

// has reports whether a field is there, null included.
func (f *form) has(name string) bool {
	_, ok := f.params[name]
	return ok
}

// text reads an optional string; nil if it is missing, null or wrong.
func (f *form) text(name string) *string {
	switch v := f.params[name].(type) {
	case nil:
		return nil
	case string:
		if strings.ContainsRune(v, 0) {
			f.bad(name, invalid)
			return nil
		}
		if utf8.RuneCountInString(v) > maxText {
			f.bad(name, fmt.Sprintf("should be at most %d characters", maxText))
			return nil
		}
		return &v
	default:
		f.bad(name, invalid)
		return nil
	}
}

// need reads a required string of at least one character. A blank error comes at once, a length error in front.
func (f *form) need(name string) string {
	if !f.given(name) {
		f.bad(name, blank)
		return ""
	}
	v := f.text(name)
	if v == nil {
		return ""
	}
	if *v == "" {
		f.before(name, "should be at least 1 character")
	}
	return *v
}

// integer reads an optional 32-bit integer, also from a string.
func (f *form) integer(name string) *int64 {
	var text string
	switch v := f.params[name].(type) {
	case nil:
		return nil
	case json.Number:
		text = v.String()
	case string:
		text = v
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		f.bad(name, invalid)
		return nil
	}
	return &n
}

// needInteger reads a required integer.
func (f *form) needInteger(name string) int64 {
	if !f.given(name) {
		f.bad(name, blank)
		return 0
	}
	if n := f.integer(name); n != nil {
		return *n
	}
	return 0
}

// boolean reads an optional boolean: true, false, or these words and 1, 0 as strings.
func (f *form) boolean(name string) *bool {
	v := f.params[name]
	if v == nil {
		return nil
	}
	b, ok := asBool(v)
	if !ok {
		f.bad(name, invalid)
		return nil
	}
	return &b
}

func asBool(v any) (value, ok bool) {
	switch v {
	case true, "true", "1":
		return true, true
	case false, "false", "0":
		return false, true
	default:
		return false, false
	}
}

// json reads any JSON value; nil if it is missing or null. The database takes no NUL character.
func (f *form) json(name string) db.JSON {
	v := f.params[name]
	if v == nil {
		return nil
	}
	raw, err := json.Marshal(v)
	if err != nil || bytes.Contains(raw, []byte(`\u0000`)) {
		f.bad(name, invalid)
		return nil
	}
	return raw
}

// object reads a JSON object.
func (f *form) object(name string) db.JSON {
	if _, ok := f.params[name].(map[string]any); f.given(name) && !ok {
		f.bad(name, invalid)
		return nil
	}
	return f.json(name)
}

// instant reads an optional instant.
func (f *form) instant(name string) *db.Stamp {
	v := f.text(name)
	if v == nil {
		return nil
	}
	t, ok := parseInstant(*v)
	if !ok {
		f.bad(name, invalid)
		return nil
	}
	return &db.Stamp{Time: t}
}

// zones are the named zones of RFC 822; another abbreviation would silently be read as UTC.
var zones = map[string]int{"UTC": 0, "GMT": 0, "UT": 0, "Z": 0, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7,
	"MDT": -6, "PST": -8, "PDT": -7}

// parseInstant reads RFC 1123 with a named or numeric zone, which is honoured, or RFC 3339.
func parseInstant(text string) (time.Time, bool) {
	for _, layout := range []string{"Mon, _2 Jan 2006 15:04:05 -0700", time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), true
		}
	}
	clock, zone, ok := cutLast(text)
	hours, known := zones[zone]
	if !ok || !known {
		return time.Time{}, false
	}
	t, err := time.Parse("Mon, _2 Jan 2006 15:04:05", clock)
	return t.Add(-time.Duration(hours) * time.Hour), err == nil
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, ' ')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// readForm reads the inputs of a request.
func readForm(r *http.Request) (*form, error) {
	p, err := readLenient(r)
	if err != nil {
		return nil, err
	}
	return &form{params: p}, nil
}

// err is E2 for the item, or nil if nothing is wrong.
func (f *form) err(item string) error {
	if len(f.wrong) == 0 {
		return nil
	}
	return fieldsError(item, f.wrong)
}

// pathID reads an id of the path. A text that is no positive number of 64 bits names nothing.
func pathID(r *http.Request, name string) (int64, bool) {
	text := r.PathValue(name)
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && n > 0 && strconv.FormatInt(n, 10) == text
}

// queryInt reads the leading integer of a query field, def without one; ok is false if there is none in it.
func queryInt(r *http.Request, name string, def int) (n int, ok bool) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return def, true
	}
	end := 0
	for end < len(text) && (text[end] >= '0' && text[end] <= '9' || (end == 0 && (text[0] == '-' || text[0] == '+'))) {
		end++
	}
	n64, err := strconv.ParseInt(text[:end], 10, 32)
	return int(n64), err == nil
}

// partOf reads what a list is limited to: the caller's exchange, and limit.
func partOf(r *http.Request, item string) (db.Part, error) {
	p := db.Part{Exchange: callerOf(r.Context()).ExchangeID}
	text := r.URL.Query().Get("limit")
	if text == "" {
		return p, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > math.MaxInt32 {
		return p, invalidRequest(item)
	}
	p.Limit = n
	return p, nil
}
