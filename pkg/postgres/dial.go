package postgres

import (
	"context"
	"net"
	"time"
)

const dialLimit = 5 * time.Second

// deadlineConn bounds every single read and write beneath the driver, which does
// not; zero means unbounded.
type deadlineConn struct {
	net.Conn
	read, write time.Duration
}

func (c deadlineConn) Read(p []byte) (int, error) {
	if c.read > 0 {
		_ = c.SetReadDeadline(time.Now().Add(c.read))
	}
	return c.Conn.Read(p)
}

func (c deadlineConn) Write(p []byte) (int, error) {
	if c.write > 0 {
		_ = c.SetWriteDeadline(time.Now().Add(c.write))
	}
	return c.Conn.Write(p)
}

// dialer makes such connections for pq. It serves the CancelRequest connections of
// the driver too, which is what ends a query on a silent server.
type dialer struct{ read, write time.Duration }

func (d dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialTimeout(network, address, dialLimit)
}

func (d dialer) DialTimeout(network, address string, limit time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit) // the driver's old interface has no context
	defer cancel()
	return d.DialContext(ctx, network, address)
}

func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: dialLimit}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return deadlineConn{Conn: c, read: d.read, write: d.write}, nil
}
