package overseer

import (
	"errors"
	"sync"
	"time"
)

// ErrTermOver is returned by whoever wanted to act and found that the trust window has closed.
var ErrTermOver = errors.New("the term is over")

// Term is one stretch of leadership. It is trusted until shortly before the lease's row can expire, counted on this
// process's monotonic clock from before the request was sent; so a process that was stopped or paused finds at its next
// step that its time is up, whatever its timers have done meanwhile.
type Term struct {
	ID int64

	mu    sync.Mutex
	until time.Time
	over  bool
}

// NewTerm is a term that is trusted until then.
func NewTerm(id int64, until time.Time) *Term { return &Term{ID: id, until: until} }

// Trusted reports whether judgements may still be written. Every write asks right before it.
func (t *Term) Trusted() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.over && time.Now().Before(t.until)
}

func (t *Term) extend(until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.until = until
}

func (t *Term) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
}

func (t *Term) left() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Until(t.until)
}
