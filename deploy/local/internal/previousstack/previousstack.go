// Package previousstack runs the release before this one. deploy/previous names its commit. Its sources come out of
// git, so that the stack that is begun from them is the whole old one: its services and its unitd, its schema,
// configurations and unit definitions.
package previousstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/openaperture/openaperture/pkg/previous"
	"github.com/openaperture/openaperture/pkg/times"
)

// Dir is where the release before this one is kept in a workspace. Occupy it while a stack of that release runs.
func Dir(root string) string { return filepath.Join(root, ".run-previous") }

// Sources is the workspace of the release before this one, below Dir. It is extracted once.
func Sources(ctx context.Context, root string) (string, error) {
	commit, err := previous.Commit(root)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(Dir(root), commit)
	if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // PostgreSQL's user passes through
		return "", fmt.Errorf("make a place for the release before this one: %w", err)
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "fresh-")
	if err != nil {
		return "", fmt.Errorf("make a place for the release before this one: %w", err)
	}
	defer func() { _ = os.RemoveAll(fresh) }()
	if err := os.Chmod(fresh, 0o755); err != nil { //nolint:gosec // the same
		return "", fmt.Errorf("make a place for the release before this one: %w", err)
	}
	if err := previous.Extract(ctx, root, commit, fresh); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, dir); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("keep the release before this one: %w", err)
	}
	return dir, nil
}

// Up starts a stack out of the sources of the release before this one, as `make up` did at that commit, and returns its
// directory. What an earlier run left there is taken down before.
func Up(ctx context.Context, sources string, out io.Writer) (string, error) {
	for _, command := range []string{"down", "up"} {
		cmd := exec.CommandContext(ctx, "go", "run", "./deploy/local", command)
		cmd.Dir, cmd.Stdout, cmd.Stderr = sources, out, out
		cmd.Env = append(os.Environ(), "PROFILE="+string(times.Fast), "GOWORK="+filepath.Join(sources, "go.work"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
		cmd.WaitDelay = time.Minute
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("make %s of the release before this one: %w", command, err)
		}
	}
	return filepath.Join(sources, ".run"), nil
}
