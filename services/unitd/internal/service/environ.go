package service

import (
	"strings"

	"github.com/openaperture/openaperture/pkg/unit"
)

// ParseEnvironment reads the text of an EnvironmentFile into KEY=VALUE
// assignments as systemd does: `#` and `;` begin comments, '…' is taken as it
// stands, in "…" a backslash escapes only `"`, `\`, `$`, a backquote and a line
// break, outside of quotes it escapes everything; quoted values may span lines.
// A line without `=` and a key that is no variable's name are ignored.
func ParseEnvironment(text string) []string {
	p := environmentFile{text: text}
	var assignments []string
	for p.next() {
		if unit.IsVariable(p.key) {
			assignments = append(assignments, p.key+"="+p.value)
		}
	}
	return assignments
}

// environmentFile is the unread rest of an EnvironmentFile, and the latest assignment.
type environmentFile struct {
	text       string
	key, value string
}

const (
	lineBreaks = "\n\r"
	blanks     = " \t" + lineBreaks
)

// next reads up to the end of the next assignment; false: there is none.
func (p *environmentFile) next() bool {
	for {
		p.text = strings.TrimLeft(p.text, blanks)
		switch {
		case p.text == "":
			return false
		case strings.ContainsRune("#;", rune(p.text[0])):
			p.skipLine()
			continue
		}
		end := strings.IndexAny(p.text, "="+lineBreaks)
		if end < 0 {
			return false
		}
		p.key = strings.TrimRight(p.text[:end], blanks)
		assigns := p.text[end] == '='
		p.text = p.text[end+1:]
		if assigns {
			p.readValue()
			return true
		}
	}
}

func (p *environmentFile) skipLine() {
	end := strings.IndexAny(p.text, lineBreaks)
	if end < 0 {
		end = len(p.text)
	}
	p.text = p.text[end:]
}

// take removes the next byte.
func (p *environmentFile) take() byte {
	c := p.text[0]
	p.text = p.text[1:]
	return c
}

// readValue reads to the end of the line that is neither quoted nor escaped.
// Quotes count only where no bare text stands before them: `a"b"` keeps them.
func (p *environmentFile) readValue() {
	var value strings.Builder
	bare, kept := false, 0 // kept: the length up to which blanks at the end belong to the value
	defer func() {
		p.value = value.String()
		if bare {
			p.value = p.value[:kept]
		}
	}()
	for p.text != "" {
		c := p.take()
		switch {
		case strings.ContainsRune(lineBreaks, rune(c)):
			return
		case c == '\\':
			bare = true
			if p.text != "" {
				if c = p.take(); !strings.ContainsRune(lineBreaks, rune(c)) {
					value.WriteByte(c)
				}
			}
			kept = value.Len()
		case !bare && c == '\'':
			p.readQuoted(&value, c, "")
		case !bare && c == '"':
			p.readQuoted(&value, c, "\"\\`$")
		case !bare && strings.ContainsRune(blanks, rune(c)):
		default:
			bare = true
			value.WriteByte(c)
			if !strings.ContainsRune(blanks, rune(c)) {
				kept = value.Len()
			}
		}
	}
}

// readQuoted reads to the closing quote, or to the end where there is none.
// escapable are the characters that a backslash escapes; without any a backslash is plain text.
func (p *environmentFile) readQuoted(value *strings.Builder, quote byte, escapable string) {
	for p.text != "" {
		c := p.take()
		switch {
		case c == quote:
			return
		case c != '\\' || escapable == "" || p.text == "":
			value.WriteByte(c)
		default:
			next := p.take()
			if next != '\n' && !strings.ContainsRune(escapable, rune(next)) {
				value.WriteByte('\\')
			}
			if next != '\n' {
				value.WriteByte(next)
			}
		}
	}
}

// Merge lays assignments one over the other, the later one winning, and
// returns them as a map for expansion.
func Merge(layers ...[]string) map[string]string {
	env := map[string]string{}
	for _, layer := range layers {
		for _, assignment := range layer {
			key, value, _ := strings.Cut(assignment, "=")
			env[key] = value
		}
	}
	return env
}
