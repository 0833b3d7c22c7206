package member

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/rabbit"
	"github.com/openaperture/openaperture/pkg/times"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// Member is a service that has joined its exchange.
type Member struct {
	Exchange managerapi.Exchange
	API      *managerapi.Client
	Broker   *rabbit.Pair // the exchange's own broker, with its failover as soon as manager-api has said which that is
	Beater   *Beater
	Times    times.Times

	failover *failover
}

// Join makes the service a member of the configured exchange: it reads the exchange from manager-api, again and again
// until that succeeds or ctx ends, and builds the broker with the exchange's topology. Until then, and while the broker
// is not usable, the readiness checks say so; once joined, an absent manager-api does not make the service unready. t
// is the component type that the service heartbeats. It returns an error only for a configuration that cannot be used,
// or when ctx ends.
func Join(ctx context.Context, cfg Config, env *boot.Env, t component.Type) (*Member, error) {
	return join(ctx, cfg, env, t, readExchange)
}

// Rejoin is Join for a restart that may not depend on manager-api, because manager-api may be what the service is about
// to repair: while that does not answer, the exchange is taken as an earlier start has read it.
func Rejoin(ctx context.Context, cfg Config, env *boot.Env, t component.Type,
	known managerapi.Exchange) (*Member, error) {
	read := func(ctx context.Context, api *managerapi.Client, id component.ExchangeID, env *boot.Env,
	) (managerapi.Exchange, error) {
		asking, cancel := context.WithTimeout(ctx, rejoinLimit)
		defer cancel()
		now, err := api.Exchange(asking, id)
		if err == nil && now.Name != "" {
			return now, nil
		}
		if fault.Is(err, fault.Unavailable) && ctx.Err() == nil {
			env.Log.Warn("manager-api does not answer, exchange is taken as it was at an earlier start",
				zap.String("exchange", known.Name), zap.Error(err))
			return known, nil
		}
		return readExchange(ctx, api, id, env)
	}
	return join(ctx, cfg, env, t, read)
}

// rejoinLimit is how long Rejoin waits for manager-api.
const rejoinLimit = 2 * time.Second

// join is Join with a way to learn of the exchange.
func join(ctx context.Context, cfg Config, env *boot.Env, t component.Type,
	read func(context.Context, *managerapi.Client, component.ExchangeID, *boot.Env) (managerapi.Exchange, error),
) (*Member, error) {
	durations, err := cfg.Durations()
	if err != nil {
		return nil, err
	}
	token, amqpURLs, err := cfg.secrets()
	if err != nil {
		return nil, err
	}
	api := managerapi.New(cfg.ManagerURL, token)
	exchange, err := read(ctx, api, cfg.Exchange(), env)
	if err != nil {
		return nil, err
	}
	broker, err := rabbit.NewPair(rabbit.Config{Name: env.Service + "@" + exchange.Name, URLs: amqpURLs,
		Topology: Topology(exchange), Log: env.Log, Metrics: env.Metrics}, durations.FailoverAfter, durations.FailbackAfter)
	if err != nil {
		return nil, fmt.Errorf("amqp_url: %w", err)
	}
	env.Health.Add("broker", func(context.Context) error { return broker.Ready() })
	env.Health.AddInfo("failover broker", func(context.Context) error { return broker.Failover() })
	m := &Member{Exchange: exchange, API: api, Broker: broker, Times: durations}
	m.failover = &failover{api: api, exchange: exchange.ID, broker: broker, now: time.Now, log: env.Log.Named("failover")}
	address := func(context.Context) (messages.Address, error) { return exchange.Address(), nil }
	m.Beater = &Beater{Publisher: broker, Ready: env.Health, Address: address, Every: durations.Heartbeat,
		Log: env.Log.Named("beater"), Status: status(cfg, env, t)}
	return m, nil
}

// status is what the heartbeats of this process carry.
func status(cfg Config, env *boot.Env, t component.Type) messages.ModuleStatus {
	started := env.StartedAt.UTC()
	return messages.ModuleStatus{Type: string(t), Service: env.Service, Hostname: env.Hostname, BootID: env.BootID,
		SourceRepo: cfg.SourceRepo, SourceRepoGitRef: env.Version, DeploymentRepo: cfg.DeploymentRepo,
		DeploymentRepoGitRef: cfg.DeploymentRepoGitRef, StartedAt: &started}
}

// readExchange asks until manager-api answers with the exchange. Every refusal is tried again: the exchange may be
// created, or the token be granted, while we wait, and /readyz says why we do.
func readExchange(ctx context.Context, api *managerapi.Client, id component.ExchangeID,
	env *boot.Env) (managerapi.Exchange, error) {
	var reason atomic.Pointer[error]
	waiting := fmt.Errorf("exchange %d is not known yet", id)
	reason.Store(&waiting)
	env.Health.Add("exchange", func(context.Context) error { return *reason.Load() })
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 100*time.Millisecond, 5*time.Second
	logged := ""
	ex, err := backoff.Retry(ctx, func() (managerapi.Exchange, error) {
		ex, err := api.Exchange(ctx, id)
		if err == nil && ex.Name == "" {
			err = errors.New("manager-api answered without a name")
		}
		if err == nil {
			return ex, nil
		}
		err = fmt.Errorf("read exchange %d: %w", id, err)
		reason.Store(&err)
		if text := err.Error(); text != logged && ctx.Err() == nil {
			logged = text
			env.Log.Warn("not joined yet", zap.Error(err))
		}
		return ex, err
	}, backoff.WithBackOff(b), backoff.WithMaxElapsedTime(0))
	if err != nil {
		return ex, fmt.Errorf("join exchange %d: %w", id, err)
	}
	var none error
	reason.Store(&none)
	env.Health.Poke()
	return ex, nil
}

// Parts returns the member's own parts together with those that use it, ready for Env.RunParts: broker first,
// heartbeats last, and between them what learns of the failover broker. On a stop the users end first, then the
// heartbeats with their last word, then the broker's connections: what is in hand can still be settled, and nobody
// hears inactive of a service that still acts.
func (m *Member) Parts(users ...loop.Part) []loop.Part {
	var working, beating sync.WaitGroup
	working.Add(len(users))
	beating.Add(1)
	parts := []loop.Part{{Name: "broker", Run: outliving(m.Broker.Run, &beating)}}
	for _, p := range users {
		parts = append(parts, loop.Part{Name: p.Name, Run: func(ctx context.Context) error {
			defer working.Done()
			return p.Run(ctx)
		}})
	}
	beat := outliving(m.Beater.Run, &working)
	parts = append(parts, loop.Part{Name: "failover", Run: m.failover.Run})
	return append(parts, loop.Part{Name: "heartbeat", Run: func(ctx context.Context) error {
		defer beating.Done()
		return beat(ctx)
	}})
}

// outliving runs a part until ctx has ended and everyone who needs it is done.
func outliving(run func(context.Context) error, needed *sync.WaitGroup) func(context.Context) error {
	return func(ctx context.Context) error {
		inner, stop := context.WithCancel(context.WithoutCancel(ctx)) // ends after ctx, see below
		defer stop()
		ended := make(chan error, 1)
		go func() { ended <- loop.Contain(ctx, "member", "", func() error { return run(inner) }) }()
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
		}
		needed.Wait()
		stop()
		return <-ended
	}
}
