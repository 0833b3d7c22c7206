// Package soak lets the suite upgrade itself many times in a row, under a load of heartbeats and under faults: services
// and unitd are killed and stopped, links are cut, servers are restarted. After every step, which is a fault or a
// change of a state, it checks what must hold at every moment (Invariants). After every upgrade the faults pause, and
// the suite has to be right by itself. A violation ends the run and leaves the stack as it is.
//
// A seed fixes what is drawn. When it falls depends on the machine, so that two runs of one seed are alike and not
// equal.
package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
	_ "github.com/lib/pq" // the rows are read beside manager-api, which is a victim itself

	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/deploy/local/internal/witness"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/times"
)

// Config says how long and how hard.
type Config struct {
	Seed     uint64
	Upgrades int           // how many releases in a row
	BadEvery int           // every so many releases one is bad; 0: none
	Weights  Weights       // what is drawn
	Faults   int           // faults per upgrade, at most
	Every    time.Duration // between two faults
	Patience time.Duration // how long one upgrade may take; longer is stuck
	Calm     time.Duration // how long the suite has to be right after the last fault of an upgrade
	Time     time.Duration // no upgrade begins after this time; 0: all do
	Beats    int           // heartbeats of simulated modules per second
	Commit   string        // what is tried, for the results
}

// Tuning are the times of a stack for a soak: checks are close together, bad versions are given up early, and a module
// is gone so soon that a blindness of ours would be seen.
const Tuning = "{check_interval: 5s, health_deadline: 15s, progress_deadline: 40s, " +
	"inactive_after: 20s, delete_after: 40s}"

// types are upgraded, in this order.
var types = []component.Type{component.Manager, component.Overseer, component.Deployer}

// run is one trial.
type run struct {
	cfg      Config
	plan     *plan
	stack    *stack.Stack
	out      io.Writer
	db       *sqlx.DB
	api      *managerapi.Client
	see      witness.Witness
	observer *observer
	load     *load
	began    time.Time
	tally    Tally

	releases  map[string]Release // by ref
	before    Observation        // of the last step
	rest      Observation        // of the first time at rest; its resources are what later ones are compared with
	print     string             // of the last moment
	lasting   []lasting
	struck    map[string]time.Time // units that were hit and have not been seen active since
	hit       map[string]time.Time // when each unit was hit last
	disturbed time.Time            // when a fault of a server or of a link ended last
	last      time.Time            // when the last fault ended
	calm      bool
}

// errBroken is the end of a run by a violation.
var errBroken = errors.New("an invariant does not hold")

// Run brings the stack up and upgrades it. The timeline and the table go to out. An error says what is not right.
func Run(ctx context.Context, s *stack.Stack, cfg Config, out io.Writer) (Tally, error) {
	r := &run{cfg: cfg, plan: newPlan(cfg.Seed, cfg.Weights), stack: s, out: out, tally: newTally(cfg),
		releases: map[string]Release{}, struck: map[string]time.Time{}, hit: map[string]time.Time{}}
	if err := r.prepare(ctx); err != nil {
		return r.tally, err
	}
	defer func() { _ = r.db.Close() }()
	loading, stop := context.WithCancel(ctx)
	var background sync.WaitGroup
	background.Go(func() { r.load.run(loading) })
	defer background.Wait()
	defer stop()
	fmt.Fprintf(out, "soak: seed %d, %d upgrades, %s, one fault every %s, %d heartbeats/s; profile %s, times %s\n",
		cfg.Seed, cfg.Upgrades, cfg.Weights, cfg.Every, cfg.Beats, s.Profile, s.Tuning)
	r.began = time.Now()
	err := r.upgrades(ctx)
	r.tally.took(time.Since(r.began))
	_, _, r.tally.Beats = r.load.told()
	if _, healErr := r.healDue(context.WithoutCancel(ctx), true); healErr != nil { // also of a run that was interrupted
		err = errors.Join(err, healErr)
	}
	r.tally.Write(out)
	return r.tally, err
}

func (r *run) prepare(ctx context.Context) error {
	if err := r.stack.Separate(ctx); err != nil {
		return err
	}
	began := time.Now()
	say := func(what string) { fmt.Fprintf(r.out, "%6.1fs  starting %s\n", time.Since(began).Seconds(), what) }
	if err := r.stack.Up(ctx, say); err != nil {
		return err
	}
	var err error
	if r.api, err = r.stack.Client(); err != nil {
		return err
	}
	if r.db, err = sqlx.ConnectContext(ctx, "postgres", r.stack.DatabaseURL()); err != nil {
		return fmt.Errorf("connect to the stack's database: %w", err)
	}
	r.see = witness.Witness{Stack: r.stack, API: r.api}
	r.observer = &observer{stack: r.stack, db: r.db, logs: map[string]int64{}}
	r.load = newLoad(r.stack.RabbitMQ.URL(), r.cfg.Beats)
	return nil
}

// upgrades goes through all releases.
func (r *run) upgrades(ctx context.Context) error {
	highest, err := r.stack.HighestRelease()
	if err != nil {
		return err
	}
	if err := r.beRight(ctx); err != nil {
		return err
	}
	for n := 1; n <= r.cfg.Upgrades; n++ {
		if r.cfg.Time > 0 && time.Since(r.began) > r.cfg.Time {
			fmt.Fprintf(r.out, "%7.1fs  the time is over after %d upgrades\n", r.elapsed(), n-1)
			return nil
		}
		if err := r.upgrade(ctx, r.plan.release(n, highest, r.cfg.BadEvery)); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) elapsed() float64 { return time.Since(r.began).Seconds() }

func (r *run) say(format string, args ...any) {
	fmt.Fprintf(r.out, "%7.1fs  %s\n", r.elapsed(), fmt.Sprintf(format, args...))
}

// upgrade makes one release the gold standard of everything and does faults until the suite has taken it, or has taken
// it back. Nobody requests anything: the automatic checks of the overseers find the difference.
func (r *run) upgrade(ctx context.Context, release Release) error {
	if err := r.stack.BuildRelease(ctx, release.Ref, release.Broken, release.Mode); err != nil {
		return err
	}
	r.releases[release.Ref] = release
	r.load.silence(r.plan.silent(r.load.modules()))
	r.say("the gold standard is %s", release)
	r.calm = false
	for _, t := range types {
		if err := stack.SetGoldStandard(ctx, r.api, t, r.stack.SourceRepo(stack.Own[0]), release.Ref); err != nil {
			return err
		}
	}
	began := time.Now()
	faults, err := r.underFire(ctx, release)
	if err != nil {
		return err
	}
	r.say("%s after %d faults and %.1f s", release.Ref+r.outcome(release), faults, time.Since(began).Seconds())
	if err := r.beRight(ctx); err != nil {
		return err
	}
	r.tally.upgraded(release, r.before)
	return r.removeOldReleases()
}

// outcome is what became of a release, in words.
func (r *run) outcome(release Release) string {
	if release.Broken == nil {
		return " is proven everywhere"
	}
	return " is taken back for " + string(release.Broken.Type) + " and proven for the others"
}

// underFire looks, checks and strikes until the release has come to its end. It returns how many faults there were.
func (r *run) underFire(ctx context.Context, release Release) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Patience)
	defer cancel()
	faults, waits := 0, r.plan.moment()
	due := time.Now().Add(r.cfg.Every)
	for {
		m, err := r.step(ctx)
		if err != nil {
			return faults, r.orStuck(ctx, err, release)
		}
		if settled(r.before, release) {
			return faults, nil
		}
		late := time.Now().After(due.Add(patience))
		if faults < r.cfg.Faults && time.Now().After(due) && (m.is(waits) || late) {
			struck, err := r.fault(ctx, m)
			if err != nil {
				return faults, r.orStuck(ctx, err, release)
			}
			if struck {
				faults++
			}
			waits, due = r.plan.moment(), time.Now().Add(r.cfg.Every)
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return faults, r.orStuck(ctx, err, release)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// orStuck makes the end of the patience a violation.
func (r *run) orStuck(ctx context.Context, err error, release Release) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	stuck := Violation{Invariant{"I2", "what was accepted ends", Stuck, nil},
		fmt.Sprintf("the upgrade to %s has not come to its end within %s", release, r.cfg.Patience)}
	return r.broken("the patience is over", []Violation{stuck})
}

// fault draws and does one fault, and checks.
func (r *run) fault(ctx context.Context, m moment) (bool, error) {
	f := r.plan.fault()
	what, err := r.strike(ctx, f, m)
	if err != nil || what == "" {
		return false, err
	}
	r.last = time.Now()
	r.tally.struck(f, m)
	r.say("%-8s %3d  %-40s %s", f, r.tally.Faults[f], what, m)
	return true, r.check(ctx, fmt.Sprintf("%s of %s", f, what))
}

// step ends the faults whose time is over, looks, and checks if anything has changed.
func (r *run) step(ctx context.Context) (moment, error) {
	healed, err := r.healDue(ctx, false)
	if err != nil {
		return moment{}, err
	}
	for _, what := range healed {
		r.last = time.Now()
		if err := r.check(ctx, "the end of the fault of "+what); err != nil {
			return moment{}, err
		}
	}
	m, err := r.look(ctx)
	if err != nil {
		return m, err
	}
	if m.print == r.print {
		return m, nil
	}
	r.print = m.print
	return m, r.check(ctx, m.String())
}

// told is what the run knows.
func (r *run) told() Told {
	for unit, at := range r.struck {
		r.hit[unit] = at
	}
	t := Told{Bad: map[string]component.Type{}, Struck: maps.Clone(r.hit), Disturbed: r.disturbed}
	for ref, release := range r.releases {
		if release.Broken != nil {
			t.Bad[ref] = release.Broken.Type
		}
	}
	t.Beating, t.Silent, _ = r.load.told()
	if r.calm {
		t.Ended = r.last
	}
	t.Inactive, t.Delete = r.silenceTimes()
	return t
}

// silenceTimes are inactive_after and delete_after of the stack.
func (r *run) silenceTimes() (inactive, deleted time.Duration) {
	named, err := times.Named(r.stack.Profile)
	if err != nil || r.stack.Tuning != Tuning {
		return named.InactiveAfter, named.DeleteAfter
	}
	return 20 * time.Second, 40 * time.Second
}

// check observes and tries all invariants. after says what the step was.
func (r *run) check(ctx context.Context, after string) error {
	now, err := r.observer.observe(ctx, r.told())
	if err != nil {
		return err
	}
	r.tally.Steps++
	broken := Check(r.before, now)
	r.before = now
	if len(broken) > 0 {
		return r.broken(after, broken)
	}
	return nil
}

// beRight ends all faults and waits until everything is right, at rest.
func (r *run) beRight(ctx context.Context) error {
	if _, err := r.healDue(ctx, true); err != nil {
		return err
	}
	if r.last.IsZero() || len(r.lasting) > 0 {
		r.last = time.Now()
	}
	r.calm = true
	inner, cancel := context.WithTimeout(ctx, r.cfg.Calm)
	defer cancel()
	var wrong error
	for {
		_, err := r.step(inner)
		if err == nil {
			err = r.check(inner, "a look at rest")
		}
		if errors.Is(err, errBroken) {
			return err
		}
		if err == nil {
			wrong = r.amiss(inner)
			if wrong == nil {
				break
			}
		}
		if pause(inner, 200*time.Millisecond) != nil {
			stuck := Violation{Invariant{"I2", "everything is right by itself after the last fault", Stuck, nil},
				fmt.Sprintf("%s after the last fault: %v", r.cfg.Calm, errors.Join(wrong, err))}
			return errors.Join(ctx.Err(), r.broken("rest", []Violation{stuck}))
		}
	}
	took := time.Since(r.last)
	r.tally.recovered(took)
	r.say("right again, %.1f s after the last fault", took.Seconds())
	return r.atRest(ctx)
}

// atRest compares what the services hold with what they held when they rested first.
func (r *run) atRest(ctx context.Context) error {
	resources, err := r.observer.resources(ctx)
	if err != nil {
		return err
	}
	now := r.before
	now.Resources = resources
	if r.rest.Resources == nil {
		r.rest = now
	}
	if leaks := nothingLeaks(r.rest, now); len(leaks) > 0 {
		at := slices.IndexFunc(Invariants, func(i Invariant) bool { return i.ID == "I11" })
		return r.broken("rest", []Violation{{Invariants[at], fmt.Sprint(leaks)}})
	}
	return nil
}

// removeOldReleases removes the releases that nothing can return to: they would fill the disk.
func (r *run) removeOldReleases() error {
	keep := map[string]bool{stack.First: true}
	for _, c := range r.before.Components {
		keep[c.Recorded] = true
	}
	for _, u := range r.before.Upgrades[max(0, len(r.before.Upgrades)-2*len(types)):] {
		keep[u.From], keep[u.To] = true, true
	}
	return r.stack.RemoveReleases(func(ref string) bool { return !keep[ref] })
}
