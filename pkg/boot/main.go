package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"
)

// Exit codes of every binary.
const (
	exitOK          = 0
	exitFailed      = 1   // Run or a command failed
	exitUsage       = 2   // wrong command line or configuration
	exitInterrupted = 130 // a second signal
)

// Service describes one binary.
type Service[C Config] struct {
	Name    string
	Version string
	About   string   // one paragraph for --help
	Sample  []byte   // the commented sample configuration, embedded
	Default func() C // a fresh configuration with every default
	Run     func(ctx context.Context, cfg C, env *Env) error
	// Commands are subcommands besides the built-in healthcheck.
	Commands []Command[C]
}

// Command is one subcommand, such as stop-all. It has the configuration and the
// log, but no listener.
type Command[C Config] struct {
	Name  string
	About string
	Run   func(ctx context.Context, cfg C, env *Env, args []string) error
}

// Main is the whole of a binary's main function. It does not return.
func Main[C Config](s Service[C]) { os.Exit(Execute(s, os.Args[1:], os.Stdout, os.Stderr)) }

type options struct {
	config                            string
	version, help, check, printSample bool
	args                              []string
}

// Execute is Main without the exit: it returns the exit code. The log and every
// complaint go to stderr.
func Execute[C Config](s Service[C], args []string, stdout, stderr io.Writer) int {
	o, flags, err := parse(s.Name, args)
	if err != nil {
		return complain(stderr, s.Name, fmt.Errorf("%w (see %s --help)", err, s.Name), exitUsage)
	}
	switch {
	case o.help:
		help(s, flags, stdout)
		return exitOK
	case o.version:
		_, _ = fmt.Fprintln(stdout, s.Name, s.Version)
		return exitOK
	case o.printSample:
		_, _ = stdout.Write(s.Sample)
		return exitOK
	}
	run, err := s.choose(o.args)
	if err != nil {
		return complain(stderr, s.Name, fmt.Errorf("%w (see %s --help)", err, s.Name), exitUsage)
	}
	cfg, err := Load(s.Default(), o.config)
	if err != nil {
		return complain(stderr, s.Name, err, exitUsage)
	}
	if o.check || len(o.args) == 0 {
		if err := cfg.CheckSecrets(); err != nil {
			return complain(stderr, s.Name, fmt.Errorf("configuration %s: %w", o.config, err), exitUsage)
		}
	}
	env, err := NewEnv(s.Name, s.Version, cfg.BaseConfig(), newLogger(cfg.BaseConfig(), zapcore.AddSync(stderr)))
	if err != nil {
		return complain(stderr, s.Name, err, exitUsage)
	}
	if o.check {
		_, _ = fmt.Fprintln(stdout, "configuration is valid")
		return exitOK
	}
	setupTracing()
	if err := run(cfg, env); err != nil {
		return complain(stderr, s.Name, err, exitFailed)
	}
	return exitOK
}

func complain(stderr io.Writer, name string, err error, code int) int {
	_, _ = fmt.Fprintf(stderr, "%s: %s\n", name, oneLine(err))
	return code
}

func parse(name string, args []string) (options, *pflag.FlagSet, error) {
	var o options
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.SortFlags = false
	flags.StringVar(&o.config, "config", os.Getenv(EnvName("config")), "read the configuration from this YAML `file`")
	flags.BoolVar(&o.check, "check-config", false, "check the configuration and exit")
	flags.BoolVar(&o.printSample, "print-sample", false, "print the commented sample configuration and exit")
	flags.BoolVar(&o.version, "version", false, "print name and version and exit")
	flags.BoolVarP(&o.help, "help", "h", false, "print this help and exit")
	err := flags.Parse(args)
	o.args = flags.Args()
	return o, flags, err
}

func help[C Config](s Service[C], flags *pflag.FlagSet, w io.Writer) {
	_, _ = fmt.Fprintf(w, "%s\n\nUsage: %s [flags] [command]\n\nFlags:\n%s\nCommands (the default is to serve):\n",
		s.About, s.Name, flags.FlagUsages())
	_, _ = fmt.Fprintf(w, "  %-16s %s\n", "healthcheck",
		"ask the running service whether it is alive, or ready with 'healthcheck ready'; exit 0 or 1")
	for _, c := range s.Commands {
		_, _ = fmt.Fprintf(w, "  %-16s %s\n", c.Name, c.About)
	}
	_, _ = fmt.Fprintf(w, `
Every key of the configuration can be set by an environment variable, which wins
over the file: %s and the key in upper case, '.' as '_'; for example
%s. Lists are separated by commas. '%s --print-sample'
prints a sample with every key. %s names the configuration file.
`, envPrefix, EnvName("log_level")+"=debug", s.Name, EnvName("config"))
}

// choose finds what the positional arguments ask for.
func (s Service[C]) choose(args []string) (func(C, *Env) error, error) {
	if len(args) == 0 {
		return func(cfg C, env *Env) error { return serve(s, cfg, env) }, nil
	}
	if args[0] == "healthcheck" {
		path, err := healthPath(args[1:])
		return func(cfg C, _ *Env) error { return healthcheck(cfg.BaseConfig().localURL(path)) }, err
	}
	for _, c := range s.Commands {
		if c.Name == args[0] {
			return func(cfg C, env *Env) error { return command(c, cfg, env, args[1:]) }, nil
		}
	}
	return nil, fmt.Errorf("unknown command %q", args[0])
}

func command[C Config](c Command[C], cfg C, env *Env, args []string) error {
	sig := catchSignals()
	defer sig.release()
	env.Stopping = sig.first
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-sig.first:
			cancel()
		case <-ctx.Done():
		}
	}()
	return c.Run(ctx, cfg, env, args)
}

func healthPath(args []string) (string, error) {
	switch {
	case len(args) == 0:
		return "/healthz", nil
	case len(args) == 1 && args[0] == "ready":
		return "/readyz", nil
	}
	return "", errors.New("healthcheck takes nothing or 'ready'")
}

func healthcheck(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("health check: %w", err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("health check: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("health check: %s answers %d", url, res.StatusCode)
	}
	return nil
}
