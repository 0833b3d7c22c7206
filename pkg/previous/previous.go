// Package previous reads the release before this one out of git. deploy/previous names its commit. Suites and the tools
// of deploy/local run its programs beside these.
package previous

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

var fullHash = regexp.MustCompile(`^[0-9a-f]{40}$`)

// Commit reads the full hash of the commit that deploy/previous names. root is the workspace.
func Commit(root string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, "deploy", "previous"))
	if err != nil {
		return "", fmt.Errorf("read which release was before this one: %w", err)
	}
	commit := strings.TrimSpace(string(text))
	if !fullHash.MatchString(commit) {
		return "", fmt.Errorf("deploy/previous holds %q: want the full hash of a commit", commit)
	}
	return commit, nil
}

// Extract writes the files of a commit into a directory, which must exist.
func Extract(ctx context.Context, root, commit, dir string) error {
	var refusal, complaint bytes.Buffer // one each: both programs write at the same time
	archive := exec.CommandContext(ctx, "git", "archive", "--format=tar", commit)
	archive.Dir, archive.Stderr = root, &refusal
	unpack := exec.CommandContext(ctx, "tar", "-x", "-C", dir)
	unpack.Stderr = &complaint
	var err error
	if unpack.Stdin, err = archive.StdoutPipe(); err != nil {
		return fmt.Errorf("read commit %s: %w", commit, err)
	}
	if err := unpack.Start(); err != nil {
		return fmt.Errorf("unpack commit %s: %w", commit, err)
	}
	if err := errors.Join(archive.Run(), unpack.Wait()); err != nil {
		return fmt.Errorf("read commit %s: %w: %s %s (a shallow clone lacks it: git fetch --unshallow)", commit, err,
			strings.TrimSpace(refusal.String()), strings.TrimSpace(complaint.String()))
	}
	return nil
}
