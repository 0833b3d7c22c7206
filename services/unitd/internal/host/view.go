package host

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/openaperture/openaperture/pkg/unit"
)

// Unit is a unit as Fleet shows one.
type Unit struct {
	CurrentState DesiredState  `json:"currentState,omitempty"`
	DesiredState DesiredState  `json:"desiredState,omitempty"`
	MachineID    string        `json:"machineID,omitempty"`
	Name         string        `json:"name"`
	Options      []unit.Option `json:"options"`
}

// reconcile tells every supervisor what is wanted of its unit; h.mu is held.
// Units without a supervisor get one when they are to run.
func (h *Host) reconcile() {
	h.placed = placeUnits(h.machine, h.candidates())
	for name, r := range h.records {
		if !runnable(name) || r.Deleted || r.DesiredState == Inactive && h.supervisors[name] == nil {
			continue
		}
		h.ensureSupervisor(name).setWanted(h.wantedOf(r))
	}
	for name, s := range h.supervisors {
		if r, ok := h.records[name]; !ok || r.Deleted {
			s.setWanted(want{forgotten: true})
		}
	}
	h.refreshStates()
}

// wantedOf derives from a record what is wanted of its unit; h.mu is held.
func (h *Host) wantedOf(r record) want {
	d := h.definition(r)
	return want{
		generation: r.Generation, options: r.Options, service: d.service, unreadable: d.err != nil,
		launched: r.DesiredState == Launched && (h.placed[r.Name] || d.err != nil),
	}
}

// runnable tells whether a unit of this name can be run: a template is kept, never run.
func runnable(name string) bool {
	parsed, err := unit.ParseName(name)
	return err == nil && !parsed.IsTemplate()
}

// candidates are the units that want a place, oldest first; h.mu is held.
func (h *Host) candidates() []unit.Placeable {
	var list []unit.Placeable
	for _, r := range h.records {
		if !runnable(r.Name) || r.Deleted || r.DesiredState == Inactive {
			continue
		}
		if d := h.definition(r); d.err == nil {
			list = append(list, d.candidate)
		}
	}
	slices.SortFunc(list, func(a, b unit.Placeable) int {
		return cmp.Or(cmp.Compare(h.records[a.Name].Since, h.records[b.Name].Since), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// observeUnit takes a supervisor's news.
func (h *Host) observeUnit(s *supervisor, have have, status Status, then step) {
	h.mu.Lock()
	defer h.mu.Unlock()
	state := describeState(State{Name: s.name, MachineID: h.machine.ID}, have, status, then)
	state.Hash = s.wanted().service.Hash
	if have.alive {
		state.Hash = have.hash // of the running definition, not of the wanted one
	}
	h.recordState(s.name, unitState{state: state, alive: have.alive, generation: have.generation})
}

// refreshStates reconsiders which states are shown after a change of records; h.mu is held.
func (h *Host) refreshStates() {
	for name, s := range h.states {
		h.recordState(name, s)
	}
}

// recordState stores a unit's state. If the state shows something new, it wakes everybody who waits; h.mu is held.
func (h *Host) recordState(name string, s unitState) {
	before := h.states[name]
	r, ok := h.records[name]
	wanted := ok && !r.Deleted && r.DesiredState != Inactive
	s.listed = s.alive || wanted && h.placed[name]
	s.index = before.index
	news := s.listed != before.listed || s.listed && s.state != before.state
	if news {
		h.index++
		s.index = h.index
		close(h.changed)
		h.changed = make(chan struct{})
	}
	h.states[name] = s
}

// Machine is this host.
func (h *Host) Machine() Machine { return h.machine }

// Units lists all units by name.
func (h *Host) Units() []Unit {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []Unit
	for _, name := range slices.Sorted(maps.Keys(h.records)) {
		if r := h.records[name]; !r.Deleted {
			list = append(list, h.showUnit(r, h.placed[name]))
		}
	}
	return list
}

// Unit shows one unit. A global one has neither current state nor machine.
func (h *Host) Unit(name string) (Unit, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, ok := h.records[name]
	if !ok || r.Deleted {
		return Unit{}, ErrUnknown
	}
	shown := h.showUnit(r, h.placed[name])
	if unit.IsGlobal(r.Options) {
		shown.CurrentState = ""
	}
	return shown, nil
}

// showUnit is the unit of a record as Fleet shows one; h.mu is held.
func (h *Host) showUnit(r record, placed bool) Unit {
	shown := Unit{Name: r.Name, Options: r.Options, DesiredState: r.DesiredState, CurrentState: Inactive}
	if unit.IsGlobal(r.Options) {
		return shown
	}
	s := h.states[r.Name]
	switch {
	case s.alive || placed && r.DesiredState == Launched && s.generation == r.Generation:
		shown.CurrentState = Launched
	case placed && r.DesiredState == Loaded:
		shown.CurrentState = Loaded
	}
	if placed {
		shown.MachineID = h.machine.ID
	}
	return shown
}

// States lists the states of all units that are placed here or still run, by name.
func (h *Host) States() ([]State, uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []State
	for _, name := range slices.Sorted(maps.Keys(h.states)) {
		if s := h.states[name]; s.listed {
			list = append(list, s.state)
		}
	}
	return list, h.index
}

// State shows one unit's state and its change index; false if the unit has no state.
func (h *Host) State(name string) (State, uint64, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok := h.states[name]
	if !ok {
		return State{}, h.epoch, false
	}
	return s.state, s.index, s.listed
}

// Wait returns when the change index of a unit differs from seen, after limit,
// when ctx ends, or when stopping is closed.
func (h *Host) Wait(ctx context.Context, name string, seen uint64, limit time.Duration, stopping <-chan struct{}) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		h.mu.Lock()
		changed := h.changed
		index := h.epoch
		if s, ok := h.states[name]; ok {
			index = s.index
		}
		h.mu.Unlock()
		if index != seen {
			return
		}
		select {
		case <-changed:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		case <-stopping:
			return
		}
	}
}

// Logs returns the last lines of a unit's log as clean text, at most limit bytes.
func (h *Host) Logs(ctx context.Context, name string, lines, limit int) (string, error) {
	if _, err := h.Unit(name); err != nil {
		return "", err
	}
	return h.cfg.Backend.Logs(ctx, name, lines, limit)
}

// Counts are the numbers of units by systemd's active state, for metrics.
func (h *Host) Counts() map[string]int {
	list, _ := h.States()
	counts := map[string]int{}
	for _, s := range list {
		counts[s.Active]++
	}
	return counts
}
