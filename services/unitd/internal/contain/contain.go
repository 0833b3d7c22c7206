// Package contain keeps a panic within the work in which it happened: it is
// logged, counted, and ends that work with an error. The other units of the
// host are supervised on.
package contain

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Panics contains panics, logs each with its stack, and counts them. It is safe for concurrent use.
type Panics struct {
	Log *zap.Logger
	// Pause is the time before Keep begins work again that has panicked, a second if zero. With
	// every further panic it doubles, up to 30 times its length. After work that lasted longer
	// than that the first pause applies again.
	Pause time.Duration

	count atomic.Int64
}

// Count is the number of panics that were contained so far.
func (p *Panics) Count() int64 { return p.count.Load() }

// Error says that work ended by a panic.
type Error struct {
	Work  string // what was done
	Value any    // of the panic
}

func (e *Error) Error() string { return fmt.Sprintf("%s: panic: %v", e.Work, e.Value) }

// Do calls work once. If it panics, Do returns an *Error. name says in the log what was done.
func (p *Panics) Do(name string, work func() error) error {
	err, _ := p.try(name, work)
	return err
}

func (p *Panics) try(name string, work func() error) (err error, panicked bool) {
	defer func() {
		if value := recover(); value != nil {
			err, panicked = p.Caught(name, value), true
		}
	}()
	return work(), false
}

// Caught logs and counts a panic that the caller has recovered.
func (p *Panics) Caught(name string, value any) error {
	p.count.Add(1)
	p.Log.Error("panic was contained", zap.String("work", name), zap.Any("panic", value),
		zap.ByteString("stack", debug.Stack()))
	return &Error{Work: name, Value: value}
}

// Keep calls work, and after a panic calls it again until it returns without
// one or ctx ends. It returns the error of the last call. work must find out by
// itself how far the earlier call came.
func (p *Panics) Keep(ctx context.Context, name string, work func(context.Context) error) error {
	first := cmp.Or(p.Pause, time.Second)
	pause, longest := first, 30*first
	for {
		begun := time.Now()
		err, panicked := p.try(name, func() error { return work(ctx) })
		if !panicked {
			return err
		}
		if time.Since(begun) > longest {
			pause = first
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, longest)
	}
}
