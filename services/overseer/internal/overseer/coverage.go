package overseer

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// Hearing tells whether the broker lets us hear; *rabbit.Broker does.
type Hearing interface {
	// Session rises whenever consuming may have had a gap.
	Session() uint64
	Subscribed(queue string) bool
}

// Coverage knows whether the exchange is listened to without a break (docs/messaging.md#silence): both queues are
// consumed, our own heartbeats come back through the exchange, and batches commit. A break is reported as not covered
// at least once; covered time then begins anew with the first own heartbeat that was received and committed after it.
// Safe for concurrent use.
type Coverage struct {
	hearing Hearing
	queues  []string
	within  time.Duration // how old the last own heartbeat may be
	log     *zap.Logger

	mu          sync.Mutex
	session     uint64    // of the last own heartbeat
	own         time.Time // when the last own heartbeat was committed; zero: none since the last break
	breaks      uint64    // so far
	toldBreaks  uint64    // breaks that the last answer that was told rests on
	toldSession uint64    // session at that answer
	since       time.Time // of the covered stretch as we know it; zero: not covered
}

// NewCoverage knows nothing yet.
func NewCoverage(h Hearing, within time.Duration, log *zap.Logger, queues ...string) *Coverage {
	return &Coverage{hearing: h, within: within, log: log, queues: queues}
}

// Begin starts anew, for a new term.
func (c *Coverage) Begin() { c.Break("a new term") }

// Break says that something may have been missed. It is logged if it ends a covered stretch.
func (c *Coverage) Break(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own = time.Time{}
	c.breaks++
	c.lost(reason)
}

// OwnBeat says that a heartbeat of our own, received under the session, was committed.
func (c *Coverage) OwnBeat(session uint64, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session, c.own = session, now
}

// Covered says whether the exchange was covered since the last answer that manager-api got. The caller calls told when
// manager-api has got this answer. Until then the breaks that the answer rests on are not forgotten.
func (c *Coverage) Covered(now time.Time) (covered bool, told func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	session := c.hearing.Session()
	reason := c.gap(session, now)
	if reason != "" {
		c.breaks++ // should this answer not arrive, the next one has to say it
		c.lost(reason)
	}
	breaks := c.breaks
	told = func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.toldBreaks, c.toldSession = breaks, session
	}
	if reason != "" {
		return false, told
	}
	if c.since.IsZero() {
		c.since = now
		c.log.Info("the exchange is covered")
	}
	return true, told
}

func (c *Coverage) gap(session uint64, now time.Time) string {
	if session != c.session {
		c.own = time.Time{} // it says nothing about another session
	}
	switch {
	case c.breaks != c.toldBreaks:
		return "interrupted"
	case session != c.toldSession:
		return "the broker session was interrupted"
	case c.own.IsZero():
		return "no heartbeat of our own came back yet"
	}
	for _, q := range c.queues {
		if !c.hearing.Subscribed(q) {
			return "queue " + q + " is not consumed"
		}
	}
	if now.Sub(c.own) > c.within {
		return "our own heartbeats do not come back"
	}
	return ""
}

// lost ends a covered stretch. Callers hold mu.
func (c *Coverage) lost(reason string) {
	if !c.since.IsZero() {
		c.log.Info("the exchange is no longer covered", zap.String("reason", reason))
	}
	c.since = time.Time{}
}

// Seconds is for how long the exchange has been covered, 0 if it is not.
func (c *Coverage) Seconds() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since.IsZero() {
		return 0
	}
	return time.Since(c.since).Seconds()
}
