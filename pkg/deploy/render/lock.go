package render

import (
	"context"
	"fmt"
	"sync"
)

// locks lets one order at a time read and change what belongs to a key. Other keys do not wait. The zero value is
// usable.
type locks struct {
	mu   sync.Mutex
	held map[string]chan struct{} // holds one element while somebody has the key
}

// hold calls do while it has the key. An error that is not do's says that ctx ended first.
func (l *locks) hold(ctx context.Context, key string, do func() error) error {
	select {
	case l.of(key) <- struct{}{}:
		defer func() { <-l.of(key) }()
		return do()
	case <-ctx.Done():
		return fmt.Errorf("wait for the repository: %w", ctx.Err())
	}
}

func (l *locks) of(key string) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = map[string]chan struct{}{}
	}
	if l.held[key] == nil {
		l.held[key] = make(chan struct{}, 1)
	}
	return l.held[key]
}
