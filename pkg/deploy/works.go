package deploy

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/roll"
)

// works are the deploys that this executor has not done with: their files, and those of them that are confirmed and
// under guard. It is safe for concurrent use. Work that is not guarded belongs to the goroutine that performs its
// order.
type works struct {
	files   files
	log     *zap.Logger
	now     func() time.Time
	session func() uint64 // of the broker
	wake    chan struct{} // rings the settling of confirmed work

	mu      sync.Mutex
	guarded map[string]*guarded // by order id
}

// guarded is confirmed work that is not settled. Since quiet it has waited in vain: with this process alive, the broker
// usable and nobody who watches over the order. session is the broker's at that time.
type guarded struct {
	work    *work
	quiet   time.Time
	session uint64
}

// advance moves work to its next stage and writes that down; ended work loses its file. It is the one function that
// changes a stage. An error says that the event does not happen, and nothing has changed, or that the disk does not
// take the file.
func (b *works) advance(w *work, e event) error {
	next, err := w.Stage.after(e)
	if err != nil {
		return fmt.Errorf("work on order %s: %w", w.Order.OrderID, err)
	}
	if e == retaken && w.Stage != rolling { // what runs now may be the former attempt's doing: what was found stays
		w.Progress, w.Disturbed, w.Result = roll.Progress{}, "", nil
	}
	if e == overdue {
		w.Progress = roll.Progress{}
	}
	w.Stage = next
	if next == ended {
		return b.files.remove(w.Order.OrderID)
	}
	return b.files.save(w)
}

// note is advance where a failing disk changes nothing: the file before this event leads to the same end.
func (b *works) note(w *work, e event) {
	if err := b.advance(w, e); err != nil {
		b.log.Error("work not saved", zap.String("order_id", w.Order.OrderID), zap.String("event", string(e)), zap.Error(err))
	}
}

// load reads the works that an earlier process has left, the oldest token first. A damaged file is set aside. A file of
// a newer release, whose stage is not known here, stays where it is.
func (b *works) load() ([]*work, error) {
	all, damaged, err := b.files.load()
	if err != nil {
		return nil, err
	}
	if damaged != nil {
		b.log.Error("work file is damaged and was set aside", zap.Error(damaged))
	}
	return slices.DeleteFunc(all, func(w *work) bool {
		if w.Stage.known() {
			return false
		}
		b.log.Error("work file is of a newer release and is left alone: start that release, or see to the order's instances",
			zap.String("order_id", w.Order.OrderID), zap.String("stage", string(w.Stage)))
		return true
	}), nil
}

// track has confirmed work settled in the background, soon.
func (b *works) track(w *work, since time.Time) {
	b.guard(w, since)
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// guard has confirmed work settled in the background. Its time has run since then; zero: it begins now.
func (b *works) guard(w *work, since time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if since.IsZero() {
		since = b.now()
	}
	b.guarded[w.Order.OrderID] = &guarded{work: w, quiet: since, session: b.session()}
}

// list is the guarded work.
func (b *works) list() []*guarded {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]*guarded, 0, len(b.guarded))
	for _, g := range b.guarded {
		all = append(all, g)
	}
	return all
}

// undoAt is when guarded work has waited in vain for long enough.
func (b *works) undoAt(g *guarded) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return undoAt(g.work, g.quiet)
}

// heard begins the time anew that leads to an undo, if there was a gap in which nobody could have learned of the
// result.
func (b *works) heard(g *guarded, gap bool) {
	now, session := b.now(), b.session()
	b.mu.Lock()
	defer b.mu.Unlock()
	if gap || session != g.session {
		g.quiet, g.session = now, session
	}
}

// unguard takes work out of the guard; false means that it is not there any more: forgotten, or another attempt's.
func (b *works) unguard(g *guarded) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	there := b.guarded[g.work.Order.OrderID] == g
	if there {
		delete(b.guarded, g.work.Order.OrderID)
	}
	return there
}

// left is what an earlier attempt at an order has left, nil if nothing, and since when its guard has waited; zero: it
// was not guarded. It is not any more.
func (b *works) left(orderID string) (w *work, quiet time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if g, ok := b.guarded[orderID]; ok {
		delete(b.guarded, orderID)
		again := *g.work // the guard may still be looking at it
		return &again, g.quiet
	}
	w, _ = b.files.read(orderID)
	return w, time.Time{}
}

// forget ends the work on an order.
func (b *works) forget(w *work) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.guarded, w.Order.OrderID)
	b.note(w, closed)
}

// forgetGuarded ends work that nobody has taken out of the guard meanwhile.
func (b *works) forgetGuarded(g *guarded) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if id := g.work.Order.OrderID; b.guarded[id] == g {
		delete(b.guarded, id)
		again := *g.work // others may be looking at it
		b.note(&again, closed)
	}
}

// dropOlder ends the guard over earlier deploys of the same component: this one is newer.
func (b *works) dropOlder(w *work) {
	for _, g := range b.list() {
		o := g.work.Order
		if o.ComponentType == w.Order.ComponentType && *o.Cluster == *w.Order.Cluster && o.OrderID != w.Order.OrderID {
			b.forgetGuarded(g)
		}
	}
}
