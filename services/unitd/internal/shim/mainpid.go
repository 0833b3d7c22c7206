package shim

import (
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// A service may hand over to another of its processes: it tells MAINPID= and ends. A service that restarts itself
// without a pause does so, and so does a starter such as podman.

// followMain makes another process the main process. The process must be one of the unit's.
func (r *runner) followMain(text string) {
	pid, err := strconv.Atoi(text)
	if err != nil || pid == r.main || !slices.Contains(r.everyone(), pid) {
		return
	}
	r.main, r.status.MainPID = pid, pid
	if _, known := r.exits[pid]; !known {
		r.exits[pid] = nil
		r.watchProcess(pid)
	}
	r.publishPhase(r.status.Phase)
}

// watchProcess tells of the end of a process that may be the child of another process of the unit.
func (r *runner) watchProcess(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil { // gone meanwhile, or a kernel before 5.3: there, the end of a grandchild is seen with its parent's
		return
	}
	go func() {
		defer func() { _ = unix.Close(fd) }()
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if err != unix.EINTR {
				break
			}
		}
		r.left <- pid
	}()
}

// processLeft takes note of the end of a followed process. How a process has ended that its parent waits for is not
// known: systemd takes this for success.
func (r *runner) processLeft(pid int) {
	r.reapChildren()
	if r.exits[pid] == nil {
		r.exits[pid] = new(syscall.WaitStatus)
		r.markNotifications()
	}
}

// markNotifications sends a mark through the notify socket. A process may tell something and end at once. When the mark
// comes back, everything that was told before the end has been heard. Until then the main process does not count as
// gone.
func (r *runner) markNotifications() {
	if r.notifyName == "" {
		return
	}
	r.marks++
	go func() { // the socket may be full until this runner has read
		conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: r.notifyName, Net: "unixgram"})
		if err == nil {
			_, err = conn.Write([]byte("MARK=1"))
			_ = conn.Close()
		}
		if err != nil {
			r.notifications <- notification{pid: os.Getpid()}
		}
	}()
}
