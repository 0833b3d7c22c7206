package soak

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
)

// unitd is killed like the others, and started again at once, as a host's init would.
const unitd = "unitd"

// lasting is a fault that ends by itself.
type lasting struct {
	what string
	link bool // of a link; else of a process
	ends time.Time
	end  func(context.Context) error
}

// strike does one fault and says what it did; empty if there was nobody to do it to.
func (r *run) strike(ctx context.Context, f Fault, m moment) (string, error) {
	switch f {
	case Kill, Pause:
		return r.strikeProcess(ctx, f, m.holder)
	case Cut, Stall:
		return r.strikeLink(ctx, f)
	case Broker:
		return r.strikeServer(ctx, "RabbitMQ", r.stack.RabbitMQ.Dir, r.stack.RabbitMQ.Stop, r.stack.RabbitMQ.Start)
	case Database:
		return r.strikeServer(ctx, "PostgreSQL", r.stack.Postgres.Dir, r.stack.Postgres.Stop, r.stack.Postgres.Start)
	default:
		return "", fmt.Errorf("there is no fault %q", f)
	}
}

// targets are the processes that may be hit, by hostname.
func (r *run) targets() (map[string]int, error) {
	running, err := proc.Running(r.stack.Releases())
	if err != nil {
		return nil, err
	}
	targets := map[string]int{}
	for _, p := range running {
		if p.Binary != stack.Hello.Name {
			targets[p.Hostname] = p.PID
		}
	}
	if pid, ok := r.stack.UnitdPID(); ok {
		targets[unitd] = pid
	}
	return targets, nil
}

func (r *run) strikeProcess(ctx context.Context, f Fault, holder string) (string, error) {
	targets, err := r.targets()
	if err != nil || len(targets) == 0 {
		return "", err
	}
	victim := r.plan.victim(slices.Sorted(maps.Keys(targets)), holder)
	short, pid := victim[strings.LastIndexByte(victim, '.')+1:], targets[victim]
	r.struck[unitOf(victim)] = time.Now()
	if f == Pause {
		return r.pause(short, victim, pid), nil
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return "", nil //nolint:nilerr // it ended by itself a moment ago
	}
	if victim == unitd {
		r.strikeUnits()
		return short, r.stack.RestartUnitd(ctx)
	}
	return short, nil
}

// strikeUnits notes that a fault of unitd hits all units: none of them is started while it is away.
func (r *run) strikeUnits() {
	for _, v := range stack.Own {
		for i := 1; i <= v.Instances; i++ {
			r.struck[v.Unit(i)] = time.Now()
		}
	}
}

// pause stops a process for a while. The process that is continued must be the same one.
func (r *run) pause(short, victim string, pid int) string {
	if syscall.Kill(pid, syscall.SIGSTOP) != nil {
		return ""
	}
	took := r.plan.lasts()
	r.lasting = append(r.lasting, lasting{what: short, ends: time.Now().Add(took), end: func(context.Context) error {
		targets, err := r.targets()
		if targets[victim] == pid {
			_ = syscall.Kill(pid, syscall.SIGCONT) // killed meanwhile: fine
		}
		if r.struck[unitOf(victim)] = time.Now(); victim == unitd {
			r.strikeUnits()
		}
		return err
	}})
	return fmt.Sprintf("%s for %.1f s", short, took.Seconds())
}

func (r *run) strikeLink(ctx context.Context, f Fault) (string, error) {
	links := r.stack.Links()
	link := links[r.plan.dice.IntN(len(links))].Name
	took := r.plan.lasts()
	breakIt := r.stack.Cut
	if f == Stall {
		breakIt = r.stack.Stall
	}
	if err := breakIt(ctx, link); err != nil {
		return "", err
	}
	heal := func(ctx context.Context) error { return r.stack.Heal(ctx, link) }
	r.lasting = append(r.lasting, lasting{what: link, link: true, ends: time.Now().Add(took), end: heal})
	return fmt.Sprintf("%s for %.1f s", link, took.Seconds()), nil
}

// strikeServer restarts a server. Every other time it is killed, as by a host that loses its power.
func (r *run) strikeServer(ctx context.Context, name, dir string,
	stop, start func(context.Context) error) (string, error) {
	what := name + ", restarted"
	if r.plan.abrupt() {
		what = name + ", killed"
		if err := killIn(ctx, dir); err != nil {
			return "", err
		}
	} else if err := stop(ctx); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for err := start(ctx); err != nil; err = start(ctx) { // a killed server takes a while to let go of its memory
		select {
		case <-ctx.Done():
			return "", errors.Join(ctx.Err(), err)
		case <-time.After(200 * time.Millisecond):
		}
	}
	r.disturbed = time.Now()
	return what, nil
}

// serverPrograms are what the servers consist of.
var serverPrograms = []string{"postgres", "beam.smp", "erl_child_setup", "inet_gethost"}

// killIn kills the server that works in a directory, and waits until none of its processes is left: a server that is
// about to end would count as one that runs.
func killIn(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		working, err := proc.WorkingIn(dir)
		if err != nil {
			return err
		}
		maps.DeleteFunc(working, func(_ int, exe string) bool {
			return !slices.Contains(serverPrograms, filepath.Base(exe))
		})
		if len(working) == 0 {
			return nil
		}
		for pid := range working {
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone already: fine
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kill what works in %s: %w", dir, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// healDue ends the faults whose time is over, or all of them. It says which ended.
func (r *run) healDue(ctx context.Context, all bool) ([]string, error) {
	var healed []string
	var wrong error
	r.lasting = slices.DeleteFunc(r.lasting, func(l lasting) bool {
		if !all && time.Now().Before(l.ends) {
			return false
		}
		if err := l.end(ctx); err != nil {
			wrong = errors.Join(wrong, fmt.Errorf("end the fault of %s: %w", l.what, err))
			return false
		}
		if l.link {
			r.disturbed = time.Now()
		}
		healed = append(healed, l.what)
		return true
	})
	return healed, wrong
}
