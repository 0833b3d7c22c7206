package boot

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/openaperture/openaperture/pkg/loop"
)

const (
	checkLimit = 2 * time.Second        // one check may take this long
	checkCache = 250 * time.Millisecond // answers of /readyz may be this old
)

// Check is one line of /readyz. Error is text for operators: a check must not put
// an address with credentials into it.
type Check struct {
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

// Report is the body of /readyz. Info lines are shown and never gate.
type Report struct {
	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks"`
	Info   []Check `json:"info,omitempty"`
}

type namedCheck struct {
	name   string
	gating bool
	check  func(context.Context) error
}

// Health knows whether the service is ready: started, not stopping, and every
// gating check passes. It is evaluated on Poke, by requests and once a second.
// Safe for concurrent use.
type Health struct {
	evaluating chan struct{} // holds one token: evaluations never overlap
	poked      chan struct{}

	mu       sync.Mutex
	checks   []namedCheck
	started  bool
	stopping bool
	report   Report
	at       time.Time     // when report was made; zero: ask again
	changed  chan struct{} // closed and replaced when Ready changes
	pokes    int
}

// NewHealth is a Health that has not started yet; Main makes the one of a process,
// specs of parts make their own.
func NewHealth() *Health {
	return &Health{evaluating: make(chan struct{}, 1), poked: make(chan struct{}, 1), changed: make(chan struct{})}
}

// Add adds a check that gates readiness.
func (h *Health) Add(name string, check func(ctx context.Context) error) {
	h.add(namedCheck{name, true, check})
}

// AddInfo adds a check that /readyz shows and that gates nothing, such as a broker
// of another exchange.
func (h *Health) AddInfo(name string, check func(ctx context.Context) error) {
	h.add(namedCheck{name, false, check})
}

func (h *Health) add(c namedCheck) {
	h.mu.Lock()
	h.checks = append(h.checks, c)
	h.mu.Unlock()
	h.Poke()
}

// Started says that every check has been added and the parts run. Env.RunParts
// calls it; until then the service is not ready.
func (h *Health) Started() {
	h.mu.Lock()
	h.started = true
	h.mu.Unlock()
	h.Poke()
}

func (h *Health) stop() {
	h.mu.Lock()
	h.stopping = true
	h.turn(false) // at once: a heartbeat must not say active any more
	h.mu.Unlock()
	h.Poke()
}

// Poke asks for an evaluation at once, because something has just changed. It
// never blocks.
func (h *Health) Poke() {
	h.mu.Lock()
	h.pokes++
	h.at = time.Time{}
	h.mu.Unlock()
	select {
	case h.poked <- struct{}{}:
	default:
	}
}

// Ready is the last known readiness; it does no I/O.
func (h *Health) Ready() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.report.Ready
}

// Changed is closed at the next change of Ready. Take the channel before reading
// Ready, or a change between the two is missed.
func (h *Health) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

// WaitReady blocks until Ready or the end of ctx, whose error it then returns.
func (h *Health) WaitReady(ctx context.Context) error {
	for {
		changed := h.Changed()
		if h.Ready() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Report evaluates the checks, all at the same time and each within 2 s, or
// returns an answer that is at most 250 ms old.
func (h *Health) Report(ctx context.Context) Report {
	select {
	case h.evaluating <- struct{}{}:
		defer func() { <-h.evaluating }()
	case <-ctx.Done():
		return Report{Checks: []Check{{Name: "readyz", Error: ctx.Err().Error()}}}
	}
	h.mu.Lock()
	if time.Since(h.at) < checkCache {
		defer h.mu.Unlock()
		return h.report
	}
	checks, pokes := append([]namedCheck(nil), h.checks...), h.pokes
	own := h.own()
	h.mu.Unlock()

	// The caller may hang up; the others who wait for this evaluation have not.
	return h.keep(evaluate(context.WithoutCancel(ctx), checks, own), pokes)
}

// own is what Health itself contributes: a line only when it gates.
func (h *Health) own() []Check {
	switch {
	case h.stopping:
		return []Check{{Name: "process", Error: "stopping"}}
	case !h.started:
		return []Check{{Name: "process", Error: "starting"}}
	}
	return nil
}

func (h *Health) keep(r Report, pokes int) Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.Ready = r.Ready && !h.stopping
	h.turn(r.Ready)
	h.report = r
	if pokes == h.pokes { // else something changed while we looked
		h.at = time.Now()
	}
	return r
}

// turn changes Ready and tells those who wait. The caller holds mu.
func (h *Health) turn(ready bool) {
	if ready == h.report.Ready {
		return
	}
	h.report.Ready = ready
	close(h.changed)
	h.changed = make(chan struct{})
}

// expire makes the next Report look again.
func (h *Health) expire() {
	h.mu.Lock()
	h.at = time.Time{}
	h.mu.Unlock()
}

func evaluate(ctx context.Context, checks []namedCheck, own []Check) Report {
	lines := make([]Check, len(checks))
	var all sync.WaitGroup
	for i, c := range checks {
		all.Go(func() { lines[i] = runCheck(ctx, c) })
	}
	all.Wait()
	r := Report{Ready: len(own) == 0, Checks: append([]Check{}, own...)}
	for i, c := range checks {
		if !c.gating {
			r.Info = append(r.Info, lines[i])
			continue
		}
		r.Ready = r.Ready && lines[i].OK
		r.Checks = append(r.Checks, lines[i])
	}
	return r
}

// runCheck gives up after the limit even if the check does not: a context does not
// bound the socket I/O of every library. The check's goroutine then ends with it.
func runCheck(ctx context.Context, c namedCheck) Check {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- loop.Contain(ctx, "readyz", c.name, func() error { return c.check(ctx) }) }()
	var err error
	select {
	case err = <-answer:
	case <-ctx.Done():
		err = errors.New("no answer within 2s")
	}
	if err != nil {
		return Check{Name: c.name, Error: err.Error()}
	}
	return Check{Name: c.name, OK: true}
}

// Run keeps Ready up to date until ctx ends. Main runs it for its Env; specs that
// make an Env run it themselves.
func (h *Health) Run(ctx context.Context) error {
	h.watch(ctx, func() {})
	return nil
}

// watch evaluates on pokes, every 100 ms until first ready and every second from
// then on, until ctx ends; firstReady is called once.
func (h *Health) watch(ctx context.Context, firstReady func()) {
	interval := 100 * time.Millisecond
	for ctx.Err() == nil {
		h.expire()
		if h.Report(ctx).Ready && interval < time.Second {
			interval = time.Second
			firstReady()
		}
		select {
		case <-ctx.Done():
		case <-h.poked:
		case <-time.After(interval):
		}
	}
}
