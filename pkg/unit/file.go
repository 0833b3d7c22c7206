package unit

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"
)

// Parse reads the text of a unit file into its options, repeats kept in order.
// A backslash at the end of a line joins it with the next by a space, lines
// that begin with `#` or `;` are comments (also within a continued line), the
// first `=` separates name and value. Errors name the line.
func Parse(text string) ([]Option, error) {
	var options []Option
	section := ""
	for _, line := range joinLines(text) {
		if strings.HasPrefix(line.text, "[") {
			name, ok := strings.CutSuffix(line.text[1:], "]")
			if !ok || strings.TrimSpace(name) == "" {
				return nil, fmt.Errorf("line %d: malformed section header %q", line.number, line.text)
			}
			section = name
			continue
		}
		name, value, ok := strings.Cut(line.text, "=")
		name = strings.TrimSpace(name)
		switch {
		case !ok || name == "":
			return nil, fmt.Errorf("line %d: %q is no Name=Value", line.number, line.text)
		case section == "":
			return nil, fmt.Errorf("line %d: option %q stands before the first section", line.number, name)
		}
		options = append(options, Option{section, name, strings.TrimSpace(value)})
	}
	return options, nil
}

// logicalLine is a line after continuation, with the number of its first physical one.
type logicalLine struct {
	number int
	text   string
}

// joinLines resolves comments, blank lines and continuations.
func joinLines(text string) []logicalLine {
	var lines []logicalLine
	continued := false
	for i, raw := range strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n") {
		raw = strings.TrimSpace(raw)
		if strings.HasPrefix(raw, "#") || strings.HasPrefix(raw, ";") {
			continue
		}
		body, more := strings.CutSuffix(raw, `\`)
		body = strings.TrimSpace(body)
		switch {
		case continued:
			last := &lines[len(lines)-1]
			last.text = strings.TrimSpace(last.text + " " + body)
		case body != "" || more:
			lines = append(lines, logicalLine{i + 1, body})
		}
		continued = more
	}
	return dropBlank(lines)
}

// dropBlank removes lines of which continuation left nothing.
func dropBlank(lines []logicalLine) []logicalLine {
	kept := lines[:0]
	for _, line := range lines {
		if line.text != "" {
			kept = append(kept, line)
		}
	}
	return kept
}

// Render writes options as a unit file: sections in order of their first
// appearance, separated by an empty line. It is byte for byte what Fleet
// writes (and hashes). Options that passed Validate survive Parse(Render).
func Render(options []Option) string {
	var order []string
	bodies := map[string]*strings.Builder{}
	for _, o := range options {
		body, ok := bodies[o.Section]
		if !ok {
			body = &strings.Builder{}
			bodies[o.Section] = body
			order = append(order, o.Section)
		}
		body.WriteString(o.Name + "=" + o.Value + "\n")
	}
	sections := make([]string, 0, len(order))
	for _, name := range order {
		sections = append(sections, "["+name+"]\n"+bodies[name].String())
	}
	return strings.Join(sections, "\n")
}

// Hash is the sha1 of the rendered definition in hex, as in Fleet's unit
// states, without the fencing token: a new token is no new definition (docs/deployment.md#fencing).
// Another version is another definition, also with the same text.
func Hash(options []Option) string {
	sum := sha1.Sum([]byte(Render(WithoutToken(options)))) //nolint:gosec // Fleet's identity of a unit, no security
	return hex.EncodeToString(sum[:])
}

// Equal tells whether two definitions are the same but for the fencing token. Their versions count.
func Equal(a, b []Option) bool {
	return Render(WithoutToken(a)) == Render(WithoutToken(b))
}
