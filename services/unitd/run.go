package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/services/unitd/internal/direct"
	"github.com/openaperture/openaperture/services/unitd/internal/fleetapi"
	"github.com/openaperture/openaperture/services/unitd/internal/host"
	"github.com/openaperture/openaperture/services/unitd/internal/systemd"
)

// selfProgram is this very binary, also after it was replaced on disk: a shim
// is always of the version of the unitd that starts it.
const selfProgram = "/proc/self/exe"

func run(ctx context.Context, cfg Config, env *boot.Env) error {
	token, err := cfg.token()
	if err != nil {
		return err
	}
	h, backend, err := awaitHost(ctx, cfg, env, startPatience)
	if err != nil {
		return err
	}
	defer backend.close()
	defer func() { _ = h.Close() }()
	env.Metrics.MustRegister(unitsCollector{h})
	api := fleetapi.New(fleetapi.Config{
		Host: h, Token: token.Reveal(), Version: env.Version, Log: env.Log.Named("api"), Stopping: env.Stopping,
	})
	env.Handle(api)
	parts := append(backend.parts, loop.Part{Name: "units", Run: h.Run})
	if cfg.Socket != "" {
		listener, err := listenSocket(ctx, cfg.Socket)
		if err != nil {
			return err
		}
		parts = append(parts, loop.Part{Name: "socket", Run: socketServer{listener, api}.run})
	}
	return env.RunParts(ctx, parts...)
}

// openedBackend is a backend with what must run beside it.
type openedBackend struct {
	host.Backend
	parts []loop.Part
	close func()
}

func openBackend(ctx context.Context, cfg Config, env *boot.Env) (openedBackend, error) {
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return openedBackend{}, fmt.Errorf("state_dir cannot be used: %w", err)
	}
	if cfg.Backend == backendDirect {
		b, err := direct.New(cfg.StateDir, selfProgram, env.Log.Named("direct"))
		return openedBackend{Backend: b, close: func() {}}, err
	}
	b, err := systemd.Open(ctx, cfg.StateDir, cfg.SystemdUnitDir, env.Log.Named("systemd"))
	if err != nil {
		return openedBackend{}, err
	}
	return openedBackend{Backend: b, parts: []loop.Part{{Name: "systemd", Run: b.Run}}, close: b.Close}, nil
}

func openHost(ctx context.Context, cfg Config, env *boot.Env) (*host.Host, openedBackend, error) {
	name, err := os.Hostname()
	if err != nil {
		return nil, openedBackend{}, fmt.Errorf("find host name: %w", err)
	}
	backend, err := openBackend(ctx, cfg, env)
	if err != nil {
		return nil, openedBackend{}, err
	}
	metadata := maps.Clone(cfg.MachineMetadata)
	if metadata == nil {
		metadata = map[string]string{}
	}
	// Facts, whatever the configuration says: an executor tells from the host name under which name a unit will beat.
	metadata["hostname"], metadata["unitd_version"] = name, env.Version
	h, err := host.Open(host.Config{
		StateDir: cfg.StateDir, Backend: backend.Backend, Hostname: name, Metadata: metadata,
		Log: env.Log.Named("host"),
		Contain: func(part, item string, do func() error) error {
			return loop.Contain(env.WithPanics(context.WithoutCancel(ctx)), part, item, do)
		},
	})
	if err != nil {
		backend.close()
	}
	return h, backend, err
}

// For how long a start and stop-all wait for the state directory. A unitd that is just ending holds the directory. So
// does a shim that a killed unitd was about to start, until the shim runs.
const (
	startPatience   = 3 * time.Second
	stopAllPatience = 10 * time.Second
)

// awaitHost opens the host as soon as nobody else works on its state directory, within patience.
func awaitHost(
	ctx context.Context, cfg Config, env *boot.Env, patience time.Duration,
) (*host.Host, openedBackend, error) {
	h, backend, err := openHost(ctx, cfg, env)
	if errors.Is(err, host.ErrInUse) {
		env.Log.Info("waiting for the state directory", zap.Error(err))
	}
	for begun := time.Now(); errors.Is(err, host.ErrInUse) && time.Since(begun) < patience; {
		select {
		case <-ctx.Done():
			return h, backend, err
		case <-time.After(100 * time.Millisecond):
		}
		h, backend, err = openHost(ctx, cfg, env)
	}
	return h, backend, err
}

// stopAll is the subcommand. A unitd that runs would start the units again, so it must have ended.
func stopAll(ctx context.Context, cfg Config, env *boot.Env, args []string) error {
	forget := len(args) == 1 && args[0] == "forget"
	if len(args) > 0 && !forget {
		return errors.New("stop-all takes nothing or 'forget'")
	}
	h, backend, err := awaitHost(ctx, cfg, env, stopAllPatience)
	if err != nil {
		return err
	}
	defer backend.close()
	return errors.Join(h.StopAll(ctx, forget), h.Close())
}

// listenSocket opens the Unix socket for its owner alone. A stale file is
// replaced, one that somebody serves is not.
func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	if conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("listen on %s: another process serves this socket", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		_ = os.Remove(path) // if it cannot be removed, listening says why
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("listen on socket: %w", err)
	}
	return listener, nil
}

// socketServer serves the API on the Unix socket until ctx ends.
type socketServer struct {
	listener net.Listener
	handler  http.Handler
}

func (s socketServer) run(ctx context.Context) error {
	server := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 60 * time.Second, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(s.listener); close(ended) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve socket: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second) // detached: ctx has ended
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		_ = server.Close()
	}
	for range ended { // joins Serve, which returns ErrServerClosed
	}
	return ctx.Err()
}

// unitsCollector shows the number of units by active state.
type unitsCollector struct{ host *host.Host }

var unitsMetric = prometheus.NewDesc(
	"openaperture_unitd_units", "Units of this host by systemd active state.", []string{"state"}, nil)

// Describe implements prometheus.Collector.
func (c unitsCollector) Describe(to chan<- *prometheus.Desc) { to <- unitsMetric }

// Collect implements prometheus.Collector.
func (c unitsCollector) Collect(to chan<- prometheus.Metric) {
	for state, n := range c.host.Counts() {
		to <- prometheus.MustNewConstMetric(unitsMetric, prometheus.GaugeValue, float64(n), state)
	}
}
