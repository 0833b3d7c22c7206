package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"syscall"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/deploy/fleet"
	"github.com/openaperture/openaperture/pkg/deploy/render"
	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/member"
	"github.com/openaperture/openaperture/pkg/rabbit"
	"github.com/openaperture/openaperture/pkg/times"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// ServiceConfig is the configuration of an executor.
type ServiceConfig struct {
	boot.Base     `mapstructure:",squash"`
	member.Config `mapstructure:",squash"`
	// ParallelOrders is how many orders are worked on side by side. Orders of one component, and orders that share the
	// name of a unit, are worked on one after the other.
	ParallelOrders int `mapstructure:"parallel_orders"`
	// AllowLocalRepos permits absolute local paths as repositories.
	AllowLocalRepos bool `mapstructure:"allow_local_repos"`
	// GitHosts, if not empty, are the only git hosts that are contacted; without it, any with public addresses are.
	GitHosts []string `mapstructure:"git_hosts"`
	// GitSSHKeyFile and GitKnownHostsFile are used for repositories over ssh.
	GitSSHKeyFile     string `mapstructure:"git_ssh_key_file"`
	GitKnownHostsFile string `mapstructure:"git_known_hosts_file"`
	// Runtimes configures the access to clusters.
	Runtimes Runtimes `mapstructure:"runtimes"`
}

// Runtimes configures the access to clusters, by runtime.
type Runtimes struct {
	Fleet struct {
		// TokenFile holds the bearer token that unitd asks for; "" where it asks for none.
		TokenFile string `mapstructure:"token_file"`
	} `mapstructure:"fleet"`
}

// Validate implements boot.Config.
func (c ServiceConfig) Validate() error {
	if !filepath.IsAbs(c.StateDir) {
		return fmt.Errorf("state_dir %q: want an absolute path", c.StateDir)
	}
	if c.ParallelOrders < 1 || c.ParallelOrders > maxParallel {
		return fmt.Errorf("parallel_orders %d: want 1 to %d", c.ParallelOrders, maxParallel)
	}
	return c.Config.Validate()
}

// maxParallel bounds parallel_orders: every order in hand may hold a rendered release and a connection to its cluster.
const maxParallel = 64

// Executor says which of the two executors a binary is.
type Executor struct {
	Name      string // deployer or deployer-oa
	About     string
	Version   string
	Listen    string // default address
	Queue     messages.Queue
	Milestone messages.Milestone // that it performs
	Sample    []byte
}

// Main is the whole main function of an executor. It does not return.
func Main(x Executor) {
	boot.Main(boot.Service[ServiceConfig]{Name: x.Name, Version: x.Version, About: x.About, Sample: x.Sample,
		Default: x.DefaultConfig, Run: x.Run})
}

// DefaultConfig is an executor's configuration before the file and the environment.
func (x Executor) DefaultConfig() ServiceConfig {
	return ServiceConfig{Base: boot.DefaultBase(x.Listen), ParallelOrders: DefaultParallel,
		Config: member.Config{Profile: times.Default, StateDir: "/var/lib/openaperture/" + x.Name}}
}

// Run assembles the executor and works until ctx ends.
func (x Executor) Run(ctx context.Context, cfg ServiceConfig, env *boot.Env) error {
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("make state_dir: %w", err)
	}
	held, err := lock(cfg.StateDir)
	if err != nil {
		return err
	}
	defer func() { _ = held.Close() }()
	git, err := render.NewGit(render.GitConfig{CacheDir: filepath.Join(cfg.StateDir, "git"),
		AllowLocal: cfg.AllowLocalRepos, Hosts: cfg.GitHosts, SSHKeyFile: cfg.GitSSHKeyFile,
		KnownHostsFile: cfg.GitKnownHostsFile})
	if err != nil {
		return err
	}
	self, err := join(ctx, cfg, env)
	if err != nil {
		return err
	}
	clusters := &clusters{tokenFile: cfg.Runtimes.Fleet.TokenFile, open: map[string]*fleet.Cluster{}}
	defer clusters.close()
	queue := self.Exchange.Address().QueueName(x.Queue)
	engine, err := New(Config{Service: x.Name, Milestone: x.Milestone, Queue: queue, Address: self.Exchange.Address(),
		Hostname: env.Hostname, BootID: env.BootID, StateDir: cfg.StateDir, ClaimTTL: self.Times.Claim,
		Parallel: cfg.ParallelOrders, Manager: self.API, Broker: self.Broker,
		Renderer: git, Open: clusters.runtime, Log: env.Log, Metrics: env.Metrics, StopLimit: cfg.ShutdownTimeout * 6 / 10})
	if err != nil {
		return err
	}
	env.Health.Add("queue", func(context.Context) error {
		if !self.Broker.Subscribed(queue) {
			return fmt.Errorf("queue %s is not consumed", queue)
		}
		return nil
	})
	env.Health.Add("state_dir", func(context.Context) error { return syscall.Access(cfg.StateDir, 2 /* W_OK */) })
	work := loop.Part{Name: "engine", Run: func(ctx context.Context) error {
		// Detached: at a stop the engine first finishes the instance in hand, within its StopLimit.
		return engine.Run(context.WithoutCancel(ctx), ctx.Done())
	}}
	watch := loop.Part{Name: "readiness", Run: func(ctx context.Context) error {
		watchBroker(ctx, self.Broker, env.Health)
		return nil
	}}
	return env.RunParts(ctx, self.Parts(work, watch)...)
}

// watchBroker has readiness judged at every change of the broker session: who replaces an instance waits for it.
func watchBroker(ctx context.Context, b *rabbit.Pair, h *boot.Health) {
	for {
		changed := b.Watch()
		h.Poke()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// clusters keeps one connection pool per cluster.
type clusters struct {
	tokenFile string
	mu        sync.Mutex
	open      map[string]*fleet.Cluster
}

// runtime opens the cluster of an order.
func (c *clusters) runtime(cluster messages.Cluster) (runtime.Runtime, error) {
	if cluster.Runtime != "fleet" {
		return nil, fmt.Errorf("%w: runtime %q is not known here", runtime.ErrRefused, cluster.Runtime)
	}
	bearer, err := boot.SecretFrom("", c.tokenFile)
	if err != nil {
		return nil, fmt.Errorf("runtimes.fleet.token_file: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := cluster.Endpoint + "\x00" + bearer.Reveal()
	if known, ok := c.open[key]; ok {
		return known, nil
	}
	opened, err := fleet.New(cluster.Endpoint, bearer.Reveal())
	if err != nil {
		return nil, err
	}
	c.open[key] = opened
	return opened, nil
}

func (c *clusters) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cluster := range c.open {
		cluster.Close()
	}
}

// join joins the exchange, by what an earlier start has read of it if manager-api is away. What is news is saved; only
// a start that has nothing saved yet fails if that can't be done.
func join(ctx context.Context, cfg ServiceConfig, env *boot.Env) (m *member.Member, err error) {
	file := filepath.Join(cfg.StateDir, "exchange.json")
	known, saved := savedExchange(file)
	saved = saved && known.ID == cfg.Exchange()
	if saved {
		m, err = member.Rejoin(ctx, cfg.Config, env, component.Deployer, known)
	} else {
		m, err = member.Join(ctx, cfg.Config, env, component.Deployer)
	}
	if err != nil || saved && reflect.DeepEqual(m.Exchange, known) {
		return m, err
	}
	err = saveExchange(file, m.Exchange)
	if err != nil && saved {
		env.Log.Warn("exchange not saved, a start without manager-api would take it as it was", zap.Error(err))
		return m, nil
	}
	return m, err
}

// savedExchange reads what saveExchange wrote; a file that cannot be read is none.
func savedExchange(file string) (ex managerapi.Exchange, ok bool) {
	text, err := os.ReadFile(file)
	ok = err == nil && json.Unmarshal(text, &ex) == nil && ex.Name != ""
	return ex, ok
}

func saveExchange(file string, ex managerapi.Exchange) error {
	text, err := json.Marshal(ex)
	if err == nil {
		err = realDisk.writeFile(file, text)
	}
	if err != nil {
		return fmt.Errorf("save exchange: %w", err)
	}
	return nil
}
