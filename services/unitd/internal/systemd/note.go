package systemd

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// note is what unitd keeps of a unit that it gave to systemd.
type note struct {
	Generation string    `json:"generation"`
	Hash       string    `json:"hash"`
	BootID     string    `json:"boot_id"`
	Before     string    `json:"before"`  // its invocation ID before the order to start it; empty: none
	Taken      bool      `json:"taken"`   // systemd has taken the order to start it
	Stopped    bool      `json:"stopped"` // it ended because unitd asked for it
	Created    time.Time `json:"created"` // when unitd took the unit: its log begins there
}

// ranSinceOrder tells whether a unit with these properties was started since the order that the note is of.
func (n note) ranSinceOrder(p properties) bool {
	invocation := p.invocation()
	return n.Taken || invocation != "" && invocation != n.Before
}

// notes is the directory of the notes.
type notes struct{ dir string }

func (n notes) path(name string) string { return filepath.Join(n.dir, name+".json") }

func (n notes) read(name string) (note, bool, error) {
	var one note
	text, err := os.ReadFile(n.path(name))
	if errors.Is(err, os.ErrNotExist) {
		return one, false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &one)
	}
	if err != nil {
		return note{}, false, fmt.Errorf("read note of unit %s: %w", name, err)
	}
	return one, true, nil
}

func (n notes) write(name string, one note) error {
	text, err := json.Marshal(one)
	if err != nil {
		return fmt.Errorf("write note of unit %s: %w", name, err)
	}
	return replaceFile(n.path(name), temporaryPrefix, text, 0o600)
}

func (n notes) remove(name string) error {
	if err := os.Remove(n.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove note of unit %s: %w", name, err)
	}
	return nil
}

func (n notes) list() ([]string, error) {
	entries, err := os.ReadDir(n.dir)
	if err != nil {
		return nil, fmt.Errorf("read notes of units: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if name, ok := strings.CutSuffix(entry.Name(), ".json"); ok {
			names = append(names, name)
		}
	}
	return names, nil
}
