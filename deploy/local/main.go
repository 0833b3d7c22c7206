// Command local runs the whole suite on one machine out of this workspace, without containers: private PostgreSQL and
// RabbitMQ servers, unitd, and through unitd's Fleet API OpenAperture itself. The Makefile calls it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/openaperture/openaperture/deploy/local/internal/suites"
)

const usage = `usage: local <command>

  up          start the stack, or what of it does not run
  down        stop it and remove what it left
  demo        up, then watch the suite upgrade itself
  e2e [n]     the same story as a spec, n times from nothing
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
	case "test":
		packages := []string{"work"}
		if len(args) > 0 {
			packages = args
		}
		return suites.Run(ctx, root, os.Stdout, nil, packages)
	default:
		fmt.Fprint(os.Stderr, usage)
		return fmt.Errorf("unknown command %q", command)
	}
}

// workspace finds the directory of go.work, here or above.
func workspace() (string, error) {
	here, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the workspace: %w", err)
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
