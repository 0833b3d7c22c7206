package boot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/loop"
)

// serve listens, runs the service and stops it in order: readiness off, requests
// in flight finish, the parts stop, the process ends. Everything after the signal
// takes at most ShutdownTimeout.
func serve[C Config](s Service[C], cfg C, env *Env) error {
	ctx, cancel := context.WithCancel(env.WithPanics(context.Background()))
	defer cancel()
	listener, err := listen(ctx, cfg.BaseConfig().Listen)
	if err != nil {
		return err
	}
	env.Addr = listener.Addr().String()
	sig := catchSignals()
	defer sig.release()
	env.Stopping = sig.first
	server := newServer(ctx, env)
	p := process{env: env, server: server, cancel: cancel, ended: make(chan error, 2)}
	var workers sync.WaitGroup
	defer workers.Wait()
	defer cancel()
	workers.Go(func() { p.serveHTTP(listener) })
	workers.Go(func() {
		env.Health.watch(ctx, func() { p.notify(daemon.SdNotifyReady); env.Log.Info("service is ready") })
	})
	settled := time.AfterFunc(settle, giveBack)
	defer settled.Stop()
	env.Log.Info("service is starting", zap.String("version", s.Version), zap.String("listen", env.Addr),
		zap.String("boot_id", env.BootID))
	go func() { // joined by wait, unless it does not stop: then the process ends
		p.ended <- loop.Contain(ctx, "run", "", func() error { return s.Run(ctx, cfg, env) })
	}()
	return p.wait(sig.first)
}

// settle is when what starting took is given back to the system: migrations and first connections leave several times
// the memory that a service at rest needs.
const settle = 15 * time.Second

func giveBack() {
	runtime.GC() // what lies in pools survives one collection
	debug.FreeOSMemory()
}

type process struct {
	env    *Env
	server *http.Server
	cancel context.CancelFunc
	ended  chan error
}

func (p process) serveHTTP(l net.Listener) {
	if err := p.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		p.ended <- fmt.Errorf("serve HTTP: %w", err)
	}
}

func (p process) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		p.env.Log.Warn("tell the service manager", zap.String("state", state), zap.Error(err))
	}
}

// wait returns what Run returned. A Run that ends by itself ends the process.
func (p process) wait(stop <-chan struct{}) error {
	select {
	case err := <-p.ended:
		p.beginStop()
		p.drain(time.Second)
		return err
	case <-stop:
	}
	deadline := time.NewTimer(p.env.shutdown)
	defer deadline.Stop()
	p.env.Log.Info("service is stopping")
	p.beginStop()
	p.drain(min(5*time.Second, p.env.shutdown/5))
	p.cancel()
	select {
	case err := <-p.ended:
		if errors.Is(err, context.Canceled) {
			err = nil
		}
		p.env.Log.Info("service has stopped", zap.Error(err))
		return err
	case <-deadline.C:
		return fmt.Errorf("stop: not finished within shutdown_timeout %s", p.env.shutdown)
	}
}

func (p process) beginStop() {
	p.notify(daemon.SdNotifyStopping)
	p.env.Health.stop()
}

// drain lets requests finish within limit and then cuts them off.
func (p process) drain(limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit) // detached: the process's own context is about to end
	defer cancel()
	if err := p.server.Shutdown(ctx); err != nil {
		_ = p.server.Close()
	}
}

// signals turns the first SIGTERM or SIGINT into a closed channel and the second
// one into the end of the process.
type signals struct {
	first   chan struct{}
	release func()
}

func catchSignals() signals {
	s := signals{first: make(chan struct{})}
	caught, done := make(chan os.Signal, 2), make(chan struct{})
	signal.Notify(caught, syscall.SIGTERM, syscall.SIGINT)
	joined := make(chan struct{})
	go func() {
		defer close(joined)
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case <-caught:
			}
			if n > 0 {
				os.Exit(exitInterrupted) // whoever asks twice does not want to wait
			}
			close(s.first)
		}
	}()
	s.release = func() { signal.Stop(caught); close(done); <-joined }
	return s
}
