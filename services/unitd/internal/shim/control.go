package shim

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// stopRequest is the one line that unitd sends to a shim.
const stopRequest = "stop"

// controller is the shim's side of the control connections: it tells every
// connected unitd each status and collects stop requests.
type controller struct {
	stop chan<- struct{}

	mu    sync.Mutex
	last  []byte
	conns map[net.Conn]bool
}

// controlPath names the socket through a descriptor of its directory, since a
// socket's path is limited to 107 bytes. dir must stay open meanwhile.
func controlPath(dir *os.File) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), controlSocket)
}

func listenControl(dir string) (net.Listener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	defer func() { _ = d.Close() }()
	if err := os.Remove(filepath.Join(dir, controlSocket)); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: controlPath(d), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // the path through the descriptor is not valid later
	return l, nil
}

// acceptConnections serves connections of a unitd that was started later, until the shim ends.
func (c *controller) acceptConnections(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		c.addConnection(conn)
	}
}

func (c *controller) addConnection(conn net.Conn) {
	c.mu.Lock()
	c.conns[conn] = true
	c.sendStatus(conn)
	c.mu.Unlock()
	go c.readRequests(conn) // ends with the connection, at the latest with the shim
}

func (c *controller) readRequests(conn net.Conn) {
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		if lines.Text() == stopRequest {
			c.stop <- struct{}{}
		}
	}
	c.mu.Lock()
	delete(c.conns, conn)
	c.mu.Unlock()
	_ = conn.Close()
}

// tellStatus sends a status to everyone who is connected.
func (c *controller) tellStatus(status Status) {
	text, err := json.Marshal(status)
	if err != nil {
		return // a struct of plain fields
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = append(text, '\n')
	for conn := range c.conns {
		c.sendStatus(conn)
	}
}

// sendStatus sends the latest status. A connection that does not take it within
// a second is closed: the unit must not wait for whoever watches it, and unitd
// connects anew.
func (c *controller) sendStatus(conn net.Conn) {
	if c.last == nil {
		return
	}
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write(c.last); err != nil {
		delete(c.conns, conn)
		_ = conn.Close()
	}
}
