package shim

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is one line of the process table.
type process struct {
	pid, parent, session int
	dead                 bool // a zombie: it runs nothing any more, whether or not somebody reaps it
	start                uint64
}

// processes reads the process table. Processes that vanish meanwhile are left out.
func processes() ([]process, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("read process table: %w", err)
	}
	defer func() { _ = dir.Close() }()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("read process table: %w", err)
	}
	var list []process
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if p, ok := readProcess(pid); ok {
			list = append(list, p)
		}
	}
	return list, nil
}

// readProcess reads /proc/<pid>/stat; what follows the last parenthesis cannot be forged by the command's name.
func readProcess(pid int) (process, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false
	}
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return process{}, false
	}
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 20 {
		return process{}, false
	}
	parent, _ := strconv.Atoi(fields[1])
	session, _ := strconv.Atoi(fields[3])
	start, _ := strconv.ParseUint(fields[19], 10, 64)
	dead := fields[0] == "Z" || fields[0] == "X"
	return process{pid: pid, parent: parent, session: session, dead: dead, start: start}, true
}

// descendants are the living processes below root.
func descendants(root int) []int {
	list, err := processes()
	if err != nil {
		return nil // the next scan finds them, or TimeoutStopSec ends
	}
	children := map[int][]process{}
	for _, p := range list {
		children[p.parent] = append(children[p.parent], p)
	}
	var found []int
	queue := []int{root}
	for len(queue) > 0 {
		for _, p := range children[queue[0]] {
			queue = append(queue, p.pid)
			if !p.dead {
				found = append(found, p.pid)
			}
		}
		queue = queue[1:]
	}
	return found
}

// childrenOf are the living processes directly below parent.
func childrenOf(parent int) []int {
	list, err := processes()
	if err != nil {
		return nil // as above
	}
	var found []int
	for _, p := range list {
		if p.parent == parent && !p.dead {
			found = append(found, p.pid)
		}
	}
	return found
}

// KillRemains ends every process of an activation whose shim is dead, and
// returns when none is left or ctx ends. They are known by INVOCATION_ID in
// their environment and by the shim's session; zombies do not count.
func KillRemains(ctx context.Context, activation Activation, status Status) error {
	wait := time.Millisecond
	for {
		pids, err := findRemains(activation, status)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is as good
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait): // nobody is told of the end of a dead shim's orphans
		}
		wait = min(2*wait, 100*time.Millisecond)
	}
}

func findRemains(activation Activation, status Status) ([]int, error) {
	list, err := processes()
	if err != nil {
		return nil, err
	}
	// The kernel does not give the pid of a session leader away while the session
	// has members. If another process has the pid now, the session is empty.
	session := status.ShimPID
	if leader, ok := readProcess(session); ok && leader.start != status.ShimStart {
		session = 0
	}
	marker := []byte("INVOCATION_ID=" + activation.Invocation)
	var pids []int
	for _, p := range list {
		if p.dead || p.pid == os.Getpid() {
			continue
		}
		if session != 0 && p.session == session || hasEnvironment(p.pid, marker) {
			pids = append(pids, p.pid)
		}
	}
	return pids, nil
}

func hasEnvironment(pid int, assignment []byte) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && slices.ContainsFunc(bytes.Split(text, []byte{0}), func(entry []byte) bool {
		return bytes.Equal(entry, assignment)
	})
}

// killShim ends a shim that holds its lock but cannot be talked to. The start
// time proves that the pid still is the shim's.
func killShim(status Status) {
	p, ok := readProcess(status.ShimPID)
	if ok && status.ShimPID > 1 && p.start == status.ShimStart {
		_ = syscall.Kill(status.ShimPID, syscall.SIGKILL) // the caller sees the lock
	}
}
