package loop

import (
	"context"
	"fmt"
	"runtime/debug"
)

// Panic is the error that a contained panic becomes.
type Panic struct {
	// Part names the part of the process, such as "pass". It is a label of a metric, so it is a constant.
	Part string
	// Item names what the part was working on, such as "upgrade 12"; it is "" where the part has no items.
	Item string
	// Value is what was given to panic.
	Value any
	// Stack is the stack of the goroutine at the moment of the panic.
	Stack string
}

// maxPanicText bounds the text of a panic in an error, in bytes: the value may be as large as the program's data.
const maxPanicText = 300

// Error says what was panicked with. The stack is not part of the text: it is told once, by the function of WithPanics.
func (p *Panic) Error() string {
	text := fmt.Sprint(p.Value)
	if len(text) > maxPanicText {
		text = text[:maxPanicText] + " ..."
	}
	return "panicked: " + text
}

// containment is what a context carries for Contain.
type containment struct {
	hear func(*Panic)
	part string
}

type containmentKey struct{}

func containmentOf(ctx context.Context) containment {
	c, _ := ctx.Value(containmentKey{}).(containment)
	return c
}

// WithPanics returns a context under which hear is told of every contained panic, once each. hear may be called from
// several goroutines at the same time. boot.Env sets it for the whole process: it logs the stack and counts. Without it
// a contained panic is only the error that Contain returns.
func WithPanics(ctx context.Context, hear func(*Panic)) context.Context {
	c := containmentOf(ctx)
	c.hear = hear
	return context.WithValue(ctx, containmentKey{}, c)
}

// withPart names the part of the process that runs under the context; a Loop takes its name from there.
func withPart(ctx context.Context, part string) context.Context {
	c := containmentOf(ctx)
	c.part = part
	return context.WithValue(ctx, containmentKey{}, c)
}

// Contain runs do and returns its error. If do panics, the panic ends here: it is told to the function of WithPanics,
// with its stack, and returned as a *Panic. part and item are those of Panic.
//
// Use it around each item of work that may fail alone, so that one bad item costs neither the others nor the process:
//
//	for _, u := range upgrades {
//		if err := loop.Contain(ctx, "judge", "upgrade "+u.ID, func() error { return judge(ctx, u) }); err != nil {
//			... the item ends with err as its cause; the next one has its turn
//		}
//	}
//
// Use it also around the body of a goroutine that you start yourself: a panic in a goroutine ends the process, whatever
// contains the goroutine that started it. Loop.Do, the parts of a Group and the handlers of pkg/rabbit are contained
// already, so there an item needs its own Contain only if the others of its pass should go on.
//
// The error counts as internal (pkg/fault): it is never the caller's fault, and it is not known to be temporary. do
// must leave nothing locked behind when it panics: use defer to unlock and to roll back. What the runtime calls fatal
// cannot be contained: two goroutines that write to one map, or a lack of memory.
func Contain(ctx context.Context, part, item string, do func() error) (err error) {
	defer func() {
		value := recover()
		if value == nil {
			return
		}
		p := &Panic{Part: part, Item: item, Value: value, Stack: string(debug.Stack())}
		if hear := containmentOf(ctx).hear; hear != nil {
			hear(p)
		}
		err = p
	}()
	return do()
}
