// Command local runs the whole suite on one machine out of this workspace, without containers: private PostgreSQL and
// RabbitMQ servers, unitd, and through unitd's Fleet API OpenAperture itself. The Makefile calls it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/bench"
	"github.com/openaperture/openaperture/deploy/local/internal/containers"
	"github.com/openaperture/openaperture/deploy/local/internal/demo"
	"github.com/openaperture/openaperture/deploy/local/internal/faultpage"
	"github.com/openaperture/openaperture/deploy/local/internal/soak"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/deploy/local/internal/suites"
	"github.com/openaperture/openaperture/deploy/local/internal/table"
	"github.com/openaperture/openaperture/pkg/times"
)

const usage = `usage: local <command>

  up          start the stack, or what of it does not run
  down [dir]  stop it and remove what it left, also of soak, chaos and bench; or the stack of that directory, which a
              suite has kept
  demo        up, then watch the suite upgrade itself
  e2e [n]     the same story as a spec, n times from nothing
  soak        upgrade the suite N times in a row under load and faults (SEED, N, BAD, EVERY, FAULTS, TIME, RESULTS)
  chaos       the same once, with kills alone (SEED, KILLS)
  bench       measure on a stack of its own
  compose up  start the stack in containers, register its exchange, print sizes, time and memory
  compose down
              stop it and remove what it left
  faults-page
              write docs/faults.md from the list of faults and the specs' texts
  test [args] the suites of every module, against private servers
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err == nil {
		return
	}
	if !errors.Is(err, suites.ErrNotGreen) { // the totals have said it, and stay the last line
		fmt.Fprintln(os.Stderr, "local:", err)
	}
	os.Exit(1)
}

func run(ctx context.Context, args []string) error {
	root, err := workspace()
	if err != nil {
		return err
	}
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch command {
	case "up":
		return up(ctx, root)
	case "down":
		return down(ctx, root, args)
	case "demo":
		s, err := openStack(ctx, root)
		if err != nil {
			return err
		}
		return demo.Run(ctx, s, os.Stdout, table.IsTerminal(os.Stdout))
	case "e2e":
		return endToEnd(ctx, root, args)
	case "soak":
		return soakAll(ctx, root)
	case "chaos":
		return chaos(ctx, root)
	case "bench":
		return measure(ctx, root)
	case "faults-page":
		return faultsPage(root)
	case "compose":
		return inContainers(ctx, root, args)
	case "test":
		if len(args) == 0 {
			args = []string{"work"}
		}
		return suites.Run(ctx, root, os.Stdout, nil, args)
	default:
		fmt.Fprint(os.Stderr, usage)
		return fmt.Errorf("unknown command %q", command)
	}
}

func openStack(ctx context.Context, root string) (*stack.Stack, error) {
	profile := times.Fast
	if named := os.Getenv("PROFILE"); named != "" {
		profile = times.Profile(named)
	}
	if _, err := times.Named(profile); err != nil {
		return nil, err
	}
	return stack.Open(ctx, root, filepath.Join(root, ".run"), profile)
}

func up(ctx context.Context, root string) error {
	s, err := openStack(ctx, root)
	if err != nil {
		return err
	}
	began := time.Now()
	err = s.Up(ctx, func(what string) { fmt.Printf("%6.1fs  starting %s\n", time.Since(began).Seconds(), what) })
	if err != nil {
		return fmt.Errorf("%w (make down removes what is there)", err)
	}
	fmt.Printf("%6.1fs  every service is ready and beats; profile %s\n", time.Since(began).Seconds(), s.Profile)
	demo.Leave(s, os.Stdout)
	return nil
}

// faultsPage writes docs/faults.md.
func faultsPage(root string) error {
	page, err := faultpage.Page(root)
	if err != nil {
		return err
	}
	//nolint:gosec // a page of the documents
	return os.WriteFile(filepath.Join(root, "docs/faults.md"), []byte(page), 0o644)
}

// down takes the stack down and what trials have left beside it, or the stacks of the directories that are named. A
// trial that still runs is left alone.
func down(ctx context.Context, root string, dirs []string) error {
	if len(dirs) > 0 {
		for _, dir := range dirs {
			if _, err := os.Stat(filepath.Join(dir, "stack.json")); err != nil {
				return fmt.Errorf("find the stack of %s: %w", dir, err)
			}
		}
	} else {
		trials, err := filepath.Glob(filepath.Join(root, ".run-*"))
		if err != nil {
			return fmt.Errorf("find stacks: %w", err)
		}
		dirs = append(trials, filepath.Join(root, ".run"))
	}
	var all []error
	for _, dir := range dirs {
		all = append(all, downOne(ctx, root, dir))
	}
	return errors.Join(all...)
}

func downOne(ctx context.Context, root, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("find the stack of %s: %w", dir, err)
	}
	held, err := stack.Occupy(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case errors.Is(err, stack.ErrInUse):
		tell(err.Error() + " and left alone")
		return nil
	case err != nil:
		return err
	}
	defer func() { _ = held.Close() }()
	if _, err := os.Stat(filepath.Join(dir, "stack.json")); errors.Is(err, os.ErrNotExist) {
		return downBelow(ctx, root, dir)
	}
	s, err := stack.Open(ctx, root, dir, times.Fast) // its own profile stands in stack.json
	if err != nil {
		return err
	}
	return s.Down(ctx, tell)
}

// downBelow takes down the stacks that the release before this one has begun below a directory, and removes it.
func downBelow(ctx context.Context, root, dir string) error {
	found, err := filepath.Glob(filepath.Join(dir, "*", ".run", "stack.json"))
	if err != nil {
		return fmt.Errorf("find stacks: %w", err)
	}
	for _, at := range found {
		if err := downOne(ctx, root, filepath.Dir(at)); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

func tell(what string) { fmt.Println(what) }

// inContainers brings docker-compose.yml up, or down.
func inContainers(ctx context.Context, root string, args []string) error {
	p := containers.Default(root)
	switch strings.Join(args, " ") {
	case "up":
		took, err := p.UpToReady(ctx)
		if err != nil {
			return fmt.Errorf("%w (make compose-down removes what is there)", err)
		}
		fmt.Printf("ready after %.1f s\n\n", took.Seconds())
		if err := p.Figures(ctx, os.Stdout); err != nil {
			return err
		}
		fmt.Printf("\nmanager-api  %s\ntoken        %s\nstop it with: make compose-down\n", p.URL,
			filepath.Join(p.Generated, "admin_token"))
		return nil
	case "down":
		return p.Remove(ctx)
	default:
		return fmt.Errorf("compose %q: want up or down", args)
	}
}

// endToEnd runs the end-to-end suite n times, each in a process and a stack of its own, and stops at the first failure.
// The seed rises with the runs: it chooses which service gets which kind of bad version, so that twelve runs in a row
// see them all. SEED repeats a run.
func endToEnd(ctx context.Context, root string, args []string) error {
	runs, seed := 1, time.Now().Unix()%100_000
	if len(args) > 0 {
		n, err := strconv.Atoi(args[0])
		if err != nil || n < 1 {
			return fmt.Errorf("e2e %q: want how many times", args[0])
		}
		runs = n
	}
	if text := os.Getenv("SEED"); text != "" {
		given, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("SEED %q: want a number", text)
		}
		seed = given
	}
	for i := range runs {
		began := time.Now()
		err := endToEndOnce(ctx, root, seed+int64(i))
		fmt.Printf("run %d of %d, seed %d: %.0f s\n", i+1, runs, seed+int64(i), time.Since(began).Seconds())
		if err != nil {
			return fmt.Errorf("run %d with seed %d: %w (repeat it with SEED=%d make e2e)", i+1, seed+int64(i), err,
				seed+int64(i))
		}
	}
	return nil
}

func endToEndOnce(ctx context.Context, root string, seed int64) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-v", "-count=1", "-timeout=30m", "-tags=e2e", "./deploy/local/e2e",
		"-args", "-ginkgo.v", "-ginkgo.no-color", fmt.Sprintf("-ginkgo.seed=%d", seed))
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) } // Ginkgo then cleans up
	cmd.WaitDelay = 2 * time.Minute
	return cmd.Run()
}

// chaos is a soak of one upgrade, with kills alone, on a stack of its own. What went well is taken down.
func chaos(ctx context.Context, root string) error {
	var cfg soak.Config
	if err := errors.Join(number("SEED", today(), &cfg.Seed), number("KILLS", 60, &cfg.Faults)); err != nil {
		return err
	}
	cfg.Upgrades, cfg.Weights, cfg.Every, cfg.Patience = 1, soak.KillsOnly, 3*time.Second, 15*time.Minute
	return trial(ctx, root, ".run-chaos", "", cfg)
}

// soakAll is a soak with all faults, on a stack of its own.
func soakAll(ctx context.Context, root string) error {
	cfg := soak.Config{Weights: soak.Everything, Patience: 8 * time.Minute}
	err := errors.Join(number("SEED", today(), &cfg.Seed), number("N", 3, &cfg.Upgrades), number("BAD", 10, &cfg.BadEvery),
		number("FAULTS", 20, &cfg.Faults), duration("EVERY", 1500*time.Millisecond, &cfg.Every),
		duration("TIME", 0, &cfg.Time))
	if err != nil {
		return err
	}
	return trial(ctx, root, ".run-soak", soak.Tuning, cfg)
}

// trial runs a soak and keeps its results: a line in the file that RESULTS names.
func trial(ctx context.Context, root, dir, tuning string, cfg soak.Config) error {
	cfg.Calm, cfg.Commit = 5*time.Minute, commit(ctx, root)
	if err := number("BEATS", 50, &cfg.Beats); err != nil {
		return err
	}
	return alone(ctx, root, dir, tuning, func(s *stack.Stack) error {
		tally, err := soak.Run(ctx, s, cfg, os.Stdout)
		path := os.Getenv("RESULTS")
		if path == "" {
			return err
		}
		sum, appendErr := tally.Append(path)
		if appendErr == nil {
			fmt.Printf("\nall runs of %s:\n", path)
			sum.Write(os.Stdout)
		}
		return errors.Join(err, appendErr)
	})
}

// today is a seed, when none is given.
func today() uint64 { return uint64(time.Now().Unix() % 100_000) } //nolint:gosec // not negative

// commit names what is tried.
func commit(ctx context.Context, root string) string {
	cmd := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12")
	cmd.Dir = root
	text, err := cmd.Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}

func measure(ctx context.Context, root string) error {
	return alone(ctx, root, ".run-bench", "{min_healthy: 0s}", func(s *stack.Stack) error {
		return bench.Run(ctx, s, os.Stdout)
	})
}

// alone runs f on a fresh stack in a directory of its own, which it holds meanwhile. What went wrong leaves the stack
// as it is, to be looked at.
func alone(ctx context.Context, root, dir, tuning string, f func(*stack.Stack) error) error {
	dir = filepath.Join(root, dir)
	s, held, err := openHeld(ctx, root, dir)
	if err != nil {
		return err
	}
	err = s.Down(ctx, tell) // what an earlier trial left
	_ = held.Close()        // of a directory that is gone
	if err != nil {
		return err
	}
	if s, held, err = openHeld(ctx, root, dir); err != nil {
		return err
	}
	defer func() { _ = held.Close() }()
	s.Tuning = tuning
	if err := f(s); err != nil {
		return fmt.Errorf("%w (the stack is still up under %s; make down or the next trial removes it)", err, dir)
	}
	return s.Down(ctx, tell)
}

func openHeld(ctx context.Context, root, dir string) (*stack.Stack, *os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as the stack itself makes it
		return nil, nil, fmt.Errorf("make the stack's directory: %w", err)
	}
	held, err := stack.Occupy(dir)
	if err != nil {
		return nil, nil, err
	}
	s, err := stack.Open(ctx, root, dir, times.Fast)
	if err != nil {
		_ = held.Close()
		return nil, nil, err
	}
	return s, held, nil
}

// number reads a number from the environment.
func number[T ~int | ~uint64](name string, otherwise T, into *T) error {
	*into = otherwise
	text := os.Getenv(name)
	if text == "" {
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return fmt.Errorf("%s %q: want a number", name, text)
	}
	*into = T(n)
	return nil
}

// duration reads a duration from the environment.
func duration(name string, otherwise time.Duration, into *time.Duration) error {
	*into = otherwise
	text := os.Getenv(name)
	if text == "" {
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return fmt.Errorf("%s %q: want a duration, such as 90m", name, text)
	}
	*into = d
	return nil
}

// workspace finds the directory of go.work, here or above.
func workspace() (string, error) {
	here, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the workspace: %w", err)
	}
	if here, err = filepath.EvalSymlinks(here); err != nil { // processes are recognised by their real paths
		return "", fmt.Errorf("find the workspace: %w", err)
	}
	if strings.ContainsAny(here, " \t\n\"'\\%$") {
		return "", fmt.Errorf("find the workspace: units and scripts name their files by path, and %q has a space or a "+
			"quoting character: move it", here)
	}
	for dir := here; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("find the workspace: no go.work here or above " + here)
		}
	}
}
