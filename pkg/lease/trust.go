package lease

import (
	"sync"
	"time"
)

// Trust is the holder's own view of its lease: until when it may act. It runs from
// the start of the renewal attempt, on the monotonic clock, for ttl less margin: a
// slow but successful round trip cannot stretch it, and it lapses before the row
// expires. The zero value trusts nothing. Safe for concurrent use.
//
//	began := time.Now()
//	l, err := Renew(...)
//	if err == nil {
//		trust.Extend(l.Token, began, ttl, time.Second)
//	}
type Trust struct {
	mu    sync.Mutex
	token int64
	until time.Time
}

// Extend notes an attempt that began at began and succeeded. An attempt that ends
// out of order, under a lower token or with an earlier end, changes nothing.
// began must come from time.Now, not from the database or the wire.
func (t *Trust) Extend(token int64, began time.Time, ttl, margin time.Duration) {
	until := began.Add(ttl - margin)
	t.mu.Lock()
	defer t.mu.Unlock()
	if token < t.token || token == t.token && until.Before(t.until) {
		return
	}
	t.token, t.until = token, until
}

// Drop ends the trust at once: resigned, or told "superseded".
func (t *Trust) Drop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.until = time.Time{}
}

// Token is the token under which the holder may act at now; false if it may not.
func (t *Trust) Token(now time.Time) (int64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.token, now.Before(t.until)
}

// Left is how long the trust still lasts at now, never negative: when to step down.
func (t *Trust) Left(now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(0, t.until.Sub(now))
}
