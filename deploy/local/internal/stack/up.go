package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/deploy/render"
	"github.com/openaperture/openaperture/pkg/managerapi"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// First is the release that a new stack begins with.
const First = "v1"

// firstExchange is the id of the exchange that is registered first in an empty database. Tokens and configurations name
// it before it exists.
const firstExchange = 1

// Up starts what of the stack does not run and waits until every service beats. say is told what is being done.
func (s *Stack) Up(ctx context.Context, say func(string)) error {
	say("servers and release " + First)
	if err := s.prepare(ctx); err != nil {
		return err
	}
	say("unitd and manager-api")
	if err := s.startLinks(ctx); err != nil {
		return err
	}
	if err := s.startUnitd(ctx); err != nil {
		return err
	}
	if err := s.launch(ctx, Own[0]); err != nil {
		return err
	}
	if err := s.until(ctx, time.Minute, "manager-api is ready", func() (string, bool) {
		return s.why(ctx, Own[0]), s.ready(ctx, s.URL())
	}); err != nil {
		return err
	}
	say("exchange, broker, cluster, gold standard, components")
	api, err := s.Client()
	if err != nil {
		return err
	}
	if err := s.register(ctx, api); err != nil {
		return err
	}
	say("overseers and deployers")
	for _, v := range Own[1:] {
		if err := s.launch(ctx, v); err != nil {
			return err
		}
	}
	if err := s.beating(ctx, api, Own); err != nil {
		return err
	}
	for _, v := range Own {
		if err := s.adopt(ctx, api, v); err != nil {
			return err
		}
	}
	return s.writeEnv()
}

// prepare brings up what does not need each other at the same time.
func (s *Stack) prepare(ctx context.Context) error {
	if err := s.configure(); err != nil {
		return err
	}
	together, inner := errgroup.WithContext(ctx)
	together.Go(func() error {
		if err := s.Postgres.Start(inner); err != nil {
			return err
		}
		return s.Postgres.CreateDatabase(inner, database)
	})
	together.Go(func() error { return s.RabbitMQ.Start(inner) })
	together.Go(func() error {
		if err := s.repositories(inner, Own); err != nil {
			return err
		}
		return s.Build(inner, First)
	})
	return together.Wait()
}

// launch gives unitd the instances of a service that it does not have, rendered as an executor would. What it has stays
// as it is: it may have been upgraded since.
func (s *Stack) launch(ctx context.Context, v Service) error {
	for i := 1; i <= v.Instances; i++ {
		known, err := s.ensureLaunched(ctx, v.Unit(i))
		if err != nil {
			return err
		}
		if known {
			continue
		}
		rendered, err := s.render(ctx, v, First)
		if err != nil {
			return err
		}
		for _, u := range rendered.Units {
			if err := s.Put(ctx, v.Unit(i), u.Options); err != nil {
				return err
			}
		}
	}
	return nil
}

// render is the config milestone itself.
func (s *Stack) render(ctx context.Context, v Service, ref string) (render.Release, error) {
	g, err := render.NewGit(render.GitConfig{CacheDir: s.path("state", "git"), AllowLocal: true})
	if err != nil {
		return render.Release{}, err
	}
	r, err := g.Render(ctx, render.Request{ComponentType: string(v.Type), ExchangeID: firstExchange,
		DeploymentRepo: s.DeploymentRepo(v), DeploymentRef: Deployed, SourceRepo: s.SourceRepo(v), SourceRef: ref})
	if err != nil {
		return r, fmt.Errorf("render %s: %w", v.Name, err)
	}
	return r, nil
}

// beating waits until every instance of the services is an active module, and a leader covers the exchange.
func (s *Stack) beating(ctx context.Context, api *managerapi.Client, services []Service) error {
	return s.until(ctx, 90*time.Second, "every service beats", func() (string, bool) {
		modules, err := Modules(ctx, api)
		if err != nil {
			return err.Error(), false
		}
		for _, v := range services {
			n := 0
			for _, m := range modules {
				if m.Service == v.Name && m.Status == messages.StatusActive {
					n++
				}
			}
			if n < v.Instances {
				return fmt.Sprintf("%s: %d of %d; %s", v.Name, n, v.Instances, s.why(ctx, v)), false
			}
		}
		snapshot, err := api.Snapshot(ctx, firstExchange)
		if err != nil {
			return err.Error(), false
		}
		return "no overseer leads and hears itself", snapshot.Lease != nil && snapshot.Lease.Covering
	})
}

// why says what unitd thinks of a service.
func (s *Stack) why(ctx context.Context, v Service) string {
	states, err := s.states(ctx)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("unitd says %s is %q; its log is under %s", v.Unit(1), states[v.Unit(1)], s.path("unitd"))
}

// adopt records what runs as the proven release, which a failed upgrade returns to. Only a component without a
// recorded release of that phase gets one.
func (s *Stack) adopt(ctx context.Context, api *managerapi.Client, v Service) error {
	c, err := FindComponent(ctx, api, v.Type)
	if err != nil {
		return err
	}
	if c.SourceRepoGitRef != First || s.adopted(v) {
		return nil
	}
	r, err := s.render(ctx, v, First)
	if err != nil {
		return err
	}
	count := v.Instances
	_, err = api.Adopt(ctx, managerapi.Release{ComponentID: c.ID, Phase: v.Phase, Adopted: true,
		SourceRepo: s.SourceRepo(v), SourceRepoGitRef: First, SourceCommitHash: r.SourceCommit,
		DeploymentRepo: s.DeploymentRepo(v), DeploymentRepoGitRef: Deployed, DeploymentCommitHash: r.DeploymentCommit,
		EtcdToken: r.EtcdToken, Units: r.Units, Instances: &count})
	if err != nil {
		return fmt.Errorf("record the release of %s: %w", v.Name, err)
	}
	return os.WriteFile(s.adoptedFile(v), nil, 0o600)
}

func (s *Stack) adoptedFile(v Service) string { return s.path("state", "adopted-"+v.Name) }

func (s *Stack) adopted(v Service) bool {
	_, err := os.Stat(s.adoptedFile(v))
	return err == nil
}

// writeEnv writes what a shell needs: `. .run/env`.
func (s *Stack) writeEnv() error {
	admin, err := s.secret("admin_token")
	if err != nil {
		return err
	}
	unitd, err := s.secret("unitd_token")
	if err != nil {
		return err
	}
	text := ""
	for _, kv := range [][2]string{
		{"OPENAPERTURE_URL", s.URL()}, {"OPENAPERTURE_TOKEN", admin},
		{"OPENAPERTURE_EXCHANGE_ID", strconv.Itoa(firstExchange)},
		{"AMQP_URL", s.RabbitMQ.URL()}, {"DATABASE_URL", s.Postgres.URL(database)},
		{"UNITD_URL", s.UnitdURL()}, {"UNITD_TOKEN", unitd},
	} {
		text += fmt.Sprintf("%s='%s'\n", kv[0], kv[1])
	}
	if err := os.WriteFile(s.EnvFile(), []byte(text), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(s.EnvFile()), err)
	}
	return nil
}

// LaunchHello registers the service that is no part of OpenAperture and starts it in a release.
func (s *Stack) LaunchHello(ctx context.Context, api *managerapi.Client) error {
	if err := s.BuildHello(ctx, First); err != nil {
		return err
	}
	if err := s.registerComponent(ctx, api, Hello, First, First); err != nil {
		return err
	}
	if err := s.launch(ctx, Hello); err != nil {
		return err
	}
	err := s.until(ctx, 30*time.Second, "hello runs", func() (string, bool) {
		states, err := s.states(ctx)
		if err != nil {
			return err.Error(), false
		}
		for i := 1; i <= Hello.Instances; i++ {
			if states[Hello.Unit(i)] != "active" {
				return s.why(ctx, Hello), false
			}
		}
		return "", true
	})
	return errors.Join(err, s.adopt(ctx, api, Hello))
}

// Client calls manager-api as administrator.
func (s *Stack) Client() (*managerapi.Client, error) {
	token, err := s.secret("admin_token")
	if err != nil {
		return nil, err
	}
	return managerapi.New(s.URL(), token), nil
}

// ExchangeID is the stack's exchange.
func (s *Stack) ExchangeID() component.ExchangeID { return firstExchange }
