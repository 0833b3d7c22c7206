package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
	"github.com/openaperture/openaperture/pkg/fault"
)

// Codes of the faults that Translate makes.
const (
	CodeDuplicate     = "duplicate"      // unique or exclusion constraint: see Constraint
	CodeReference     = "reference"      // foreign key: what is named is missing, or still in use
	CodeRequired      = "required"       // not null
	CodeRetry         = "retry"          // deadlock or serialization failure: the whole transaction may be repeated
	CodeCommitUnknown = "commit_unknown" // see ErrCommitUnknown
)

// ErrCommitUnknown says that the connection was lost at COMMIT: the transaction
// has happened, or it has not. Look the effect up by its key, then decide; a blind
// repeat may do it twice.
var ErrCommitUnknown = errors.New("outcome of the commit is unknown")

// Translate gives a database error its kind, by SQLSTATE and never by message
// text. It is the only place that does; errors that have a kind already, and nil,
// come back unchanged. Which constraint was violated is asked with Constraint.
func Translate(err error) error {
	var known *fault.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	if errors.Is(err, errReadOnly) || pq.As(err, pqerror.ReadOnlySQLTransaction) != nil {
		return fault.Wrap(fault.Unavailable, err, "%s", errReadOnly)
	}
	if e := pq.As(err); e != nil {
		return translateState(err, e)
	}
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return fault.Wrap(fault.NotFound, err, "not found")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fault.Wrap(fault.Unavailable, err, "the request did not finish in time")
	case connectionLost(err):
		return fault.Wrap(fault.Unavailable, err, "the database does not answer")
	case errors.Is(err, errConnect):
		return fault.Wrap(fault.Unavailable, err, "there is no connection to the database")
	}
	return fault.Wrap(fault.Internal, err, "database")
}

func connectionLost(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

func translateState(err error, e *pq.Error) error {
	switch e.Code {
	case pqerror.UniqueViolation, pqerror.ExclusionViolation:
		return fault.Wrap(fault.Conflict, err, "it exists already").WithCode(CodeDuplicate)
	case pqerror.ForeignKeyViolation:
		return fault.Wrap(fault.Conflict, err, "something that is referred to is missing, or still in use").
			WithCode(CodeReference)
	case pqerror.NotNullViolation:
		return fault.Wrap(fault.Invalid, err, "a required value is missing").WithCode(CodeRequired).
			WithFields(fault.Field{Name: e.Column, Message: "is required"})
	case pqerror.CheckViolation:
		return fault.Wrap(fault.Invalid, err, "a value is not allowed")
	case pqerror.TRSerializationFailure, pqerror.TRDeadlockDetected:
		return fault.Wrap(fault.Unavailable, err, "the database was busy").WithCode(CodeRetry)
	case pqerror.LockNotAvailable, pqerror.IdleInTransactionSessionTimeout:
		return fault.Wrap(fault.Unavailable, err, "the database is busy")
	}
	switch e.Code {
	case pqerror.SequenceGeneratorLimitExceeded, pqerror.DivisionByZero: // of class 22, but not about the input
		return fault.Wrap(fault.Internal, err, "database")
	}
	switch e.Code.Class() {
	// data exception: too long, out of range, no such uuid; nested too deeply, too large for a row or an index
	case "22", "54":
		return fault.Wrap(fault.Invalid, err, "a value is not valid")
	case "08", "53", "57", "58", "28", "3D": // connection, resources, operator, system, login, no such database
		return fault.Wrap(fault.Unavailable, err, "the database does not answer")
	}
	return fault.Wrap(fault.Internal, err, "database")
}

// Constraint is the name of the constraint that err violated, "" if none. A
// duplicate key is meaningful only by its name.
func Constraint(err error) string {
	if e := pq.As(err); e != nil {
		return e.Constraint
	}
	return ""
}

// Retryable says whether the whole transaction may be repeated at once.
func Retryable(err error) bool {
	return pq.As(err, pqerror.TRSerializationFailure, pqerror.TRDeadlockDetected) != nil &&
		!errors.Is(err, ErrCommitUnknown)
}

// LockTimeout says whether err is that of a statement that did not get a lock within lock_timeout.
func LockTimeout(err error) bool { return pq.As(err, pqerror.LockNotAvailable) != nil }

// commitError tells a refused commit, after which nothing has happened, from one
// whose outcome nobody knows.
func commitError(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, sql.ErrTxDone) || errors.Is(err, pq.ErrInFailedTransaction) || refused(pq.As(err)) {
		return err
	}
	return fault.Wrap(fault.Unavailable, errors.Join(ErrCommitUnknown, err), "the database did not confirm the change").
		WithCode(CodeCommitUnknown)
}

// refused: the server answered the COMMIT with an error that it raises before
// anything is committed, such as a deferred constraint. Of all others, such as a
// server that is going away (57, 08), nothing is certain.
func refused(e *pq.Error) bool {
	if e == nil || e.Code == pqerror.TRStatementCompletionUnknown {
		return false
	}
	switch e.Code.Class() {
	case "22", "23", "25", "27", "40", "42", "44", "55", "P0":
		return true
	}
	return false
}
