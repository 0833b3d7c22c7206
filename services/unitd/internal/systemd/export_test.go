package systemd

import (
	"time"

	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/services/unitd/internal/host"
)

// Ended judges a unit's properties.
func Ended(p map[string]any) host.Ended { return properties(p).ended(false, time.Now()) }

// Alive tells whether a unit with these properties runs.
func Alive(p map[string]any) bool { return properties(p).alive() }

// Ran tells whether a unit was started since the order that a note is of.
func Ran(before string, taken bool, p map[string]any) bool {
	return note{Before: before, Taken: taken}.ranSinceOrder(p)
}

// Judge is what the error of a call over D-Bus says.
func Judge(err error) error { return classifyError(err) }

// Render writes journal entries as lines.
func Render(name, journal string, lines, limit int) string {
	return renderJournal(name, []byte(journal), lines, limit)
}

// Write writes a unit file with a machine's mark.
func Write(dir, machine, name string, options []unit.Option) error {
	return unitFiles{dir, machine}.write(name, options)
}

// Remove removes a unit file, if it has the machine's mark.
func Remove(dir, machine, name string) (bool, error) {
	return unitFiles{dir, machine}.remove(name)
}

// List names the unit files with a machine's mark.
func List(dir, machine string) ([]string, error) { return unitFiles{dir, machine}.list() }

// Units names the units of which something is left in the two directories.
func Units(notesDir, unitDir, machine string) ([]string, error) {
	return (&Backend{notes: notes{notesDir}, files: unitFiles{unitDir, machine}}).Units()
}
