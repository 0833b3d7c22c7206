// Package fault holds the few kinds of failure that somebody branches on, and
// their mapping to and from HTTP. Adapters translate what their libraries say
// into a kind once, at the edge; everything between wraps with fmt.Errorf and
// %w, which keeps the kind.
//
// An error without a kind is Internal, and the text of an Internal error is
// never shown to a client: Public answers with a constant sentence instead.
package fault

import (
	"context"
	"errors"
	"fmt"
)

// Kind says what a caller can do about an error. The zero value is Internal, so
// that an unknown error is never taken for a harmless one.
type Kind uint8

// The kinds. Unavailable is the only one for which trying the same again later
// makes sense.
const (
	Internal     Kind = iota // a defect or an unknown error of ours
	NotFound                 // what was named does not exist
	Conflict                 // the state forbids it: duplicate, superseded, still in use
	Invalid                  // the input is wrong and stays wrong
	Unauthorized             // nobody is known to be asking
	Forbidden                // the one who asks may not
	TooLarge                 // the input exceeds a limit
	Unavailable              // something needed does not answer; try again later
)

var kindNames = [...]string{
	Internal: "internal", NotFound: "not_found", Conflict: "conflict", Invalid: "invalid",
	Unauthorized: "unauthorized", Forbidden: "forbidden", TooLarge: "too_large", Unavailable: "unavailable",
}

// Kinds lists every kind, for tables and exhaustive specs.
func Kinds() []Kind {
	return []Kind{Internal, NotFound, Conflict, Invalid, Unauthorized, Forbidden, TooLarge, Unavailable}
}

// String is the kind in snake_case, as metrics and logs show it.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "internal"
}

// Field names one wrong part of an input.
type Field struct {
	Name    string `json:"name"`
	Message string `json:"message"`
}

// Error is an error with a kind. Message is written for the client; the cause
// behind it (Unwrap) is for the log only.
type Error struct {
	Kind    Kind
	Code    string  // machine-readable, optional, such as "superseded"
	Message string  // shown to clients unless Kind is Internal
	Fields  []Field // the wrong fields of an Invalid input, optional
	cause   error
	hidden  bool // the cause's text is not part of Message
}

// New makes an error of a kind from a format. A %w in the format becomes the
// cause, but its text is then part of the message that clients see: use Wrap
// where the cause must stay inside.
func New(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Message: err.Error(), cause: errors.Unwrap(err)}
}

// Wrap gives err a kind and a message of its own; clients see the message, logs
// see both. It never returns nil, so that a nil err cannot turn a failure into
// success.
func Wrap(kind Kind, err error, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...), cause: err, hidden: true}
}

// WithCode returns a copy with a machine-readable code.
func (e *Error) WithCode(code string) *Error {
	c := *e
	c.Code = code
	return &c
}

// WithFields returns a copy that names the wrong fields too.
func (e *Error) WithFields(fields ...Field) *Error {
	c := *e
	c.Fields = append(append([]Field(nil), e.Fields...), fields...)
	return &c
}

// Error is the message and, after a colon, the cause: text for logs.
func (e *Error) Error() string {
	if !e.hidden || e.cause == nil {
		return e.Message
	}
	return e.Message + ": " + e.cause.Error()
}

// Unwrap is the cause, or nil.
func (e *Error) Unwrap() error { return e.cause }

// KindOf is the kind of the outermost fault in err's chain. A context that ended
// is Unavailable; any other error without a kind is Internal. KindOf(nil) is
// Internal as well: ask only about errors.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return Unavailable
	}
	return Internal
}

// Is reports whether err is not nil and of the kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }

// CodeOf is the code of the outermost fault in err's chain, "" without one.
func CodeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// View is what a client may see of an error.
type View struct {
	Kind    Kind
	Code    string
	Message string
	Fields  []Field
}

// Public is what a client may see of err: the message of the outermost fault
// without its cause and without what callers wrapped around it. An Internal error
// shows a constant sentence, neither its text nor its code nor its fields.
func Public(err error) View {
	var e *Error
	if errors.As(err, &e) && e.Kind != Internal {
		return View{Kind: e.Kind, Code: e.Code, Message: e.Message, Fields: e.Fields}
	}
	if KindOf(err) == Unavailable {
		return View{Kind: Unavailable, Message: "the request did not finish in time"}
	}
	return View{Kind: Internal, Message: "internal error"}
}
