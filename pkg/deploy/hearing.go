package deploy

import (
	"sync"
	"time"
)

// hearing remembers when the broker was away, as far as this process has seen it.
type hearing struct {
	mu      sync.Mutex
	firstAt time.Time // when the broker was usable first; zero: not yet
	lostAt  time.Time // when it was last seen to be away, or to have been, after that
	session uint64
}

// note takes in what the broker says of itself now.
func (h *hearing) note(ready bool, session uint64, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.firstAt.IsZero() && ready:
		h.firstAt, h.session = now, session
	case h.firstAt.IsZero():
	case !ready || session != h.session:
		h.lostAt, h.session = now, session
	}
}

// missing tells whether the broker was away since then, or came only when a quarter of limit was over.
func (h *hearing) missing(since time.Time, limit time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.firstAt.IsZero() || h.firstAt.After(since.Add(limit/4)) || !h.lostAt.Before(since)
}

// listen notes every change of the broker until finished is closed.
func (e *Engine) listen(finished <-chan struct{}) {
	for {
		changed := e.cfg.Broker.Watch()
		e.look()
		select {
		case <-changed:
		case <-finished:
			return
		}
	}
}

func (e *Engine) look() {
	e.hears.note(e.cfg.Broker.Ready() == nil, e.cfg.Broker.Session(), e.cfg.Now())
}
