package deploy

import (
	"slices"
	"sync"

	"github.com/openaperture/openaperture/pkg/unit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// line is the orders that this executor holds, in the order in which they came. It decides which of them are worked on
// at the same time:
//
//   - at most room orders are in hand;
//   - of the orders that share a key one is in hand, and the others wait in order: one order per component, and one per
//     unit base name;
//   - asking git hosts what refs stand for needs no room, and is done for one order at a time;
//   - a probe needs no room and waits for nobody.
//
// It is safe for concurrent use.
type line struct {
	mu      sync.Mutex
	room    int
	places  []*place
	closed  bool
	drained chan struct{} // closed when the line is closed and nothing is in hand
}

// place is the place of one order in the line.
type place struct {
	order    string
	keys     []string
	roomless bool // the order needs no room
	claim    placeState
	turn     chan struct{} // closed when the order's turn has come
}

// placeState is how far an order in the line is.
type placeState uint8

const (
	claiming placeState = iota // it is not known yet whether the order is ours
	waiting                    // for its turn
	inHand                     // worked on
	probing                    // worked on, and nothing to be finished at a stop
)

func newLine(room int) *line { return &line{room: room, drained: make(chan struct{})} }

// reserve takes the last place for an order; false means that the order has a place already.
func (l *line) reserve(orderID string) (*place, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.ContainsFunc(l.places, func(p *place) bool { return p.order == orderID }) {
		return nil, false
	}
	p := &place{order: orderID, turn: make(chan struct{})}
	l.places = append(l.places, p)
	return p, true
}

// join has an order that is ours wait for its turn.
func (l *line) join(p *place, o messages.Order) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.claim, p.keys, p.roomless = waiting, keysOf(o), o.CurrentStep == messages.MilestoneResolve
	if o.CurrentStep == messages.MilestoneProbe {
		p.claim, p.keys = probing, nil
		close(p.turn)
	}
	l.advance()
}

// hasTurn tells whether the order's turn has come.
func (p *place) hasTurn() bool {
	select {
	case <-p.turn:
		return true
	default:
		return false
	}
}

// leave gives a place up.
func (l *line) leave(p *place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.places = slices.DeleteFunc(l.places, func(o *place) bool { return o == p })
	l.advance()
}

// close gives no order its turn any more, except probes.
func (l *line) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.advance()
}

// lengths are how many orders are in hand, and how many wait for their turn.
func (l *line) lengths() (hand, wait int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count(inHand), l.count(waiting)
}

// advance gives their turn to those whose turn it is; l.mu is held.
func (l *line) advance() {
	if !l.closed {
		for _, p := range turns(l.places, l.room) {
			p.claim = inHand
			close(p.turn)
		}
		return
	}
	if l.count(inHand) == 0 {
		select {
		case <-l.drained:
		default:
			close(l.drained)
		}
	}
}

func (l *line) count(s placeState) (n int) {
	for _, p := range l.places {
		if p.claim == s {
			n++
		}
	}
	return n
}

// turns are the waiting places whose turn it is: there is room, and no earlier order shares a key.
func turns(places []*place, room int) (now []*place) {
	for _, p := range places {
		if p.claim == inHand && !p.roomless {
			room--
		}
	}
	taken := map[string]bool{}
	for _, p := range places {
		free := !slices.ContainsFunc(p.keys, func(key string) bool { return taken[key] })
		for _, key := range p.keys {
			taken[key] = true
		}
		switch {
		case p.claim != waiting || !free:
		case p.roomless:
			now = append(now, p)
		case room > 0:
			now, room = append(now, p), room-1
		}
	}
	return now
}

// keysOf are what an order shares with no other order in hand: its component, and the base names of its units.
func keysOf(o messages.Order) []string {
	if o.CurrentStep == messages.MilestoneResolve {
		return []string{string(messages.MilestoneResolve)}
	}
	var keys []string
	if o.ComponentType != "" {
		keys = append(keys, "component "+o.ComponentType)
	}
	for _, base := range bases(o) {
		keys = append(keys, "unit "+base)
	}
	return keys
}

// unitNames are the names of all units that an order is about: what it deploys and what it leaves behind.
func unitNames(o messages.Order) []string {
	var list []string
	for _, u := range o.DeployableUnits {
		list = append(list, u.Name)
	}
	return append(list, o.LeavingUnits...)
}

// bases are the names before the `@` of all units that an order is about.
func bases(o messages.Order) []string {
	var list []string
	for _, u := range unitNames(o) {
		if name, err := unit.ParseName(u); err == nil && !slices.Contains(list, name.Base) {
			list = append(list, name.Base)
		}
	}
	return list
}
