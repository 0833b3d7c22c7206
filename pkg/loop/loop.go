// Package loop runs the long-lived parts of a service: Loop is the one periodic
// loop, Waker rings it, Group runs the parts of a process together.
//
// Invariants: Do never overlaps with itself and runs on the caller's goroutine;
// whoever starts a goroutine here waits for it; tick and wake take the same path,
// so a lost wake costs latency and not correctness. A panic never leaves this
// package: Contain turns it into an error, in loops, in parts, and wherever a caller
// asks for it.
package loop

import (
	"context"
	"math/rand/v2"
	"time"
)

// The wait after a pass that panicked doubles from firstPanicPause to maxPanicPause.
const (
	firstPanicPause = time.Second
	maxPanicPause   = time.Minute
)

// Loop calls Do at once, then on every tick or wake, until its context ends.
type Loop struct {
	// Name is the part that a panic of Do is counted for; "" means the name of the
	// Group's part that runs the loop.
	Name string
	// Interval is the pause after one Do until the next; zero or less means that
	// only Wake starts one.
	Interval time.Duration
	// Wake starts a Do before its time; nil means never. See Waker.
	Wake <-chan struct{}
	// Do is one pass. Its error goes to OnError and does not end the loop: the
	// next pass repairs it. A panic is such an error too (*Panic). After a panic the
	// loop rests for 1 s, after each further one in a row twice as long, up to 1 min:
	// then the next pass runs, also without an Interval. Wakes wait meanwhile.
	Do func(ctx context.Context) error
	// OnError hears an error of Do, but not the same text pass after pass: once
	// until Do succeeds or fails in another way. Errors of a context that has ended
	// are not told. Without it the first error ends the loop, for an error must not get lost.
	OnError func(error)
	// After is time.After unless a spec controls the time.
	After func(time.Duration) <-chan time.Time
}

// Run loops until ctx ends and then returns nil. It returns an error only if Do
// failed and there is no OnError.
func (l Loop) Run(ctx context.Context) error {
	if l.Name == "" {
		l.Name = containmentOf(ctx).part
	}
	if l.Name == "" {
		l.Name = "loop"
	}
	r := running{Loop: l}
	wake := l.Wake
	for ctx.Err() == nil {
		if err := r.pass(ctx); err != nil {
			return err
		}
		if r.panics > 0 {
			r.rest(ctx)
			continue
		}
		select {
		case <-ctx.Done():
		case <-l.after(l.Interval):
		case _, open := <-wake:
			if !open {
				wake = nil // a closed channel must not spin the loop
			}
		}
	}
	return nil
}

// running is a Loop between two passes.
type running struct {
	Loop
	told   string // the error that OnError heard last, "" after a success
	panics int    // of the last passes, in a row
}

// pass runs Do once.
func (r *running) pass(ctx context.Context) error {
	r.panics++ // until Do has returned, which it does not if it panics
	err := Contain(ctx, r.Name, "", func() error {
		err := r.Do(ctx)
		r.panics = 0
		return err
	})
	switch {
	case err == nil:
		r.told = ""
	case ctx.Err() != nil: // an error while stopping is the stop
	case r.OnError == nil:
		return err
	case err.Error() != r.told:
		r.told = err.Error()
		r.OnError(err)
	}
	return nil
}

// rest waits after a panic, and at least for the Interval.
func (r *running) rest(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-r.after(max(r.Interval, panicPause(r.panics, rand.Float64()))):
	}
}

// panicPause is the wait after so many panics in a row, at least 1: random, from 0 up to 1, takes up to a quarter off,
// so that replicas that panic over the same row do not stay in step.
func panicPause(panics int, random float64) time.Duration {
	pause := min(firstPanicPause<<min(panics-1, 10), maxPanicPause)
	return pause - time.Duration(random*float64(pause)/4)
}

func (l Loop) after(d time.Duration) <-chan time.Time {
	switch {
	case d <= 0:
		return nil
	case l.After != nil:
		return l.After(d)
	}
	return time.After(d)
}

// Waker rings a Loop. Rings that nobody has heard count as one, and ringing never
// blocks. Use NewWaker; it is safe for concurrent use.
type Waker struct{ c chan struct{} }

// NewWaker makes a silent Waker.
func NewWaker() *Waker { return &Waker{c: make(chan struct{}, 1)} }

// Wake rings once.
func (w *Waker) Wake() {
	select {
	case w.c <- struct{}{}:
	default: // one ring is waiting already, and one is enough
	}
}

// C is what a Loop listens to.
func (w *Waker) C() <-chan struct{} { return w.c }
