package systemd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/openaperture/openaperture/pkg/unit"
)

// markPrefix begins the first line of every unit file that a unitd has written. The machine's id
// follows: a second unitd on the host has another id and leaves the file alone.
const markPrefix = "# X-OpenAperture: written by unitd "

// unitFiles is the directory in which unitd writes its unit files.
type unitFiles struct {
	dir     string
	machine string // whose files they are
}

func (f unitFiles) mark() string { return markPrefix + f.machine }

// temporary begins the names of unfinished writes of this machine's unitd. A second unitd on the
// host has another prefix.
func (f unitFiles) temporary() string { return temporaryPrefix + f.machine + "-" }

func (f unitFiles) path(name string) string { return filepath.Join(f.dir, name) }

// ownership tells whether there is a regular file of that name, and whether it has the mark.
func (f unitFiles) ownership(name string) (exists, ours bool, err error) {
	info, err := os.Lstat(f.path(name))
	if errors.Is(err, os.ErrNotExist) {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("look for unit file: %w", err)
	}
	if !info.Mode().IsRegular() { // a link is not unitd's; a link to /dev/null masks the unit
		return true, false, nil
	}
	file, err := os.Open(f.path(name))
	if err != nil {
		return true, false, fmt.Errorf("read unit file: %w", err)
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	return true, lines.Scan() && lines.Text() == f.mark(), nil
}

// list names the unit files with the mark.
func (f unitFiles) list() ([]string, error) {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read unit files: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".service") {
			continue
		}
		if _, ours, err := f.ownership(entry.Name()); err == nil && ours {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// text is a unit file with the mark.
func (f unitFiles) text(options []unit.Option) []byte {
	return []byte(f.mark() + "\n" + unit.Render(withoutStartLimit(options)))
}

// write replaces a unit file atomically and durably. A file that has the text already is left. So an earlier definition
// can be restored although the directory takes nothing new.
func (f unitFiles) write(name string, options []unit.Option) error {
	if f.has(name, options) {
		return nil
	}
	if err := os.MkdirAll(f.dir, 0o755); err != nil { //nolint:gosec // systemd's directory of unit files is public
		return fmt.Errorf("write unit file: %w", err)
	}
	return replaceFile(f.path(name), f.temporary(), f.text(options), 0o644)
}

// tryWrite tells whether write would succeed.
func (f unitFiles) tryWrite(name string, options []unit.Option) error {
	if f.has(name, options) {
		return nil
	}
	if err := os.MkdirAll(f.dir, 0o755); err != nil { //nolint:gosec // as in write
		return fmt.Errorf("write unit file: %w", err)
	}
	temporary, err := writeTemporary(f.dir, f.temporary(), f.text(options), 0o644)
	if err == nil {
		err = os.Remove(temporary)
	}
	if err != nil {
		return fmt.Errorf("write unit file: %w", err)
	}
	return nil
}

// has tells whether the unit file is a regular one with this very text.
func (f unitFiles) has(name string, options []unit.Option) bool {
	_, ours, err := f.ownership(name)
	if err != nil || !ours {
		return false
	}
	text, err := os.ReadFile(f.path(name))
	return err == nil && bytes.Equal(text, f.text(options))
}

// remove removes a unit file that has the mark.
func (f unitFiles) remove(name string) (bool, error) {
	_, ours, err := f.ownership(name)
	if err != nil || !ours {
		return false, err
	}
	if err := os.Remove(f.path(name)); err != nil {
		return false, fmt.Errorf("remove unit file: %w", err)
	}
	return true, syncDirectory(f.dir)
}

// withoutStartLimit switches systemd's limit of starts off, unless the unit sets one.
func withoutStartLimit(options []unit.Option) []unit.Option {
	for _, o := range options {
		if slices.Contains([]string{"StartLimitIntervalSec", "StartLimitInterval", "StartLimitBurst"}, o.Name) {
			return options
		}
	}
	return append(slices.Clone(options), unit.Option{Section: "Unit", Name: "StartLimitIntervalSec", Value: "0"})
}

// temporaryPrefix begins the names of temporary files. No unit has such a name, so systemd never reads the files.
const temporaryPrefix = ".unitd-"

// replaceFile writes a temporary file in the same directory, whose name begins with prefix, syncs and renames it.
func replaceFile(name, prefix string, text []byte, mode os.FileMode) error {
	temporary, err := writeTemporary(filepath.Dir(name), prefix, text, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(temporary, name); err != nil {
		_ = os.Remove(temporary)
		return fmt.Errorf("write %s: %w", name, err)
	}
	return syncDirectory(filepath.Dir(name))
}

// writeTemporary writes a file whose name begins with prefix, syncs it and returns its path. After an error nothing is
// left of the file.
func writeTemporary(dir, prefix string, text []byte, mode os.FileMode) (string, error) {
	file, err := os.CreateTemp(dir, prefix+"*")
	if err != nil {
		return "", err
	}
	_, err = file.Write(text)
	if err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close()); err != nil {
		_ = os.Remove(file.Name())
	}
	return file.Name(), err
}

// removeUnfinished removes the temporary files of calls of replaceFile that were killed.
func removeUnfinished(dir, prefix string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove unfinished files: %w", err)
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), prefix) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
			return fmt.Errorf("remove unfinished file: %w", err)
		}
	}
	return nil
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
