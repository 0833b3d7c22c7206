// Package faultpage writes docs/faults.md: which faults OpenAperture is tested against, and by which specs. The faults
// are the file faults.tsv. A spec covers a fault if the fault's id stands in the spec's text.
package faultpage

import (
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// faults has a line per fault: its id, what happens, what must hold, and for a fault that does not apply: why.
//
//go:embed faults.tsv
var faults string

// head is the page above its table.
const head = `# Faults

OpenAperture is tested against these faults. ` + "`go run ./deploy/local faults-page`" + ` writes the page from the
list of faults and from the texts of the specs: a spec carries the ids of the faults that it proves against. Do not
edit the page.

A to H happen to a running system: A broker, B database, C overseers, D executors, E heartbeats and time (HB: the
rules of silence), F callers, G supply chain, H operations. I are invariants, P promises, R defects of the
predecessor that must not return, S security requirements, T and PG traps of the client libraries for AMQP and
PostgreSQL.

`

// Page is the text of docs/faults.md for the source tree at root.
func Page(root string) (string, error) {
	specs, err := specsOf(root)
	if err != nil {
		return "", err
	}
	var page strings.Builder
	page.WriteString(head)
	applying, covered := 0, 0
	var table strings.Builder
	table.WriteString("| Id | What happens | What must hold | Specs |\n|---|---|---|---|\n")
	for line := range strings.Lines(faults) {
		fields := append(strings.Split(strings.TrimSpace(line), "\t"), "")
		id, why := fields[0], fields[3]
		by := strings.Join(specs[id], "<br>")
		switch {
		case len(specs[id]) > 0:
			applying, covered = applying+1, covered+1
		case why != "":
			by = "does not apply: " + why
		default:
			applying++
			by = "none names it"
		}
		fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", id, fields[1], fields[2], by)
	}
	fmt.Fprintf(&page, "Of %d faults that apply, the specs name %d.\n\n", applying, covered)
	page.WriteString(table.String())
	return page.String(), nil
}

// ids finds the ids in a text. An id of the threat model is preceded by the word trust and is none of these.
var ids = regexp.MustCompile(`(trust )?\b((?:PG|HB|[A-IPRST])[0-9]{1,2})\b`)

// specsOf reads the specs of all suites below root: for each id, the files whose specs carry the id, sorted.
func specsOf(root string) (map[string][]string, error) {
	specs := map[string][]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return fmt.Errorf("read specs: %w", err)
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return fmt.Errorf("read specs: %w", err)
		}
		for _, id := range idsOf(file) {
			if !slices.Contains(specs[id], name) {
				specs[id] = append(specs[id], name)
			}
		}
		return nil
	})
	for _, files := range specs {
		slices.Sort(files)
	}
	return specs, err
}

// texts are the functions of Ginkgo whose first argument is a spec's text.
var texts = []string{"Describe", "Context", "When", "It", "Specify", "DescribeTable", "Entry"}

// idsOf are the ids in the texts of a file's specs.
func idsOf(file *ast.File) []string {
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		name, ok := call.Fun.(*ast.Ident)
		if !ok || !slices.Contains(texts, name.Name) {
			return true
		}
		for _, m := range ids.FindAllStringSubmatch(literal(call.Args[0]), -1) {
			if m[1] == "" {
				found = append(found, m[2])
			}
		}
		return true
	})
	return found
}

// literal is the text of a string, also of a concatenated one; "" for any other expression.
func literal(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, _ := strconv.Unquote(e.Value) // "" for a number
		return text
	case *ast.BinaryExpr:
		return literal(e.X) + literal(e.Y)
	default:
		return ""
	}
}
