package boot_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/loop"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func TestBoot(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "boot")
}

// childEnv turns the test binary into the service that the process specs start.
const childEnv = "BOOT_SPEC_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		boot.Main(sampleService())
	}
	os.Exit(m.Run())
}

type broker struct {
	URL      boot.Secret `mapstructure:"url"`
	Attempts int         `mapstructure:"attempts"`
}

type config struct {
	boot.Base `mapstructure:",squash"`
	Period    time.Duration     `mapstructure:"period"`
	Timeout   time.Duration     `mapstructure:"timeout"`
	Hosts     []string          `mapstructure:"hosts"`
	Labels    map[string]string `mapstructure:"labels"`
	Broker    broker            `mapstructure:"broker"`
	Behaviour string            `mapstructure:"behaviour"`
	TokenFile string            `mapstructure:"token_file"`
}

func (c config) Validate() error {
	if c.Timeout >= c.Period {
		return fmt.Errorf("timeout %s: want less than period %s", c.Timeout, c.Period)
	}
	return nil
}

func (c config) CheckSecrets() error {
	_, err := boot.SecretFrom("", c.TokenFile)
	return err
}

func defaults() config {
	return config{Base: boot.DefaultBase("127.0.0.1:0"), Period: time.Minute, Timeout: time.Second,
		Hosts: []string{"a"}, Broker: broker{Attempts: 3}}
}

var sample = []byte("# how often to look\nperiod: 30s\n")

func sampleService() boot.Service[config] {
	return boot.Service[config]{Name: "sample", Version: "1.2.3", About: "A service of the specs.", Sample: sample,
		Default: defaults, Run: runSample,
		Commands: []boot.Command[config]{{Name: "stop-all", About: "stop everything", Run: stopAll}}}
}

func stopAll(_ context.Context, cfg config, _ *boot.Env, args []string) error {
	return fmt.Errorf("stopped %v of %s", args, cfg.Hosts)
}

// runSample behaves as the configuration of a spec wants.
func runSample(ctx context.Context, cfg config, env *boot.Env) error {
	wait := loop.Part{Name: "wait", Run: func(ctx context.Context) error { <-ctx.Done(); return nil }}
	switch cfg.Behaviour {
	case "fail":
		return errors.New("migrate: no\nluck")
	case "ignore-stop":
		wait.Run = func(context.Context) error { select {} }
	case "starting":
		<-ctx.Done()
		return ctx.Err()
	case "panics":
		env.Health.Add("check", func(context.Context) error { panic("check boom") })
		pass := loop.Loop{Interval: time.Hour, Do: func(context.Context) error {
			for _, item := range []string{"1", "2"} {
				_ = loop.Contain(ctx, "judge", "upgrade "+item, func() error { panic("item boom") })
			}
			panic("pass boom")
		}, OnError: func(error) {}}
		return env.RunParts(ctx, wait, loop.Part{Name: "pass", Run: pass.Run})
	case "panicking-part":
		wait.Run = func(context.Context) error { panic("part boom") }
	case "panicking-run":
		panic("run boom")
	case "routes":
		env.Handle(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/wait" {
				env.Log.Info("somebody waits")
				<-env.Stopping
			}
			fmt.Fprint(w, "route ", r.URL.Path)
		}))
	}
	return env.RunParts(ctx, wait)
}
