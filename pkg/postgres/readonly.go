package postgres

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
)

// After a failover of the database, the connections of a pool may still lead to the server that was the primary. That
// server answers reads, and refuses every write with SQLSTATE 25006. It refuses already the BEGIN of a transaction that
// may write, with 0A000. Without more, the pool would use such a connection until its age ends it, which takes up to
// half an hour. Therefore a connection that has had this answer is closed, and the next one finds the new primary.

// errReadOnly says that the server takes no writes.
var errReadOnly = errors.New(
	"the database takes no writes: the server is a standby, or default_transaction_read_only is on")

// errConnect says that there is no connection, for whatever reason. Of several servers, none may be the primary.
var errConnect = errors.New("connect to the database")

// connector opens connections that know whether their server has refused a write.
type connector struct{ *pq.Connector }

// Connect implements driver.Connector.
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	opened, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errConnect, err)
	}
	inner, ok := opened.(driverConn)
	if !ok {
		return nil, fmt.Errorf("the driver's connection %T lacks a method that database/sql uses", opened)
	}
	return &conn{driverConn: inner}, nil
}

// driverConn is all that a connection of the driver offers to database/sql.
type driverConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
	driver.NamedValueChecker
}

// conn is one connection. database/sql uses a connection from one goroutine at a time.
type conn struct {
	driverConn
	refused bool // the server has refused a write
}

func (c *conn) note(err error) error {
	if pq.As(err, pqerror.ReadOnlySQLTransaction) != nil {
		c.refused = true
	}
	return err
}

// ExecContext implements driver.ExecerContext.
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	result, err := c.driverConn.ExecContext(ctx, query, args)
	return result, c.note(err)
}

// QueryContext implements driver.QueryerContext. The driver reads the first row at once, and with it any refusal.
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := c.driverConn.QueryContext(ctx, query, args)
	return rows, c.note(err)
}

// BeginTx implements driver.ConnBeginTx.
func (c *conn) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	tx, err := c.driverConn.BeginTx(ctx, options)
	if pq.As(err, pqerror.FeatureNotSupported) != nil && !options.ReadOnly {
		c.refused = true
		return nil, fmt.Errorf("%w: %w", errReadOnly, err)
	}
	return tx, c.note(err)
}

// IsValid implements driver.Validator: database/sql closes a connection that is not valid.
func (c *conn) IsValid() bool { return !c.refused && c.driverConn.IsValid() }

// Ping implements driver.Pinger. A connection whose server takes no writes is of no use to any service.
func (c *conn) Ping(ctx context.Context) error {
	if err := c.driverConn.Ping(ctx); err != nil {
		return err
	}
	rows, err := c.driverConn.QueryContext(ctx, `SHOW transaction_read_only`, nil)
	if err != nil {
		return err
	}
	value := make([]driver.Value, 1)
	err = rows.Next(value)
	if closeErr := rows.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if text := fmt.Sprintf("%s", value[0]); text == "on" {
		c.refused = true
		return errReadOnly
	}
	return nil
}
