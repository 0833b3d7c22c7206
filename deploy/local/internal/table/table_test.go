package table_test

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/table"
)

var _ = Describe("Table", func() {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	draw := func(terminal bool) (*table.Table, *strings.Builder) {
		var out strings.Builder
		return &table.Table{Out: &out, Terminal: terminal, Header: table.Row{"component", "wanted", "state"}, Began: began,
			Now: func() time.Time { return began.Add(1500 * time.Millisecond) }}, &out
	}

	It("writes one line per change, with the elapsed seconds and named cells, where it is no terminal", func() {
		t, out := draw(false)
		t.Show([]table.Row{{"manager", "v1", "idle"}, {"overseer", "v1", "idle"}})
		t.Show([]table.Row{{"manager", "v1", "idle"}, {"overseer", "v1", "idle"}})
		t.Show([]table.Row{{"manager", "v2", "idle"}, {"overseer", "v1", "idle"}})
		Expect(out.String()).To(Equal("   1.5s  manager   wanted v1  state idle\n   1.5s  overseer  wanted v1  state " +
			"idle\n   1.5s  manager  wanted v2  state idle\n"))
	})

	It("redraws in place on a terminal", func() {
		t, out := draw(true)
		t.Show([]table.Row{{"manager", "v1", "idle"}})
		out.Reset()
		t.Show([]table.Row{{"manager", "v2", "in_progress"}})
		Expect(out.String()).To(Equal("\x1b[2A\x1b[J         component  wanted  state\n         manager    v2      " +
			"in_progress\n"))
	})

	It("says something above the table without leaving a copy of it", func() {
		t, out := draw(true)
		t.Show([]table.Row{{"manager", "v1", "idle"}})
		out.Reset()
		t.Say("now %s", "v2")
		Expect(out.String()).To(Equal("\x1b[2A\x1b[J   1.5s  now v2\n"))
	})
})
