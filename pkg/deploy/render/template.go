package render

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"

	"github.com/openaperture/openaperture/pkg/deploy/failure"
)

// values are the closed set that templates may use (docs/deployment.md#deployment-repositories).
type values map[string]string

var valuePatterns = map[string]*regexp.Regexp{
	"commit_hash":    fullCommit,
	"source_ref":     refPattern,
	"timestamp":      regexp.MustCompile(`^[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} UTC$`),
	"dst_port":       regexp.MustCompile(`^[0-9]{1,5}$`),
	"instance":       regexp.MustCompile(`^%i$`),
	"component_type": regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$`),
	"exchange_id":    regexp.MustCompile(`^[0-9]{1,19}$`),
	"hostname":       regexp.MustCompile(`^%H$`),
}

// check validates every value before anything is rendered (S5).
func (v values) check() error {
	for name, pattern := range valuePatterns {
		if !pattern.MatchString(v[name]) || strings.ContainsFunc(v[name], func(r rune) bool { return r < ' ' || r > '~' }) {
			return failure.New(failure.TemplateInvalid, "the value of %s may not be used in templates", name)
		}
	}
	return nil
}

// placeholders stand for the values when the shape of a rendered unit is checked.
func placeholders() values {
	v := values{}
	for name := range valuePatterns {
		v[name] = "x"
	}
	return v
}

// renderGo renders a Go text/template in which only {{.name}} of the closed set and comments are allowed: no functions,
// pipelines or control structures, so that rendering always ends and can execute nothing.
func renderGo(file, text string, v values) (string, error) {
	t, err := template.New(file).Option("missingkey=error").Parse(text)
	if err != nil {
		return "", failure.New(failure.TemplateInvalid, "%s", strings.TrimPrefix(err.Error(), "template: "))
	}
	if len(t.Templates()) > 1 || t.Tree == nil {
		return "", failure.New(failure.TemplateInvalid, "%s: a template must not define others and must not be empty", file)
	}
	for _, node := range t.Root.Nodes {
		if err := allowed(node, t.Tree); err != nil {
			return "", failure.New(failure.TemplateInvalid, "%s", err)
		}
	}
	var out strings.Builder
	if err := t.Execute(&out, v); err != nil {
		return "", failure.New(failure.TemplateInvalid, "%s", strings.TrimPrefix(err.Error(), "template: "))
	}
	return out.String(), nil
}

func allowed(node parse.Node, t *parse.Tree) error {
	switch n := node.(type) {
	case *parse.TextNode, *parse.CommentNode:
		return nil
	case *parse.ActionNode:
		if name, ok := plainField(n.Pipe); ok {
			if _, known := valuePatterns[name]; known {
				return nil
			}
		}
	}
	location, expression := t.ErrorContext(node)
	return fmt.Errorf("%s: %s is not allowed: only the variables %s are", location, expression, variables())
}

func plainField(p *parse.PipeNode) (string, bool) {
	if len(p.Decl) != 0 || len(p.Cmds) != 1 || len(p.Cmds[0].Args) != 1 {
		return "", false
	}
	field, ok := p.Cmds[0].Args[0].(*parse.FieldNode)
	if !ok || len(field.Ident) != 1 {
		return "", false
	}
	return field.Ident[0], true
}

func variables() string {
	names := make([]string, 0, len(valuePatterns))
	for name := range valuePatterns {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

var (
	eexExpression = regexp.MustCompile(`(?s)<%.*?%>`)
	eexVariable   = regexp.MustCompile(`^<%=[ \t]*(commit_hash|timestamp|dst_port)[ \t]*%>$`)
)

// renderEEx substitutes the three variables of the predecessor's templates. Everything else between <% and %> is an
// error with file, line and expression, and is never executed.
func renderEEx(file, text string, v values) (string, error) {
	var out strings.Builder
	rest, line := text, 1
	for {
		span := eexExpression.FindStringIndex(rest)
		if span == nil {
			break
		}
		line += strings.Count(rest[:span[0]], "\n")
		expression := rest[span[0]:span[1]]
		m := eexVariable.FindStringSubmatch(expression)
		if m == nil {
			return "", failure.New(failure.TemplateInvalid,
				"%s:%d: %s is not allowed: only commit_hash, timestamp and dst_port are", file, line, shorten(expression))
		}
		out.WriteString(rest[:span[0]] + v[m[1]])
		rest = rest[span[1]:]
	}
	if at := strings.Index(rest, "<%"); at >= 0 {
		line += strings.Count(rest[:at], "\n")
		return "", failure.New(failure.TemplateInvalid, "%s:%d: <%% is never closed", file, line)
	}
	out.WriteString(rest)
	return out.String(), nil
}
