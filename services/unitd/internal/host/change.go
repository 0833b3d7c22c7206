package host

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/unit"
)

// Errors that callers tell apart. Their texts are for callers of the API, in Fleet's words if Fleet has the error.
var (
	ErrUnknown     = errors.New("unit does not exist")
	ErrNoOptions   = errors.New("unit does not exist and options field empty")
	ErrNoDesired   = errors.New("must provide DesiredState to update existing unit")
	ErrInUse       = errors.New(": stop it first")
	ErrNotStored   = errors.New("this host cannot store the unit")
	errNotAService = errors.New("only .service units can be run here")
	errNameTooLong = errors.New("unit name exceeds 200 characters")
)

// maxStoredLength keeps file names below 255 bytes.
const maxStoredLength = 200

// Invalid says that a request is wrong, and how.
type Invalid struct{ Err error }

func (e Invalid) Error() string { return e.Err.Error() }
func (e Invalid) Unwrap() error { return e.Err }

// Superseded says that a change carried a lower token than the unit has seen (docs/deployment.md#fencing).
type Superseded struct {
	Unit        string
	Token, Held int64
}

func (e Superseded) Error() string {
	return fmt.Sprintf("superseded: token %d is lower than %d held by unit %s", e.Token, e.Held, e.Unit)
}

// Change is what a PUT asks for.
type Change struct {
	Options      []unit.Option // empty: keep
	DesiredState DesiredState  // empty: keep (inactive for a new unit)
	Token        *int64        // nil: unchecked
}

// Put creates, replaces or retargets a unit; created says that there is a new
// definition. Errors: Invalid, Superseded, ErrForeign, ErrNoOptions, ErrNoDesired,
// ErrNotStored. After an error nothing has changed.
func (h *Host) Put(ctx context.Context, name string, c Change) (bool, error) {
	parsed, err := parseName(name)
	if err != nil {
		return false, Invalid{err}
	}
	if c.DesiredState != "" && !c.DesiredState.Valid() {
		return false, Invalid{fmt.Errorf("invalid desiredState %q", c.DesiredState)}
	}
	if len(c.Options) > 0 {
		parsedService, err := h.cfg.parse(parsed, h.cfg.Hostname, c.Options)
		if err != nil {
			return false, Invalid{err}
		}
		if len(parsedService.Ignored) > 0 && !h.cfg.Backend.Honours() {
			h.cfg.Log.Warn("unit has options without effect", zap.String("unit", name),
				zap.Strings("options", parsedService.Ignored))
		}
	}
	if !parsed.IsTemplate() { // a template is kept, never run
		if err := h.cfg.Backend.Check(ctx, name, c.Options); err != nil {
			return false, err
		}
	}
	h.change.Lock()
	defer h.change.Unlock()
	old := h.record(name)
	changed, created, err := h.reviseRecord(old, c)
	if err != nil {
		return false, err
	}
	return created, h.storeRecord(old, changed)
}

// reviseRecord applies a change to a record without storing it.
func (h *Host) reviseRecord(old record, c Change) (record, bool, error) {
	changed := old
	if err := admitToken(&changed, c.Token); err != nil {
		return old, false, err
	}
	exists := old.Generation != "" && !old.Deleted
	created := len(c.Options) > 0 && (!exists || !unit.Equal(c.Options, old.Options))
	switch {
	case !exists && len(c.Options) == 0:
		return old, false, ErrNoOptions
	case exists && !created && c.DesiredState == "":
		return old, false, ErrNoDesired
	case !exists:
		changed.Deleted, changed.DesiredState = false, Inactive
	}
	if len(c.Options) > 0 {
		changed.Options = slices.Clone(c.Options)
	}
	if c.DesiredState != "" {
		changed.DesiredState = c.DesiredState
	}
	before := old.DesiredState
	if !exists {
		before = Inactive
	}
	if before == Inactive && changed.DesiredState != Inactive {
		changed.Since = h.nextIndex()
	}
	if created || before != Launched && changed.DesiredState == Launched {
		changed.Generation = uuid.NewString()
	}
	return changed, created, nil
}

// admitToken refuses a token that is lower than the unit's, and keeps the higher one.
func admitToken(r *record, token *int64) error {
	if token == nil {
		return nil
	}
	if *token < r.Token {
		return Superseded{Unit: r.Name, Token: *token, Held: r.Token}
	}
	r.Token = *token
	return nil
}

// Delete forgets a unit and stops it. Errors: ErrUnknown, Superseded, ErrNotStored.
func (h *Host) Delete(name string, token *int64) error {
	h.change.Lock()
	defer h.change.Unlock()
	old := h.record(name)
	if old.Generation == "" || old.Deleted {
		return ErrUnknown
	}
	changed := record{Name: name, Deleted: true, Token: old.Token}
	if err := admitToken(&changed, token); err != nil {
		return err
	}
	return h.storeRecord(old, changed)
}

// storeRecord makes a changed record durable and then effective; h.change is held.
func (h *Host) storeRecord(old, changed record) error {
	if equalRecords(old, changed) {
		return nil
	}
	gone := changed.Deleted && changed.Token == 0
	var err error
	if gone {
		err = h.files.remove(changed.Name)
	} else {
		err = h.files.save(changed)
	}
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.records[changed.Name] = changed
	if gone {
		delete(h.records, changed.Name)
	}
	h.reconcile()
	return nil
}

func equalRecords(a, b record) bool {
	return a.Deleted == b.Deleted && a.DesiredState == b.DesiredState && a.Token == b.Token &&
		a.Generation == b.Generation && slices.Equal(a.Options, b.Options)
}

func (h *Host) record(name string) record {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r, ok := h.records[name]; ok {
		return r
	}
	return record{Name: name}
}

func (h *Host) nextIndex() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.index++
	return h.index
}

// parseName accepts the names of Fleet that can be run and stored here.
func parseName(name string) (unit.Name, error) {
	parsed, err := unit.ParseName(name)
	switch {
	case err != nil:
		return unit.Name{}, err
	case parsed.Type != "service":
		return unit.Name{}, errNotAService
	case len(name) > maxStoredLength:
		return unit.Name{}, errNameTooLong
	}
	return parsed, nil
}
