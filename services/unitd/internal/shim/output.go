package shim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/openaperture/openaperture/pkg/unit"
)

const (
	currentLog  = "current.log"
	previousLog = "previous.log"
	// maxLog is the size at which the current log becomes the previous one: a
	// unit keeps at most twice as much.
	maxLog = 4 << 20
	// rotateAgainAfter is how much is written between two attempts to rotate.
	rotateAgainAfter = 64 << 10
	// measureEvery is the time between two looks at the size of a log that the unit writes itself.
	measureEvery = time.Second
)

// output is the unit's log: two files, rotated by size. Output must never stop
// a service. Text that cannot be written (disk full) is dropped, and the log
// says how much is missing as soon as it can be written again. A rotation that
// fails leaves the current file in use and is tried again. While no rotation
// succeeds, the current file holds at most 2*maxLog: then it is emptied.
type output struct {
	dir       string
	shared    bool // the unit writes into the current file itself, which therefore stays the current one
	mu        sync.Mutex
	file      *os.File // always open: a new one is opened before this one is closed
	size      int64
	rotateAt  int64  // the size at which the next rotation is tried
	lost      int64  // bytes that could not be written since the last successful write
	midLine   bool   // the latest text did not end a line
	complaint string // why the latest rotation failed, "" if it did not
}

// openOutput opens the log in dir. shared: it is keepShort that rotates it.
func openOutput(dir string, shared bool) (*output, error) {
	file, err := openLogFile(dir)
	if err != nil {
		return nil, err
	}
	o := &output{dir: dir, shared: shared}
	o.setFile(file)
	if shared {
		o.rotateShared()
	}
	return o, nil
}

// openLogFile opens the current log in dir, and makes both where they are missing.
func openLogFile(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make log directory: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, currentLog), os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return file, nil
}

// setFile makes file the current one.
func (o *output) setFile(file *os.File) {
	o.file, o.size, o.rotateAt, o.complaint = file, 0, maxLog, ""
	if info, err := file.Stat(); err == nil {
		o.size = info.Size()
	}
	last := []byte{'\n'}
	_, _ = file.ReadAt(last, o.size-1) // an empty file has no line
	o.midLine = last[0] != '\n'
}

// keepShort rotates a shared log for the life of the process.
func (o *output) keepShort() {
	for range time.Tick(measureEvery) {
		o.rotateShared()
	}
}

// rotateShared empties the file of a shared log if it is full. Everybody
// appends, so the unit's next line stands at the start of the file. The end of
// the log is copied to the previous file first. If the copy fails, the log
// stays as it is until the next call, or is emptied without a copy once it has
// twice the size. Text written between the copy and the emptying is lost.
func (o *output) rotateShared() {
	o.mu.Lock()
	defer o.mu.Unlock()
	info, err := o.file.Stat()
	if err != nil || info.Size() < maxLog {
		return
	}
	err = copyEnd(filepath.Join(o.dir, previousLog), filepath.Join(o.dir, currentLog), info.Size())
	if err != nil && info.Size() < 2*maxLog {
		o.complain(err)
		return
	}
	_ = o.file.Truncate(0) // if it fails, the next call tries again
	o.complaint = ""
}

// copyEnd copies the last maxLog bytes of a file, and at most as much of what is added meanwhile.
func copyEnd(to, from string, size int64) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.NewSectionReader(in, size-maxLog, 2*maxLog))
	return errors.Join(err, out.Close())
}

// Write appends to the log and always claims success.
func (o *output) Write(text []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.size >= o.rotateAt && !o.shared {
		o.rotate()
	}
	if o.lost > 0 && !o.appendNote("%d bytes of output are missing here", o.lost) {
		o.lost += int64(len(text))
		return len(text), nil
	}
	o.lost = 0
	before := o.size
	if !o.append(text) {
		o.lost = int64(len(text)) - (o.size - before)
	}
	return len(text), nil
}

// append writes to the current file as much as it takes; false if that is not all.
func (o *output) append(text []byte) bool {
	n, err := o.file.Write(text)
	o.size += int64(n)
	if n > 0 {
		o.midLine = text[n-1] != '\n'
	}
	return err == nil
}

// appendNote writes a line of the shim's own; false if not all of it was written.
func (o *output) appendNote(format string, args ...any) bool {
	return o.appendLine("unitd: " + fmt.Sprintf(format, args...))
}

// appendLine writes a line that begins a new one, also if the service has not ended its last.
func (o *output) appendLine(line string) bool {
	if o.midLine {
		line = "\n" + line
	}
	return o.append([]byte(line + "\n"))
}

// markStart writes the line that stands before all output of a start.
func (o *output) markStart(unitName string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.appendLine(unit.StartMark + unitName)
}

// rotate makes the current file the previous one and begins a new file. The old
// file stays open, and in use, until the new one is open. If the rotation fails
// it is tried again after rotateAgainAfter more bytes.
func (o *output) rotate() {
	file, err := o.nextFile()
	if err == nil {
		_ = o.file.Close()
		o.setFile(file)
		return
	}
	if o.size >= 2*maxLog && o.file.Truncate(0) == nil {
		o.size, o.complaint = 0, "" // the reason was emptied too
	}
	o.rotateAt = max(maxLog, o.size+rotateAgainAfter)
	o.complain(err)
}

// nextFile renames the current file and opens its successor. If there is no
// successor, the current file gets its name back.
func (o *output) nextFile() (*os.File, error) {
	current, previous := filepath.Join(o.dir, currentLog), filepath.Join(o.dir, previousLog)
	// Missing: the log's directory was removed, or an earlier attempt could not give the name back.
	if err := os.Rename(current, previous); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	file, err := openLogFile(o.dir)
	if err != nil {
		_ = os.Rename(previous, current)
	}
	return file, err
}

// complain writes into the log why it was not rotated, once until a rotation succeeds or fails for another reason.
func (o *output) complain(err error) {
	if o.complaint == err.Error() {
		return
	}
	o.complaint = err.Error()
	o.appendNote("the log cannot be rotated and goes on in the same file: %s", o.complaint)
}

// writeLine adds a line of the shim's own.
func (o *output) writeLine(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.appendNote(format, args...)
}

// Tail returns the last lines of a unit's log, at most limit bytes, as clean
// UTF-8 text: no escape sequences, no control characters but tab and line
// break. A unit that wrote nothing has an empty log. If only the previous file
// cannot be read, the log says so in its first line.
func Tail(dir string, lines, limit int) (string, error) {
	text, whole, err := tailFile(filepath.Join(dir, currentLog), limit)
	if err != nil {
		return "", err
	}
	if whole && strings.Count(text, "\n") < lines {
		before, _, err := tailFile(filepath.Join(dir, previousLog), limit-len(text))
		if err != nil {
			before = "unitd: the earlier part of this log is missing: " + err.Error() + "\n"
		}
		text = before + text
	}
	return lastLines(lastBytes(Clean(text), limit), lines), nil
}

// lastBytes cuts clean text to a length: a byte that is no UTF-8 becomes a character of three.
func lastBytes(text string, limit int) string {
	from := max(0, len(text)-limit)
	for from < len(text) && !utf8.RuneStart(text[from]) {
		from++
	}
	return text[from:]
}

// tailFile reads the last limit bytes of a file, from the start of a line unless that line has half of them, and tells
// whether that is the whole file.
func tailFile(name string, limit int) (string, bool, error) {
	file, err := os.Open(name)
	if os.IsNotExist(err) {
		return "", true, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("read log: %w", err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return "", false, fmt.Errorf("read log: %w", err)
	}
	from := max(0, info.Size()-int64(limit))
	text, err := io.ReadAll(io.NewSectionReader(file, from, info.Size()-from))
	if err != nil {
		return "", false, fmt.Errorf("read log: %w", err)
	}
	if int64(len(text)) < info.Size()-from { // it was emptied meanwhile
		return tailFile(name, limit)
	}
	if from > 0 {
		// A very long line is shown in part: it must not hide what stands around it.
		if broken := bytes.IndexByte(text, '\n'); broken < len(text)/2 {
			text = text[broken+1:]
		}
	}
	return string(text), from == 0, nil
}

func lastLines(text string, lines int) string {
	end := len(strings.TrimSuffix(text, "\n"))
	from := end
	for range lines {
		from = strings.LastIndexByte(text[:from], '\n')
		if from < 0 {
			return text
		}
	}
	return text[from+1:]
}

// Clean drops terminal escape sequences and control characters.
func Clean(text string) string {
	var out strings.Builder
	out.Grow(len(text))
	for i := 0; i < len(text); {
		if text[i] == 0x1b {
			i += escapeLength(text[i:])
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		if r == '\n' || r == '\t' || r >= ' ' && r != 0x7f && (r < 0x80 || r > 0x9f) {
			out.WriteRune(r)
		}
		i += size
	}
	return out.String()
}

// escapeLength is the length of the escape sequence at the start of text: CSI
// (`ESC [ … letter`), OSC (`ESC ] … BEL` or `ESC \`), or two bytes.
func escapeLength(text string) int {
	if len(text) < 2 {
		return len(text)
	}
	switch text[1] {
	case '[':
		for i := 2; i < len(text); i++ {
			if text[i] >= 0x40 && text[i] <= 0x7e {
				return i + 1
			}
			if text[i] < 0x20 {
				return i
			}
		}
		return len(text)
	case ']':
		end := strings.IndexAny(text[2:], "\a\x1b\n")
		switch {
		case end < 0:
			return len(text)
		case text[2+end] == 0x1b:
			return min(len(text), 2+end+2)
		case text[2+end] == '\n':
			return 2 + end
		}
		return 2 + end + 1
	case '\n':
		return 1
	}
	return 2
}
