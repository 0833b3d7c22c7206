// Package proc tells what really runs, from /proc alone: whoever asserts that a version runs should not have to believe
// the system that installed it.
package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// Process is one running process out of a directory of releases, <releases>/<ref>/<binary>.
type Process struct {
	PID      int
	Ref      string // the release that its executable belongs to
	Binary   string // name of the executable
	Hostname string // HOSTNAME in its environment; empty if that can't be read
}

// Running lists the processes whose executable lies in releases, by binary and hostname. Processes that end meanwhile
// are left out; an executable that was deleted since still counts as what it was.
func Running(releases string) ([]Process, error) {
	releases, err := filepath.EvalSymlinks(releases)
	if err != nil {
		return nil, fmt.Errorf("find the releases: %w", err)
	}
	var found []Process
	err = each(func(pid int, exe string) {
		rest, ok := strings.CutPrefix(exe, releases+"/")
		if !ok {
			return
		}
		ref, binary := filepath.Split(rest)
		found = append(found, Process{pid, strings.Trim(ref, "/"), binary, environ(pid, "HOSTNAME")})
	})
	sort.Slice(found, func(i, j int) bool {
		a, b := found[i], found[j]
		if a.Binary != b.Binary {
			return a.Binary < b.Binary
		}
		return a.Hostname < b.Hostname
	})
	return found, err
}

// Under lists the processes whose executable lies in a directory, with their executables.
func Under(dir string) (map[int]string, error) {
	return list(dir, func(_ int, exe string) string { return exe })
}

// WorkingIn lists the processes whose working directory lies in a directory, with their executables. They may be
// anybody's: a shell in which somebody looks around is one.
func WorkingIn(dir string) (map[int]string, error) {
	return list(dir, func(pid int, _ string) string {
		cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)) // unreadable: it is another user's
		return cwd
	})
}

// list takes the processes but ours whose place lies in a directory.
func list(dir string, place func(pid int, exe string) string) (map[int]string, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("find the directory: %w", err)
	}
	found := map[int]string{}
	err = each(func(pid int, exe string) {
		if pid != os.Getpid() && inside(place(pid, exe), dir) {
			found[pid] = exe
		}
	})
	return found, err
}

func inside(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// each calls f for every process whose executable can be read.
func each(f func(pid int, exe string)) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue // not a process
		}
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil {
			continue // a kernel thread, another user's, or gone
		}
		f(pid, strings.TrimSuffix(exe, " (deleted)"))
	}
	return nil
}

func environ(pid int, key string) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return ""
	}
	for entry := range strings.SplitSeq(string(text), "\x00") {
		if value, ok := strings.CutPrefix(entry, key+"="); ok {
			return value
		}
	}
	return ""
}
