package boot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
)

const maxConnections = 1024

// listen takes the service's port, or says in one line what to do about it.
func listen(ctx context.Context, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen on %s: address already in use: stop the other process or set listen / %s", address,
			EnvName("listen"))
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w: set listen / %s", address, err, EnvName("listen"))
	}
	return limited{Listener: l, free: make(chan struct{}, maxConnections)}, nil
}

// newServer has the limits of every HTTP server of ours. A handler that streams or
// waits longer moves its own write deadline with http.ResponseController.
func newServer(ctx context.Context, env *Env) *http.Server {
	return &http.Server{
		Handler:           env.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          zap.NewStdLog(env.Log.Named("http")),
	}
}

// Handler serves /healthz, /readyz and /metrics, and everything else by the routes
// of Handle, with the path as it came.
func (e *Env) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "alive", "service": e.Service,
			"version": e.Version, "boot_id": e.BootID})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		report, status := e.Health.Report(r.Context()), http.StatusOK
		if !report.Ready {
			status = http.StatusServiceUnavailable
		}
		writeJSON(w, status, report)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(e.Metrics, promhttp.HandlerOpts{}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz", "/readyz", "/metrics":
			mux.ServeHTTP(w, r)
		default:
			e.serveRoutes(w, r) // not through the mux: it would redirect paths such as //x
		}
	})
}

func (e *Env) serveRoutes(w http.ResponseWriter, r *http.Request) {
	if routes := e.routes.Load(); routes != nil {
		(*routes).ServeHTTP(w, r)
		return
	}
	if !e.Health.Ready() { // a 404 would say that the resource does not exist
		w.Header().Set("Retry-After", "1")
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"error": "the service is starting"})
		return
	}
	writeJSON(w, http.StatusNotFound, map[string]string{"error": "not found"})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that hung up is no news
}

// limited caps the open connections; more of them wait in the kernel's queue.
type limited struct {
	net.Listener
	free chan struct{}
}

func (l limited) Accept() (net.Conn, error) {
	l.free <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &limitedConn{Conn: c, release: sync.OnceFunc(func() { <-l.free })}, nil
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
