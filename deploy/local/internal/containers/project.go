// Package containers drives the stack in containers: docker-compose.yml as it is, under a project name, with secrets
// and configurations in a directory. docker and docker-compose do the work; nothing here knows another way.
package containers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/openaperture/openaperture/pkg/managerapi"
)

// Project is one docker-compose.yml brought up, or to be.
type Project struct {
	Root      string   // the workspace
	Name      string   // of the compose project; every container, network and volume carries it
	Generated string   // secrets and configurations, absolute
	URL       string   // where manager-api is published
	Env       []string // KEY=value: what differs from the defaults of docker-compose.yml and of deploy/compose/init.sh
}

// Default is the project of make compose-up: default ports, deploy/compose/generated.
func Default(root string) Project {
	return Project{Root: root, Name: "openaperture", Generated: filepath.Join(root, "deploy/compose/generated"),
		URL: "http://127.0.0.1:8080"}
}

// Init makes the secrets and configurations that are missing.
func (p Project) Init(ctx context.Context) error {
	_, err := p.run(ctx, "sh", "deploy/compose/init.sh")
	return err
}

// Up starts what does not run, each service when those are healthy that it depends on.
func (p Project) Up(ctx context.Context) error {
	_, err := p.compose(ctx, "up", "-d")
	return err
}

// Down removes containers, networks and volumes of the project.
func (p Project) Down(ctx context.Context) error {
	_, err := p.compose(ctx, "down", "--volumes", "--remove-orphans", "--timeout", "20")
	return err
}

// Forget removes secrets and configurations, which are worth nothing without the volumes. Repositories stay.
func (p Project) Forget() error {
	entries, err := os.ReadDir(p.Generated)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", p.Generated, err)
	}
	var all []error
	for _, e := range entries {
		if e.Type().IsRegular() {
			all = append(all, os.Remove(filepath.Join(p.Generated, e.Name())))
		}
	}
	return errors.Join(all...)
}

// Remove is Down and Forget. Secrets stay where Down has failed: the volumes that are left need them.
func (p Project) Remove(ctx context.Context) error {
	if err := p.Init(ctx); err != nil { // docker-compose refuses its file where what it mounts is missing
		return err
	}
	if err := p.Down(ctx); err != nil {
		return err
	}
	return p.Forget()
}

// Logs are the last lines of every container, to be shown when something failed.
func (p Project) Logs(ctx context.Context) (string, error) {
	return p.compose(ctx, "logs", "--no-color", "--tail=40")
}

// Left lists the containers, networks and volumes of the project.
func (p Project) Left(ctx context.Context) ([]string, error) {
	var left []string
	for _, list := range [][]string{{"ps", "-a"}, {"network", "ls"}, {"volume", "ls"}} {
		out, err := p.run(ctx, "docker", append(list, "-q", "--filter", p.label())...)
		if err != nil {
			return nil, err
		}
		for _, id := range strings.Fields(out) {
			left = append(left, list[0]+" "+id)
		}
	}
	return left, nil
}

func (p Project) label() string { return "label=com.docker.compose.project=" + p.Name }

// Client calls manager-api as administrator.
func (p Project) Client() (*managerapi.Client, error) {
	token, err := os.ReadFile(filepath.Join(p.Generated, "admin_token"))
	if err != nil {
		return nil, fmt.Errorf("read the administrator's token: %w", err)
	}
	return managerapi.New(p.URL, strings.TrimSpace(string(token))), nil
}

// compose runs docker-compose 1.29, or compose v2 where it is a plugin.
func (p Project) compose(ctx context.Context, args ...string) (string, error) {
	args = append([]string{"-p", p.Name, "-f", "docker-compose.yml"}, args...)
	if _, err := exec.LookPath("docker-compose"); err == nil {
		return p.run(ctx, "docker-compose", args...)
	}
	return p.run(ctx, "docker", append([]string{"compose"}, args...)...)
}

func (p Project) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = p.Root
	cmd.Env = append(append(os.Environ(), "GENERATED="+p.Generated), p.Env...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return string(out), nil
}
