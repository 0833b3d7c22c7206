package containers

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Container is one of the project's, as docker inspect shows it.
type Container struct {
	ID    string `json:"Id"`
	Name  string
	State struct {
		PID       int `json:"Pid"` // of its main process, on the host
		StartedAt time.Time
		Health    struct{ Status string }
	}
	Config struct {
		Image  string
		User   string
		Labels map[string]string
	}
	HostConfig struct {
		ReadonlyRootfs bool
		Privileged     bool
		CapDrop        []string
	}
	NetworkSettings struct {
		Ports map[string][]struct {
			HostIP string `json:"HostIp"`
		}
	}
}

// Service is its service in docker-compose.yml.
func (c Container) Service() string { return c.Config.Labels["com.docker.compose.service"] }

// Hostname is what the container calls itself: the beginning of its id, unless it was given one.
func (c Container) Hostname() string { return c.ID[:12] }

// Containers are all of the project's, by name.
func (p Project) Containers(ctx context.Context) ([]Container, error) {
	ids, err := p.run(ctx, "docker", "ps", "-aq", "--filter", p.label())
	if err != nil || strings.TrimSpace(ids) == "" {
		return nil, err
	}
	var found []Container
	return found, p.inspect(ctx, &found, "container", strings.Fields(ids))
}

// Image is an image as docker inspect shows it.
type Image struct {
	RepoTags []string
	Size     int64 // bytes
	Config   struct {
		User        string
		Labels      map[string]string
		Healthcheck struct{ Test []string }
	}
}

// Images are those that the project's containers run, by tag.
func (p Project) Images(ctx context.Context) (map[string]Image, error) {
	all, err := p.Containers(ctx)
	if err != nil {
		return nil, err
	}
	images := map[string]Image{}
	for _, c := range all {
		var one []Image
		if err := p.inspect(ctx, &one, "image", []string{c.Config.Image}); err != nil {
			return nil, err
		}
		images[c.Config.Image] = one[0]
	}
	return images, nil
}

func (p Project) inspect(ctx context.Context, into any, kind string, ids []string) error {
	out, err := p.run(ctx, "docker", append([]string{kind, "inspect"}, ids...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("read docker inspect: %w", err)
	}
	return nil
}

// Healthy wants every container of the services, or of all, to be healthy, and says which one is not.
func (p Project) Healthy(ctx context.Context, services ...string) error {
	all, err := p.Containers(ctx)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, s := range services {
		wanted[s] = true
	}
	seen := 0
	for _, c := range all {
		if len(wanted) > 0 && !wanted[c.Service()] {
			continue
		}
		seen++
		if c.State.Health.Status != "healthy" {
			return fmt.Errorf("%s is %q", c.Name, c.State.Health.Status)
		}
	}
	if seen == 0 {
		return fmt.Errorf("project %s has no such container", p.Name)
	}
	return nil
}
