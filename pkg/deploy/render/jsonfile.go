package render

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/openaperture/openaperture/pkg/deploy/failure"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// The JSON files of a deployment repository: etcd.json, fleet.json, source.json and docker.json. People write these
// files by hand, so an error names the file, the line and the field, and says what is expected there.

const (
	maxDepth     = 100 // of nested values
	maxInstances = 1000
)

// jsonFile is a JSON file of the tree, read as one object.
type jsonFile struct {
	name   string
	exists bool
	fields []jsonField
}

// jsonField is a field of the object. Its value is a string, a json.Number, a bool, nil or a nested value, of which
// only the form was checked.
type jsonField struct {
	name  string
	line  int
	value any
}

// nested is a list or an object inside of the file.
type nested string

// readJSONFile reads a file of the tree. A file that is absent has no fields.
func readJSONFile(t tree, name string) (jsonFile, error) {
	text, ok := t.files[name]
	f := jsonFile{name: name, exists: ok}
	if !ok {
		return f, nil
	}
	p := jsonParser{file: name, text: text, line: 1}
	var err error
	f.fields, err = p.parse()
	return f, err
}

// field finds a field by its name, whatever the case of its letters. The last field of a name counts. A field that is
// null counts as absent.
func (f jsonFile) field(name string) (jsonField, bool) {
	for i := len(f.fields) - 1; i >= 0; i-- {
		if strings.EqualFold(f.fields[i].name, name) {
			return f.fields[i], f.fields[i].value != nil
		}
	}
	return jsonField{}, false
}

// text is a field that is a string, "" if it is absent. example is a value for people to see.
func (f jsonFile) text(name, example string) (string, error) {
	field, ok := f.field(name)
	if !ok {
		return "", nil
	}
	if s, ok := field.value.(string); ok {
		return s, nil
	}
	return "", f.wrong(field, "a string such as "+strconv.Quote(example))
}

// token is the cluster's token, which every deployment repository has.
func (f jsonFile) token() (string, error) {
	const want = `the cluster's token: 1 to 255 characters of ASCII without spaces, such as "cluster-1"`
	if !f.exists {
		return "", failure.New(failure.RepoInvalid, `%s is missing: expected {"token": "…"} with %s`, f.name, want)
	}
	text, err := f.text("token", "cluster-1")
	if err != nil {
		return "", err
	}
	field, ok := f.field("token")
	if !ok {
		return "", failure.New(failure.RepoInvalid, "%s, field token: it is missing; expected %s", f.name, want)
	}
	text = strings.TrimSpace(text)
	odd := strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' })
	if text == "" || len(text) > 255 || odd {
		return "", f.wrong(field, want)
	}
	return text, nil
}

// fleetConfig is the number of instances. The number may be written as a string.
func (f jsonFile) fleetConfig() (messages.FleetConfig, error) {
	field, ok := f.field("instance_cnt")
	if !ok {
		return messages.FleetConfig{}, nil
	}
	digits := ""
	switch v := field.value.(type) {
	case json.Number:
		digits = v.String()
	case string:
		digits = strings.TrimSpace(v)
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > maxInstances {
		return messages.FleetConfig{}, f.wrong(field, "a whole number from 1 to "+strconv.Itoa(maxInstances))
	}
	return messages.FleetConfig{InstanceCount: &n}, nil
}

func (f jsonFile) wrong(field jsonField, want string) error {
	return failure.New(failure.RepoInvalid, "%s, line %d, field %s: expected %s, found %s",
		f.name, field.line, shorten(field.name), want, found(field.value))
}

// found names a value for people.
func found(value any) string {
	switch v := value.(type) {
	case string:
		return "the string " + strconv.Quote(shorten(v))
	case json.Number:
		return "the number " + shorten(v.String())
	case bool:
		return strconv.FormatBool(v)
	case nested:
		return string(v)
	default:
		return "null"
	}
}

// jsonParser reads one JSON object (RFC 8259).
type jsonParser struct {
	file  string
	text  string
	at    int // of the next byte
	line  int // of that byte, the first line is 1
	field string
}

// parse reads the whole file. null counts as an object without fields.
func (p *jsonParser) parse() ([]jsonField, error) {
	if err := p.checkEncoding(); err != nil {
		return nil, err
	}
	p.skipSpace()
	if p.at == len(p.text) {
		return nil, p.wrong(`the file is empty; expected an object such as {"name": "value"}`)
	}
	if strings.TrimSpace(p.text[p.at:]) == "null" {
		return nil, nil
	}
	if p.next() != '{' {
		return nil, p.wrong(`expected an object such as {"name": "value"}, found %s`, p.rest())
	}
	fields, err := p.object(1)
	if err != nil {
		return nil, err
	}
	p.field = ""
	if p.skipSpace(); p.at < len(p.text) {
		return nil, p.wrong("expected nothing more after the closing }, found %s", p.rest())
	}
	return fields, nil
}

// checkEncoding wants UTF-8. Editors of Windows write UTF-16 too, which begins with FE FF or FF FE.
func (p *jsonParser) checkEncoding() error {
	if strings.HasPrefix(p.text, "\xfe\xff") || strings.HasPrefix(p.text, "\xff\xfe") {
		return p.wrong("the file is encoded as UTF-16; save it as UTF-8")
	}
	rest := p.text
	for rest != "" {
		r, size := utf8.DecodeRuneInString(rest)
		if r == utf8.RuneError && size == 1 {
			p.line += strings.Count(p.text[:len(p.text)-len(rest)], "\n")
			return p.wrong("the file is not encoded as UTF-8; save it as UTF-8")
		}
		rest = rest[size:]
	}
	return nil
}

// value reads one value.
func (p *jsonParser) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, p.wrong("values are nested deeper than %d levels", maxDepth)
	}
	switch c := p.next(); {
	case c == '{':
		_, err := p.object(depth + 1)
		return nested("an object { … }"), err
	case c == '[':
		return nested("a list [ … ]"), p.list(depth + 1)
	case c == '"':
		return p.string()
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	}
	for word, value := range map[string]any{"true": true, "false": false, "null": nil} {
		if p.word() == word {
			p.at += len(word)
			return value, nil
		}
	}
	if p.at == len(p.text) {
		return nil, p.wrong("the file ends where a value is expected")
	}
	if p.next() == '\'' {
		return nil, p.wrong(`expected a value, found '; strings stand in double quotes (")`)
	}
	if p.comment() {
		return nil, p.wrong("expected a value, found a comment; JSON has no comments")
	}
	return nil, p.wrong("expected a value (a number, a string in double quotes, true, false, null, [ … ] or { … }), "+
		"found %s", p.rest())
}

// object reads from { to }. Only the names of the outermost object become the parser's field.
func (p *jsonParser) object(depth int) ([]jsonField, error) {
	var fields []jsonField
	for p.open(); p.next() != '}'; {
		name, err := p.name()
		if err != nil {
			return nil, err
		}
		f := jsonField{name: name}
		if depth == 1 {
			p.field = name
		}
		if p.skipSpace(); p.next() != ':' {
			return nil, p.wrong("expected a colon after the name %s, found %s", strconv.Quote(shorten(name)), p.rest())
		}
		p.open()
		f.line = p.line
		if f.value, err = p.value(depth); err != nil {
			return nil, err
		}
		fields = append(fields, f)
		if err := p.separator('}'); err != nil {
			return nil, err
		}
	}
	p.at++
	return fields, nil
}

// list reads from [ to ].
func (p *jsonParser) list(depth int) error {
	for p.open(); p.next() != ']'; {
		if _, err := p.value(depth); err != nil {
			return err
		}
		if err := p.separator(']'); err != nil {
			return err
		}
	}
	p.at++
	return nil
}

// open steps over one character and the space behind it.
func (p *jsonParser) open() {
	p.at++
	p.skipSpace()
}

// name reads the name of a field.
func (p *jsonParser) name() (string, error) {
	switch {
	case p.at == len(p.text):
		return "", p.wrong("the file ends before its closing }")
	case p.next() == '"':
		return p.string()
	case p.comment():
		return "", p.wrong("expected the name of a field, found a comment; JSON has no comments")
	default:
		return "", p.wrong("expected the name of a field in double quotes, found %s", p.rest())
	}
}

// separator reads what follows a value: a comma with a further value behind it, or the end, which it leaves.
func (p *jsonParser) separator(end byte) error {
	p.skipSpace()
	switch {
	case p.next() == end && p.at < len(p.text):
		return nil
	case p.at == len(p.text):
		return p.wrong("the file ends before its closing %c", end)
	case p.comment():
		return p.wrong("expected a comma or the closing %c, found a comment; JSON has no comments", end)
	case p.next() != ',':
		return p.wrong("expected a comma or the closing %c, found %s", end, p.rest())
	}
	line := p.line // of the comma
	if p.open(); p.next() == end {
		p.line = line
		return p.wrong("the comma before the closing %c is too much; remove it", end)
	}
	return nil
}

// string reads a string in double quotes.
func (p *jsonParser) string() (string, error) {
	from := p.at
	for p.at++; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; {
		case c == '"':
			p.at++
			var s string
			if err := json.Unmarshal([]byte(p.text[from:p.at]), &s); err != nil {
				return "", p.wrong("the string %s cannot be read", shorten(p.text[from:p.at]))
			}
			return s, nil
		case c == '\n' || c == '\r':
			return "", p.wrong("the line ends inside of a string; its closing double quote is missing")
		case c < ' ':
			return "", p.wrong(`a string contains the control character %d; write it as \u%04x`, c, c)
		case c == '\\':
			escape := p.text[p.at+1:]
			if !goodEscape(escape) {
				return "", p.wrong(`\%s is unknown in a string; a backslash is written as \\`, clip(escape, 1))
			}
			p.at++
		}
	}
	return "", p.wrong("the file ends inside of a string; its closing double quote is missing")
}

// goodEscape tells whether what follows a backslash may follow one.
func goodEscape(text string) bool {
	if text == "" || !strings.Contains(`"\/bfnrtu`, text[:1]) {
		return false
	}
	if text[0] != 'u' {
		return true
	}
	_, err := strconv.ParseUint(clip(text[1:], 4), 16, 16)
	return err == nil && len(text) > 4
}

// number reads a number as it stands.
func (p *jsonParser) number() (json.Number, error) {
	word := p.word()
	if !json.Valid([]byte(word)) {
		return "", p.wrong("%s is not a number", shorten(word))
	}
	p.at += len(word)
	return json.Number(word), nil
}

// word is what stands here until a space or a character that ends a value.
func (p *jsonParser) word() string {
	rest := p.text[p.at:]
	if end := strings.IndexAny(rest, " \t\r\n,:{}[]\"'/#"); end >= 0 {
		return rest[:end]
	}
	return rest
}

// next is the byte that is read next, 0 at the end.
func (p *jsonParser) next() byte {
	if p.at >= len(p.text) {
		return 0
	}
	return p.text[p.at]
}

func (p *jsonParser) comment() bool {
	return p.next() == '#' || strings.HasPrefix(p.text[p.at:], "//") || strings.HasPrefix(p.text[p.at:], "/*")
}

func (p *jsonParser) skipSpace() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		if p.text[p.at] == '\n' {
			p.line++
		}
		p.at++
	}
}

// rest is the beginning of what stands here, for people. Nothing is read after it.
func (p *jsonParser) rest() string {
	if p.at >= len(p.text) {
		return "the end of the file"
	}
	if p.next() == '"' {
		if name, err := p.string(); err == nil {
			return strconv.Quote(shorten(name))
		}
	}
	if word := p.word(); word != "" {
		return strconv.Quote(shorten(word))
	}
	_, size := utf8.DecodeRuneInString(p.text[p.at:])
	return shorten(p.text[p.at : p.at+size])
}

// wrong is an error at this place.
func (p *jsonParser) wrong(format string, args ...any) error {
	line := p.line
	if p.at >= len(p.text) { // the lines behind the last text are empty
		line = 1 + strings.Count(strings.TrimRight(p.text, " \t\r\n"), "\n")
	}
	place := p.file + ", line " + strconv.Itoa(line)
	if p.field != "" {
		place += ", field " + shorten(p.field)
	}
	e := failure.New(failure.RepoInvalid, format, args...)
	e.Message = place + ": " + e.Message
	return e
}

// clip is the beginning of text, n bytes at most.
func clip(text string, n int) string { return text[:min(n, len(text))] }
