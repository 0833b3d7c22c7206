package loop

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// DefaultShutdown bounds the stop of a Group: below the 30 s after which container
// runtimes and systemd kill.
const DefaultShutdown = 25 * time.Second

// Part is one named, long-lived part of a process.
type Part struct {
	Name string
	// Run blocks until ctx ends; any earlier return stops the whole Group.
	Run func(ctx context.Context) error
}

// Group runs the parts of a process together. Parts are started in order; the
// first one to return, for whatever reason, cancels all others. So does the first
// one that panics: its error is the *Panic, and the others stop in order, where an
// uncontained panic would take the process down in mid-write. A part is not started
// again here, because nobody knows what it left half done: the service manager
// starts the process anew. Parts that should survive a panic of one item use Contain.
type Group struct {
	Parts []Part
	// Shutdown bounds the wait for the others, DefaultShutdown if zero.
	Shutdown time.Duration
}

type ending struct {
	part int
	err  error
}

// Run blocks until every part has returned, or Shutdown has passed since the first
// return or the end of ctx. It returns nil after a clean stop by ctx; otherwise
// the error names the part: the first one that failed, one that ended by itself
// (ErrEnded), or those that did not stop in time (ErrStuck).
func (g Group) Run(ctx context.Context) error {
	if len(g.Parts) == 0 {
		<-ctx.Done()
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan ending, len(g.Parts))
	for i, p := range g.Parts {
		part := withPart(ctx, p.Name)
		go func() {
			ended <- ending{i, Contain(part, p.Name, "", func() error { return p.Run(part) })}
		}()
	}
	running := make(map[int]bool, len(g.Parts))
	for i := range g.Parts {
		running[i] = true
	}
	first := g.watch(ctx, ended, running)
	cancel()
	return errors.Join(first, g.drain(ended, running))
}

// watch waits for the end of ctx or the first return, which is always news.
func (g Group) watch(ctx context.Context, ended <-chan ending, running map[int]bool) error {
	select {
	case <-ctx.Done():
		return nil
	case e := <-ended:
		delete(running, e.part)
		if ctx.Err() != nil {
			return g.failure(e)
		}
		if e.err == nil {
			e.err = ErrEnded
		}
		return fmt.Errorf("%s: %w", g.Parts[e.part].Name, e.err)
	}
}

// drain waits for the rest. The first real error counts; what a part says about
// its cancelled context does not.
func (g Group) drain(ended <-chan ending, running map[int]bool) error {
	limit := g.Shutdown
	if limit <= 0 {
		limit = DefaultShutdown
	}
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	var failed error
	for len(running) > 0 {
		select {
		case e := <-ended:
			delete(running, e.part)
			if failed == nil {
				failed = g.failure(e)
			}
		case <-timeout.C:
			return errors.Join(failed, fmt.Errorf("%s: %w within %s", g.names(running), ErrStuck, limit))
		}
	}
	return failed
}

func (g Group) failure(e ending) error {
	if e.err == nil || errors.Is(e.err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("%s: %w", g.Parts[e.part].Name, e.err)
}

func (g Group) names(running map[int]bool) string {
	var names []string
	for i, p := range g.Parts {
		if running[i] {
			names = append(names, p.Name)
		}
	}
	return strings.Join(names, ", ")
}

// ErrStuck says that parts were told to stop and did not.
var ErrStuck = errors.New("did not stop")

// ErrEnded says that a part returned nil although nobody had asked it to stop: a
// service whose part is gone is broken and must not go on quietly.
var ErrEnded = errors.New("ended by itself")
