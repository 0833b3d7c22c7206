package deploy_test

import (
	"fmt"
	"os"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/deploy"
)

var _ = Describe("The stage of a work file", func() {
	// moves is the whole table: rows are events, columns are deploy.Stages.
	moves := `
event     | none    rolling   reported  confirmed undoing   ended newer
begun     | rolling -         -         -         -         -     -
retaken   | -       rolling   rolling   rolling   rolling   -     rolling
unsent    | -       reported  reported  -         undoing   -     -
delivered | -       confirmed confirmed -         ended     -     -
missed    | -       confirmed -         -         -         -     -
overdue   | -       -         -         undoing   -         -     -
postponed | -       -         -         -         confirmed -     -
closed    | -       ended     ended     ended     ended     -     -`

	table := func() [][]string {
		var rows [][]string
		for _, line := range strings.Split(strings.TrimSpace(moves), "\n")[1:] {
			event, stages, _ := strings.Cut(line, "|")
			rows = append(rows, append([]string{strings.TrimSpace(event)}, strings.Fields(stages)...))
		}
		return rows
	}

	It("moves by every event in every stage as the table says, and no other way", func() {
		rows := table()
		Expect(rows).To(HaveLen(len(deploy.Events)))
		for i, row := range rows {
			Expect(row[0]).To(Equal(deploy.Events[i]))
			for j, before := range deploy.Stages {
				Expect(deploy.After(before, row[0])).To(Equal(row[1+j]), fmt.Sprintf("%s in stage %q", row[0], before))
			}
		}
	})

	It("is documented", func() {
		text, err := os.ReadFile("../../docs/state-machines.md")
		Expect(err).NotTo(HaveOccurred())
		for _, row := range table() {
			for j, next := range row[1:] {
				if next == "-" {
					continue
				}
				before := []string{"none", "rolling", "reported", "confirmed", "undoing", "ended", "newer"}[j]
				Expect(string(text)).To(ContainSubstring(fmt.Sprintf("| `%s` | `%s` | `%s` |", before, row[0], next)))
			}
		}
	})
})
