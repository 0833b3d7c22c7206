// Package suites runs the specs of every module and sums up what they did. A Ginkgo suite is one test to `go test`, so
// its specs are counted from the line by which it ends; plain tests are counted as such.
package suites

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Totals counts specs and plain tests.
type Totals struct {
	Passed, Failed, Skipped, Pending int
	// Broken names packages that failed without a failed spec: they did not compile, panicked or were out of time.
	Broken []string
}

// OK reports whether everything ran and passed. Skipped and pending specs prove nothing, so they count as failures.
func (t Totals) OK() bool { return t.Failed == 0 && t.Skipped == 0 && t.Pending == 0 && t.Passed > 0 }

// String is the last line of the run.
func (t Totals) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", t.Passed, t.Failed, t.Skipped+t.Pending)
}

// event is one line of `go test -json`.
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

var (
	colour   = regexp.MustCompile("\x1b\\[[0-9;]*m")
	lastLine = regexp.MustCompile(`(\d+) Passed \| (\d+) Failed \| (\d+) Pending \| (\d+) Skipped`)
)

// reader follows the events of one run.
type reader struct {
	out    io.Writer
	totals Totals
	suites map[string]bool // package/test that turned out to be a Ginkgo suite
	said   map[string]*strings.Builder
	failed map[string]int // failures counted per package
}

// Read sums up the output of `go test -json`. It writes one line per package to out, and everything that a failed
// package said. Lines that are no events are passed on.
func Read(in io.Reader, out io.Writer) (Totals, error) {
	r := &reader{out: out, suites: map[string]bool{}, said: map[string]*strings.Builder{}, failed: map[string]int{}}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 1<<20), 64<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(out, lines.Text())
			continue
		}
		r.take(e)
	}
	if err := lines.Err(); err != nil {
		return r.totals, fmt.Errorf("read the output of go test: %w", err)
	}
	return r.totals, nil
}

func (r *reader) take(e event) {
	e.ImportPath, _, _ = strings.Cut(e.ImportPath, " ") // "p [p.test]" is p as its tests see it
	switch e.Action {
	case "output", "build-output":
		r.hear(e)
	case "build-fail":
		r.broken(e.ImportPath) // what it said is shown when the package ends
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.packageEnded(e)
			return
		}
		r.testEnded(e)
	}
}

func (r *reader) hear(e event) {
	of := e.Package
	if of == "" {
		of = e.ImportPath
	}
	if r.said[of] == nil {
		r.said[of] = &strings.Builder{}
	}
	r.said[of].WriteString(e.Output)
	counts := lastLine.FindStringSubmatch(colour.ReplaceAllString(e.Output, ""))
	if counts == nil {
		return
	}
	r.suites[e.Package+"/"+e.Test] = true
	n := func(i int) int { v, _ := strconv.Atoi(counts[i]); return v } // the pattern holds digits only
	r.totals.Passed += n(1)
	r.totals.Failed += n(2)
	r.totals.Pending += n(3)
	r.totals.Skipped += n(4)
	r.failed[e.Package] += n(2)
}

func (r *reader) testEnded(e event) {
	if strings.Contains(e.Test, "/") || r.suites[e.Package+"/"+e.Test] {
		if e.Action == "fail" && r.suites[e.Package+"/"+e.Test] && r.failed[e.Package] == 0 {
			r.broken(e.Package) // such as a suite with focused specs, or one whose AfterSuite failed
		}
		return
	}
	switch e.Action {
	case "pass":
		r.totals.Passed++
	case "skip":
		r.totals.Skipped++
	case "fail":
		r.totals.Failed++
		r.failed[e.Package]++
	}
}

func (r *reader) packageEnded(e event) {
	if e.Action == "skip" { // without test files
		return
	}
	took := time.Duration(e.Elapsed * float64(time.Second)).Round(100 * time.Millisecond)
	fmt.Fprintf(r.out, "%-4s %-70s %s\n", map[string]string{"pass": "ok", "fail": "FAIL"}[e.Action], e.Package, took)
	if e.Action == "fail" {
		if r.failed[e.Package] == 0 {
			r.broken(e.Package)
		}
		r.tell(e.Package)
	}
	delete(r.said, e.Package)
}

// broken counts a failure that no spec stands for, once per package.
func (r *reader) broken(of string) {
	r.totals.Failed++
	r.failed[of]++
	r.totals.Broken = append(r.totals.Broken, of)
}

func (r *reader) tell(of string) {
	if text := r.said[of]; text != nil {
		fmt.Fprintln(r.out, text.String())
	}
}
