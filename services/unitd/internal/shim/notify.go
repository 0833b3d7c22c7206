package shim

import (
	"fmt"
	"net"
	"strings"
	"syscall"
)

// notification is one datagram of sd_notify(3) with its sender, as the kernel vouches for it.
type notification struct {
	pid    int
	uid    uint32
	fields map[string]string
}

// listenNotify opens the unit's notify socket. The socket is abstract: the
// unit's user needs no permissions for it, its name is not limited by the length
// of a path, and it goes with the shim.
func listenNotify(invocation string) (*net.UnixConn, string, error) {
	name := "@openaperture/unitd/" + invocation
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, "", fmt.Errorf("open notify socket: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, "", fmt.Errorf("open notify socket: %w", err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_PASSCRED, 1)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, "", fmt.Errorf("open notify socket: %w", err)
	}
	return conn, name, nil
}

// readNotifications hands every datagram on until the socket is closed.
func readNotifications(conn *net.UnixConn, to chan<- notification) {
	text, control := make([]byte, 8192), make([]byte, 2048) // the kernel passes 253 descriptors at most
	for {
		n, m, _, _, err := conn.ReadMsgUnix(text, control)
		if err != nil {
			return
		}
		sender, ok := credentials(control[:m])
		if !ok {
			continue
		}
		to <- notification{pid: int(sender.Pid), uid: sender.Uid, fields: notifyFields(string(text[:n]))}
	}
}

// credentials are the sender's. Descriptors that came along, before or behind them, are closed: that is the answer to a
// barrier of sd_notify(3), whose sender waits until its end of a pipe is closed everywhere.
func credentials(control []byte) (*syscall.Ucred, bool) {
	messages, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return nil, false
	}
	var sender *syscall.Ucred
	for i := range messages {
		if rights, err := syscall.ParseUnixRights(&messages[i]); err == nil {
			for _, fd := range rights {
				_ = syscall.Close(fd)
			}
		} else if found, err := syscall.ParseUnixCredentials(&messages[i]); err == nil {
			sender = found
		}
	}
	return sender, sender != nil
}

func notifyFields(text string) map[string]string {
	fields := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		if key, value, ok := strings.Cut(line, "="); ok {
			fields[key] = value
		}
	}
	return fields
}
