package stack

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// repositories makes the repositories that do not exist: one of deployment for each service, and the sources'.
func (s *Stack) repositories(ctx context.Context, services []Service) error {
	for _, v := range services {
		if err := makeRepo(ctx, s.place(s.DeploymentRepo(v)), s.Deployment(v)); err != nil {
			return err
		}
		readme := map[string]string{
			"README.md": "The sources of the local stack are the workspace's own; this repository holds the refs.\n"}
		if err := makeRepo(ctx, s.place(s.SourceRepo(v)), readme); err != nil {
			return err
		}
	}
	return nil
}

// MakeRepo makes a repository beside the others with one commit of these files, unless it exists, and returns where it
// is.
func (s *Stack) MakeRepo(ctx context.Context, name string, files map[string]string) (string, error) {
	return s.repo(name), makeRepo(ctx, s.place(s.repo(name)), files)
}

// tag makes a version of the sources: a commit of its own and a tag on it. An existing tag stays.
func tag(ctx context.Context, repo, ref string) error {
	if err := git(ctx, "", "--git-dir="+repo, "rev-parse", "--verify", "--quiet", "refs/tags/"+ref); err == nil {
		return nil
	}
	script := commit(map[string]string{"VERSION": ref + "\n"}, "Release "+ref, "from refs/heads/main^0\n") +
		fmt.Sprintf("reset refs/tags/%s\nfrom refs/heads/main\n\n", ref)
	return git(ctx, script, "--git-dir="+repo, "fast-import", "--quiet")
}

func makeRepo(ctx context.Context, repo string, files map[string]string) error {
	if _, err := os.Stat(repo); err == nil {
		return nil
	}
	if err := git(ctx, "", "init", "--quiet", "--bare", "--initial-branch=main", repo); err != nil {
		return err
	}
	return git(ctx, commit(files, "Begin", ""), "--git-dir="+repo, "fast-import", "--quiet")
}

// commit is the script of git fast-import for one commit on main.
func commit(files map[string]string, message, from string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "commit refs/heads/main\ncommitter OpenAperture <local@localhost> %d +0000\ndata %d\n%s\n%s",
		time.Now().Unix(), len(message), message, from)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&b, "M 100644 inline %s\ndata %d\n%s\n", name, len(files[name]), files[name])
	}
	return b.String() + "\n"
}

// git runs git without the user's configuration.
func git(ctx context.Context, input string, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
