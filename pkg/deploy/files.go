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
type files struct{ dir string }

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
	f := files{dir: filepath.Join(stateDir, "work")}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return f, fmt.Errorf("make work directory: %w", err)
	}
	return f, nil
}

func (f files) path(orderID string) string { return filepath.Join(f.dir, orderID+".json") }

// save writes a work file. A durable one survives the loss of power once save has returned; the other may come back as it
// was before, which must do no harm.
func (f files) save(w *work, durable bool) error {
	text, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("encode work on order %s: %w", w.Order.OrderID, err)
	}
	if err := writeFile(f.path(w.Order.OrderID), text, durable); err != nil {
		return fmt.Errorf("save work on order %s: %w", w.Order.OrderID, err)
	}
	return nil
}

// writeFile replaces a file as a whole.
func writeFile(path string, text []byte, durable bool) error {
	fresh := path + ".new"
	file, err := os.OpenFile(fresh, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil && durable {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil || !durable {
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f files) remove(orderID string) error {
	err := os.Remove(f.path(orderID))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove work on order %s: %w", orderID, err)
	}
	return nil // not synced: a file that comes back is settled once more
}

// load reads all work files, oldest token first. A damaged one is set aside and named in damaged; the others count.
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
