package deploy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// files is the directory of work files: one JSON file per order, whole or not there.
type files struct {
	dir  string
	disk disk
}

var orderIDPattern = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z_-]{0,99}$`)

// lock takes the state directory for this process alone: two executors would finish each other's work.
func lock(stateDir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(stateDir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state_dir: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock state_dir: another process uses %s: %w", stateDir, err), f.Close())
	}
	return f, nil
}

func newFiles(stateDir string) (files, error) {
	f := files{dir: filepath.Join(stateDir, "work"), disk: realDisk}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return f, fmt.Errorf("make work directory: %w", err)
	}
	if err := f.disk.syncDirectory(stateDir); err != nil {
		return f, fmt.Errorf("make work directory: %w", err)
	}
	return f, nil
}

func (f files) path(orderID string) string { return filepath.Join(f.dir, orderID+".json") }

// save writes a work file, which survives the loss of power once save has returned.
func (f files) save(w *work) error {
	text, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("encode work on order %s: %w", w.Order.OrderID, err)
	}
	if err := f.disk.writeFile(f.path(w.Order.OrderID), text); err != nil {
		return fmt.Errorf("save work on order %s: %w", w.Order.OrderID, err)
	}
	return nil
}

// disk is how files get onto the disk. Specs replace its parts.
type disk struct {
	sync   func(*os.File) error
	rename func(from, to string) error
}

var realDisk = disk{sync: (*os.File).Sync, rename: os.Rename}

// writeFile replaces a file as a whole: after a loss of power there is the file from before or the new one. The new
// text is on the disk before it gets the file's name, and the name before writeFile returns.
func (d disk) writeFile(path string, text []byte) error {
	fresh := path + ".new"
	file, err := os.OpenFile(fresh, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = d.sync(file)
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := d.rename(fresh, path); err != nil {
		return err
	}
	return d.syncDirectory(filepath.Dir(path))
}

func (d disk) syncDirectory(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.sync(f), f.Close())
}

func (f files) remove(orderID string) error {
	err := os.Remove(f.path(orderID))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove work on order %s: %w", orderID, err)
	}
	return nil // not synced: a file that comes back is settled once more
}

// load reads all work files, the oldest token first. A damaged file is set aside and named in damaged; the others
// count.
func (f files) load() (all []*work, damaged, err error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("read work directory: %w", err)
	}
	for _, entry := range entries {
		id, ok := strings.CutSuffix(entry.Name(), ".json")
		if !ok {
			continue // an unfinished write
		}
		w, err := f.read(id)
		if err != nil {
			damaged = errors.Join(damaged, err, os.Rename(f.path(id), f.path(id)+".damaged"))
			continue
		}
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b *work) int { return int(a.Token - b.Token) })
	return all, damaged, nil
}

func (f files) read(orderID string) (*work, error) {
	text, err := os.ReadFile(f.path(orderID))
	if err != nil {
		return nil, fmt.Errorf("read work on order %s: %w", orderID, err)
	}
	var w work
	if err := json.Unmarshal(text, &w); err != nil || w.Order.OrderID != orderID {
		return nil, fmt.Errorf("read work on order %s: the file is damaged", orderID)
	}
	return &w, nil
}
