package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	currentLog  = "current.log"
	previousLog = "previous.log"
	// maxLog is the size at which the current log becomes the previous one: a
	// unit keeps at most twice as much.
	maxLog = 4 << 20
	// measureEvery is the time between two looks at the size of a log that the unit writes itself.
	measureEvery = time.Second
)

// output is the unit's log: two files, rotated by size. Output must never stop
// a service: what cannot be written (disk full) is dropped.
type output struct {
	dir    string
	shared bool // the unit writes into the current file itself, which therefore stays the current one
	mu     sync.Mutex
	file   *os.File
	size   int64
}

// openOutput opens the log in dir. shared: it is keepShort that rotates it.
func openOutput(dir string, shared bool) (*output, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make log directory: %w", err)
	}
	o := &output{dir: dir, shared: shared}
	err := o.open()
	if err == nil && shared {
		o.moveOut()
	}
	return o, err
}

// keepShort rotates a shared log for the life of the process.
func (o *output) keepShort() {
	for range time.Tick(measureEvery) {
		o.moveOut()
	}
}

// moveOut empties the file of a shared log if it is full: everybody appends, so that they go on at its start. Its end becomes
// the previous log, as far as that can be written; what is written between the two steps is lost.
func (o *output) moveOut() {
	o.mu.Lock()
	defer o.mu.Unlock()
	info, err := o.file.Stat()
	if err != nil || info.Size() < maxLog {
		return
	}
	_ = copyEnd(filepath.Join(o.dir, previousLog), filepath.Join(o.dir, currentLog), info.Size())
	_ = o.file.Truncate(0) // else the next time
}

// copyEnd copies the last maxLog bytes of a file and what is added meanwhile, at most as much again.
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

func (o *output) open() error {
	file, err := openLogFile(o.dir)
	if err != nil {
		return err
	}
	o.file, o.size = file, 0
	if info, err := file.Stat(); err == nil {
		o.size = info.Size()
	}
	return nil
}

func openLogFile(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, currentLog), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return file, nil
}

// Write appends to the log and always claims success.
func (o *output) Write(text []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.size >= maxLog && !o.shared {
		o.rotate()
	}
	if o.file != nil {
		n, _ := o.file.Write(text)
		o.size += int64(n)
	}
	return len(text), nil
}

func (o *output) rotate() {
	_ = o.file.Close()
	o.file = nil
	_ = os.Rename(filepath.Join(o.dir, currentLog), filepath.Join(o.dir, previousLog))
	_ = o.open() // without a file, output is dropped until the next rotation
	if o.file == nil {
		o.size = 0
	}
}

// say adds a line of the shim's own.
func (o *output) say(format string, args ...any) {
	_, _ = fmt.Fprintf(o, "unitd: "+format+"\n", args...)
}

// Tail returns the last lines of a unit's log, at most limit bytes, as clean
// UTF-8 text: no escape sequences, no control characters but tab and line
// break. A unit that wrote nothing has an empty log.
func Tail(dir string, lines, limit int) (string, error) {
	text, whole, err := tailFile(filepath.Join(dir, currentLog), limit)
	if err != nil {
		return "", err
	}
	if whole && strings.Count(text, "\n") < lines {
		before, _, err := tailFile(filepath.Join(dir, previousLog), limit-len(text))
		if err != nil {
			return "", err
		}
		text = before + text
	}
	return lastLines(Clean(text), lines), nil
}

// tailFile reads the last limit bytes of a file from the start of a line, and tells whether that is the whole file.
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
		if _, rest, ok := strings.Cut(string(text), "\n"); ok {
			return rest, false, nil
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
