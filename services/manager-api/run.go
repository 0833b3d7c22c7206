package main

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/member"
	"github.com/openaperture/openaperture/pkg/postgres"
	"github.com/openaperture/openaperture/pkg/times"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/api"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/dispatch"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
	"github.com/openaperture/openaperture/services/manager-api/internal/presence"
	"github.com/openaperture/openaperture/services/manager-api/internal/registry"
	"github.com/openaperture/openaperture/services/manager-api/internal/seal"
)

// run is the parts list. Without Postgres or RabbitMQ the process stays up, and /readyz says what it waits for.
func run(ctx context.Context, cfg config, env *boot.Env) error {
	s, err := newService(cfg, env)
	if err != nil {
		return err
	}
	defer s.close()
	env.Health.Add("database", s.db.Ping)
	env.Health.Add("schema", s.db.Usable)
	env.Health.Add("broker", s.brokers.Ready)
	env.Health.AddInfo("home exchange", func(ctx context.Context) error { _, err := s.brokers.Home(ctx); return err })
	env.Health.AddInfo("other brokers", s.brokers.Others)
	env.Handle(s.gate(s.api))
	return env.RunParts(ctx,
		loop.Part{Name: "schema", Run: s.migrate},
		loop.Part{Name: "brokers", Run: func(ctx context.Context) error { return s.brokers.Run(ctx, s.usable, s.beat) }},
		loop.Part{Name: "sweeper", Run: func(ctx context.Context) error {
			return s.brokers.Sweeper(s.times).Run(ctx,
				s.usable)
		}},
	)
}

// service is what the parts share.
type service struct {
	cfg      config
	env      *boot.Env
	keys     *seal.Ring // nil without a key file
	times    times.Times
	pools    []*postgres.DB
	db       *db.DB
	engine   *engine.Engine
	presence *presence.Presence
	registry *registry.Registry
	api      *api.Server
	brokers  *dispatch.Brokers
	usable   chan struct{} // closed once the schema is
	sealed   chan struct{} // closed once passwords were sealed anew, or could not be
}

func newService(cfg config, env *boot.Env) (*service, error) {
	s := &service{cfg: cfg, env: env, usable: make(chan struct{}), sealed: make(chan struct{})}
	var err error
	if s.times, err = cfg.durations(); err != nil {
		return nil, err
	}
	if s.keys, err = cfg.keys(); err != nil {
		return nil, err
	}
	amqpURLs, err := cfg.amqpURLs()
	if err != nil {
		return nil, err
	}
	requests, err := postgres.Open(cfg.postgres())
	if err != nil {
		return nil, err
	}
	leases, err := postgres.OpenForLeases(cfg.postgres())
	if err != nil {
		return nil, err
	}
	loops, err := postgres.OpenForLoops(cfg.postgres())
	if err != nil {
		return nil, err
	}
	s.pools = []*postgres.DB{requests, leases, loops}
	bell := &dispatch.Bell{}
	s.db = db.New(db.Config{Pool: requests, Leases: leases, Times: s.times, Ring: bell.Ring})
	engineOver := func(d *db.DB) *engine.Engine {
		return engine.New(engine.Config{DB: d, Times: s.times, Home: cfg.HomeExchange, Version: env.Version})
	}
	s.engine = engineOver(s.db)
	s.presence = presence.New(s.db, s.times)
	s.registry = registry.New(s.db, s.engine, cfg.HomeExchange)
	// manager-api's own loops have a pool of their own: no number of requests keeps them from their turn.
	own := s.db.Over(loops)
	ownEngine := engineOver(own)
	s.brokers, err = dispatch.New(dispatch.Config{DB: own, Engine: ownEngine, Presence: presence.New(own, s.times),
		Registry: registry.New(own, ownEngine, cfg.HomeExchange), Bell: bell, OwnURLs: amqpURLs,
		Keys: s.keys, Settle: s.times.Settle,
		FailoverAfter: s.times.FailoverAfter, FailbackAfter: s.times.FailbackAfter,
		Name: env.Service + "/" + env.Hostname, Log: env.Log, Metrics: env.Metrics})
	if err != nil {
		return nil, err
	}
	s.api, err = api.New(api.Config{DB: s.db, Engine: s.engine, Presence: s.presence, Registry: s.registry,
		Tokens: cfg.Tokens, Keys: s.keys, Times: s.times, Log: env.Log.Named("api"), Metrics: env.Metrics,
		Version: env.Version})
	return s, err
}

func (s *service) close() {
	for _, db := range s.pools {
		_ = db.Close()
	}
}

// migrate brings the schema up to date, again and again until it is usable, then lets the others begin.
func (s *service) migrate(ctx context.Context) error {
	ctxOfLoop, done := context.WithCancel(ctx)
	defer done()
	err := loop.Loop{Interval: time.Second,
		Do: func(ctx context.Context) error {
			if err := s.migrateOnce(ctx); err != nil {
				return err
			}
			close(s.usable)
			s.env.Health.Poke()
			s.reseal(ctx) // passwords open with either key meanwhile
			close(s.sealed)
			done()
			return nil
		},
		OnError: func(err error) { s.env.Log.Warn("schema not usable yet", zap.Error(err)) }}.Run(ctxOfLoop)
	<-ctx.Done() // a part that ends would end the process
	return err
}

func (s *service) migrateOnce(ctx context.Context) error {
	if err := db.Migrate(ctx, s.cfg.postgres()); err != nil {
		return err
	}
	return s.db.Usable(ctx)
}

// reseal brings broker passwords under the first key of the key file, so that an old key can leave it. A password that
// does not open keeps nobody from starting: only its own broker can't be used.
func (s *service) reseal(ctx context.Context) {
	n, err := s.registry.Reseal(ctx, s.keys)
	if err != nil {
		s.env.Log.Warn("broker passwords are not all sealed with the first key: keep the old keys in sealing_key_file, "+
			"or give the connection its password again", zap.Error(err))
	}
	if n > 0 {
		s.env.Log.Info("broker passwords sealed anew", zap.Int("passwords", n), zap.String("key", s.keys.Active()))
	}
}

// gate answers 503 while the schema is not usable, but for /status, which asks nothing of the database.
func (s *service) gate(next http.Handler) http.Handler {
	var open atomic.Bool
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !open.Load() {
			select {
			case <-s.usable:
				open.Store(true)
			default:
				if r.URL.Path != "/status" {
					w.Header().Set("Retry-After", "1")
					w.Header().Set("Content-Type", "application/json; charset=utf-8")
					w.WriteHeader(http.StatusServiceUnavailable)
					// a client that hung up is no news
					_, _ = w.Write([]byte(`{"errors":[{"message":"the database is not ready yet"}]}`))
					return
				}
			}
		}
		next.ServeHTTP(w, r)
	})
}

// beat sends manager-api's own heartbeats into its home exchange, wherever that is at the time.
func (s *service) beat(ctx context.Context) error {
	started := s.env.StartedAt.UTC()
	beater := &member.Beater{Publisher: s.brokers.Own(), Ready: s.env.Health, Address: s.brokers.Home,
		Every: s.times.Heartbeat, Log: s.env.Log.Named("beater"),
		Status: messages.ModuleStatus{Type: string(component.Manager), Service: s.env.Service, Hostname: s.env.Hostname,
			BootID:     s.env.BootID,
			SourceRepo: s.cfg.SourceRepo, SourceRepoGitRef: s.env.Version, DeploymentRepo: s.cfg.DeploymentRepo,
			DeploymentRepoGitRef: s.cfg.DeploymentRepoGitRef, StartedAt: &started}}
	return beater.Run(ctx)
}
