package systemd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/services/unitd/internal/shim"
)

// entry is the part of a journal entry that unitd reads.
type entry struct {
	Message    json.RawMessage `json:"MESSAGE"` // text, or bytes where it is no UTF-8
	Process    string          `json:"_SYSTEMD_INVOCATION_ID"`
	Invocation string          `json:"INVOCATION_ID"` // in systemd's own messages about the unit
}

// Logs implements host.Backend by journalctl: the unit's output and what systemd says about it.
func (b *Backend) Logs(ctx context.Context, name string, lines, limit int) (string, error) {
	kept, known, err := b.notes.read(name)
	if err != nil || !known {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	_ = exec.CommandContext(ctx, "journalctl", "--sync").Run() // if it fails, the newest lines are missing
	command := exec.CommandContext(ctx, "journalctl", "--unit="+name, "--output=json", "--no-pager", "--quiet", "--all",
		"--lines="+strconv.Itoa(lines), "--since="+journalTime(kept.Created))
	var complaint bytes.Buffer
	command.Stderr = &complaint
	text, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("read journal: %w: %s", err, strings.TrimSpace(complaint.String()))
	}
	return renderJournal(name, text, lines, limit), nil
}

// journalTime is a time for journalctl, to the microsecond. An earlier unit of the same name may
// have ended in the same second.
func journalTime(at time.Time) string {
	return fmt.Sprintf("@%d.%06d", at.Unix(), at.Nanosecond()/1000)
}

// renderJournal writes the entries as lines, with one line before each start, as the shim does.
func renderJournal(name string, journal []byte, lines, limit int) string {
	var out []string
	invocation := ""
	scanner := bufio.NewScanner(bytes.NewReader(journal))
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		var e entry
		if json.Unmarshal(scanner.Bytes(), &e) != nil {
			continue
		}
		id := e.Process
		if e.Invocation != "" {
			id = e.Invocation
		}
		if id != "" && id != invocation {
			invocation = id
			out = append(out, unit.StartMark+name)
		}
		out = append(out, shim.Clean(e.text()))
	}
	return lastLines(out, lines, limit)
}

func (e entry) text() string {
	var text string
	if json.Unmarshal(e.Message, &text) == nil {
		return text
	}
	var raw []byte
	var numbers []int
	if json.Unmarshal(e.Message, &numbers) == nil {
		for _, n := range numbers {
			raw = append(raw, byte(n)) //nolint:gosec // the journal's bytes
		}
	}
	return string(raw)
}

func lastLines(list []string, lines, limit int) string {
	from, size := len(list), 0
	for from > 0 && len(list)-from < lines && size+len(list[from-1])+1 <= limit {
		from--
		size += len(list[from]) + 1
	}
	if from == len(list) {
		return ""
	}
	return strings.Join(list[from:], "\n") + "\n"
}
