// Package table shows rows that change: redrawn in place on a terminal, one line per change with the elapsed seconds
// anywhere else, so that a log of it stays readable.
package table

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Row is one line of the table. Its first cell names it.
type Row []string

// Table draws rows below a header. It is used by one goroutine.
type Table struct {
	Out      io.Writer
	Terminal bool      // redraw in place
	Header   Row       // its length is that of all rows
	Began    time.Time // what elapsed seconds count from
	Now      func() time.Time

	drawn int            // lines on the terminal that the next drawing replaces
	last  map[string]Row // what was shown, by first cell
}

// IsTerminal reports whether f is a terminal that can move its cursor.
func IsTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb" && os.Getenv("TERM") != ""
}

// Show draws the rows, or the lines of those that have changed.
func (t *Table) Show(rows []Row) {
	if t.last == nil {
		t.last = map[string]Row{}
	}
	changed := slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return slices.Equal(t.last[r[0]], r) })
	for _, r := range changed {
		t.last[r[0]] = slices.Clone(r)
	}
	switch {
	case t.Terminal:
		t.redraw(rows)
	case len(changed) > 0:
		t.lines(changed)
	}
}

// Say writes a line above the table.
func (t *Table) Say(format string, args ...any) {
	t.erase()
	fmt.Fprintf(t.Out, "%6.1fs  %s\n", t.elapsed(), fmt.Sprintf(format, args...))
}

func (t *Table) elapsed() float64 { return t.Now().Sub(t.Began).Seconds() }

func (t *Table) erase() {
	if t.drawn > 0 {
		fmt.Fprintf(t.Out, "\x1b[%dA\x1b[J", t.drawn)
		t.drawn = 0
	}
}

func (t *Table) redraw(rows []Row) {
	t.erase()
	widths := t.widths(append([]Row{t.Header}, rows...))
	for _, r := range append([]Row{t.Header}, rows...) {
		fmt.Fprintf(t.Out, "         %s\n", line(r, widths))
	}
	t.drawn = len(rows) + 1
}

// lines names each cell by its column, because the header has long scrolled away.
func (t *Table) lines(rows []Row) {
	widths := t.widths(rows)
	for _, r := range rows {
		cells := make([]string, len(r))
		cells[0] = fmt.Sprintf("%-*s", widths[0], r[0])
		for i := 1; i < len(r); i++ {
			cells[i] = fmt.Sprintf("%s %-*s", t.Header[i], widths[i], r[i])
		}
		fmt.Fprintf(t.Out, "%6.1fs  %s\n", t.elapsed(), strings.TrimRight(strings.Join(cells, "  "), " "))
	}
}

func (t *Table) widths(rows []Row) []int {
	widths := make([]int, len(t.Header))
	for _, r := range rows {
		for i, cell := range r {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	return widths
}

func line(r Row, widths []int) string {
	cells := make([]string, len(r))
	for i, cell := range r {
		cells[i] = fmt.Sprintf("%-*s", widths[i], cell)
	}
	return strings.TrimRight(strings.Join(cells, "  "), " ")
}
