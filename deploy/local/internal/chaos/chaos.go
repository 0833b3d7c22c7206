// Package chaos kills the suite while it upgrades itself. From the moment that a new version is the gold standard, every
// three seconds a random process out of manager-api, the overseers, the executors and unitd gets SIGKILL, until nothing
// is left to upgrade or all kills are spent. Then the suite has five minutes to be right by itself.
package chaos

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	_ "github.com/lib/pq" // the journal of what was killed when is read beside manager-api, which is a victim itself

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/deploy/local/internal/proc"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
)

// Config says how hard to be.
type Config struct {
	Seed  uint64
	Kills int
	Every time.Duration // between two kills
	Calm  time.Duration // how long the suite has after the last kill
}

// types are upgraded under fire, in this order.
var types = []component.Type{component.Manager, component.Overseer, component.Deployer}

// unitd is killed like the others, and started again at once, as a host's init would.
const unitd = "unitd"

// run is one trial.
type run struct {
	cfg    Config
	stack  *stack.Stack
	out    io.Writer
	db     *sqlx.DB
	api    *managerapi.Client
	ref    string
	began  time.Time
	seen   map[kind]int    // kills by what was going on
	struck map[string]bool // units that were killed and have not been seen active since
}

// Run brings the stack up, makes a new version the gold standard of everything, kills, and judges. An error says what
// is not right; the timeline has been written to out.
func Run(ctx context.Context, s *stack.Stack, cfg Config, out io.Writer) error {
	if err := s.Up(ctx, func(string) {}); err != nil {
		return err
	}
	r := &run{cfg: cfg, stack: s, out: out, seen: map[kind]int{}, struck: map[string]bool{}}
	if err := r.prepare(ctx); err != nil {
		return err
	}
	defer func() { _ = r.db.Close() }()
	fmt.Fprintf(out, "chaos: seed %d, up to %d kills, one every %s, profile %s, target %s\n", cfg.Seed, cfg.Kills, cfg.Every, s.Profile, r.ref)
	r.began = time.Now()
	for _, t := range types {
		if err := stack.SetGoldStandard(ctx, r.api, t, s.SourceRepo(stack.Own[0]), r.ref); err != nil {
			return err
		}
	}
	last, kills, err := r.kill(ctx)
	r.tally(kills)
	if err != nil {
		return err
	}
	return r.judge(ctx, last)
}

func (r *run) prepare(ctx context.Context) error {
	highest, err := r.stack.HighestRelease()
	if err != nil {
		return err
	}
	r.ref = fmt.Sprintf("v%d", highest+1)
	if err := r.stack.Build(ctx, r.ref); err != nil {
		return err
	}
	if r.api, err = r.stack.Client(); err != nil {
		return err
	}
	if r.db, err = sqlx.ConnectContext(ctx, "postgres", r.stack.DatabaseURL()); err != nil {
		return fmt.Errorf("connect to the stack's database: %w", err)
	}
	return nil
}

// kill goes on until everything is upgraded or the kills are spent; it returns when the last one was, and how many.
func (r *run) kill(ctx context.Context) (last time.Time, kills int, err error) {
	dice := rand.New(rand.NewPCG(r.cfg.Seed, 0x0a)) //nolint:gosec // a seed that repeats is the point
	last = time.Now()
	tick := time.NewTicker(r.cfg.Every)
	defer tick.Stop()
	for kills < r.cfg.Kills {
		select {
		case <-ctx.Done():
			return last, kills, ctx.Err()
		case <-tick.C:
		}
		now, err := r.await(ctx, kinds[dice.IntN(len(kinds))])
		if err != nil {
			return last, kills, err
		}
		if now.done {
			fmt.Fprintf(r.out, "%7.1fs  everything is at %s after %d kills\n", time.Since(r.began).Seconds(), r.ref, kills)
			return last, kills, nil
		}
		victim, ok, err := r.strike(ctx, dice, now.holder)
		if err != nil {
			return last, kills, err
		}
		if !ok {
			continue // between death and restart: nobody to kill
		}
		last = time.Now()
		kills++
		r.note(kills, victim, now)
	}
	return last, kills, nil
}

// strike kills one process, drawn among the names first so that two overseers are two chances. Every other time it is
// who works on the order, if somebody does.
func (r *run) strike(ctx context.Context, dice *rand.Rand, holder string) (string, bool, error) {
	running, err := proc.Running(r.stack.Releases())
	if err != nil {
		return "", false, err
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
	names := slices.Sorted(maps.Keys(targets))
	if len(names) == 0 {
		return "", false, nil
	}
	victim := names[dice.IntN(len(names))]
	if _, runs := targets[holder]; runs && dice.IntN(2) == 0 {
		victim = holder
	}
	if err := syscall.Kill(targets[victim], syscall.SIGKILL); err != nil {
		return "", false, nil //nolint:nilerr // it ended by itself a moment ago
	}
	if victim == unitd {
		return victim, true, r.stack.RestartUnitd(ctx)
	}
	r.struck[unitOf(victim)] = true
	return victim, true, nil
}
