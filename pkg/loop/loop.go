// Package loop runs the long-lived parts of a service: Loop is the one periodic
// loop, Waker rings it, Group runs the parts of a process together.
//
// Invariants: Do never overlaps with itself and runs on the caller's goroutine;
// whoever starts a goroutine here waits for it; tick and wake take the same path,
// so a lost wake costs latency and not correctness.
package loop

import (
	"context"
	"time"
)

// Loop calls Do at once, then on every tick or wake, until its context ends.
type Loop struct {
	// Interval is the pause after one Do until the next; zero or less means that
	// only Wake starts one.
	Interval time.Duration
	// Wake starts a Do before its time; nil means never. See Waker.
	Wake <-chan struct{}
	// Do is one pass. Its error goes to OnError and does not end the loop: the
	// next pass repairs it.
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
	wake := l.Wake
	told := ""
	for ctx.Err() == nil {
		if err := l.pass(ctx, &told); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-l.tick():
		case _, open := <-wake:
			if !open {
				wake = nil // a closed channel must not spin the loop
			}
		}
	}
	return nil
}

// pass runs Do once; told is the error that OnError heard last, "" after a success.
func (l Loop) pass(ctx context.Context, told *string) error {
	err := l.Do(ctx)
	switch {
	case err == nil:
		*told = ""
	case ctx.Err() != nil: // an error while stopping is the stop
	case l.OnError == nil:
		return err
	case err.Error() != *told:
		*told = err.Error()
		l.OnError(err)
	}
	return nil
}

func (l Loop) tick() <-chan time.Time {
	switch {
	case l.Interval <= 0:
		return nil
	case l.After != nil:
		return l.After(l.Interval)
	}
	return time.After(l.Interval)
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
