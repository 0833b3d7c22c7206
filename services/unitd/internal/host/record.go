package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/openaperture/openaperture/pkg/unit"
)

// DesiredState is what Fleet calls a unit's target.
type DesiredState string

// The desired states of Fleet.
const (
	Inactive DesiredState = "inactive"
	Loaded   DesiredState = "loaded"
	Launched DesiredState = "launched"
)

// Valid tells whether it is one of the three.
func (d DesiredState) Valid() bool { return d == Inactive || d == Loaded || d == Launched }

// record is what is kept of one unit: its file is the truth, fsynced before a
// change is answered. A deleted unit whose token is known leaves a tombstone
// for a while.
type record struct {
	Name         string        `json:"name"`
	Deleted      bool          `json:"deleted,omitempty"`
	Options      []unit.Option `json:"options,omitempty"`
	DesiredState DesiredState  `json:"desired_state,omitempty"`
	Token        int64         `json:"token,omitempty"` // the highest one seen
	// Generation changes with every new definition and every launch: what runs under another one is replaced.
	Generation string `json:"generation,omitempty"`
	// Since orders the units by age for placement: when it last began to want a place.
	Since uint64 `json:"since,omitempty"`
}

// tombstoneLife is for how long the token of a deleted unit is held: longer than any order that carries one.
const tombstoneLife = 30 * 24 * time.Hour

// records is the directory of record files.
type records struct{ dir string }

// load reads every record, and removes tombstones that are older than tombstoneLife. A file that cannot be read is an
// error. Without its record a unit would count as deleted, and its processes would be stopped.
func (r records) load() (map[string]record, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, fmt.Errorf("read units: %w", err)
	}
	all := map[string]record{}
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), ".json")
		if !ok {
			continue // an unfinished write
		}
		text, err := os.ReadFile(filepath.Join(r.dir, entry.Name()))
		if err != nil {
			return nil, fmt.Errorf("read unit: %w", err)
		}
		var one record
		if err := json.Unmarshal(text, &one); err != nil || one.Name != name {
			return nil, fmt.Errorf("read unit: %s is damaged: restore or remove it", filepath.Join(r.dir, entry.Name()))
		}
		if info, err := entry.Info(); err == nil && one.Deleted && time.Since(info.ModTime()) > tombstoneLife {
			if err := r.remove(name); err != nil {
				return nil, err
			}
			continue
		}
		all[name] = one
	}
	return all, nil
}

// save replaces a unit's file durably. If that fails, the file is the one before. The error is an ErrNotStored.
func (r records) save(one record) error {
	text, err := json.Marshal(one)
	if err != nil {
		return fmt.Errorf("save unit %s: %w", one.Name, err)
	}
	if err := replaceSynced(filepath.Join(r.dir, one.Name+".json"), text); err != nil {
		return fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	return nil
}

func (r records) remove(name string) error {
	err := os.Remove(filepath.Join(r.dir, name+".json"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	return syncDirectory(r.dir)
}

// replaceSynced replaces a file durably: write beside it, fsync, rename, fsync of the directory. A write that fails
// leaves nothing.
func replaceSynced(name string, text []byte) error {
	err := writeSynced(name+".new", text)
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		_ = os.Remove(name + ".new") // it may hold the last free space
		return err
	}
	return syncDirectory(filepath.Dir(name))
}

func writeSynced(name string, text []byte) error {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	err = errors.Join(d.Sync(), d.Close())
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
