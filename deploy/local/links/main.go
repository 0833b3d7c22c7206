// Command links holds the TCP links between the services of the local stack and the servers that they use, so that the
// soak can break one of them. It is a process of its own: the stack stays whole when the soak ends.
//
//	links <file>
//
// The file is JSON: {"control": "127.0.0.1:21000", "links": [{"name": …, "listen": …, "target": …}]}. On the
// control address PUT /<name>/cut refuses every connection of a link, PUT /<name>/stall makes the link silent, and
// PUT /<name>/heal ends both. GET / lists the links with their open connections.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/openaperture/openaperture/pkg/link"
)

type config struct {
	Control string `json:"control"`
	Links   []struct {
		Name   string `json:"name"`
		Listen string `json:"listen"`
		Target string `json:"target"`
	} `json:"links"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "links:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("want the file that lists the links")
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return fmt.Errorf("read the list of links: %w", err)
	}
	var c config
	if err := json.Unmarshal(text, &c); err != nil {
		return fmt.Errorf("read the list of links: %w", err)
	}
	links := map[string]*link.Link{}
	for _, l := range c.Links {
		if links[l.Name], err = link.Listen(ctx, l.Listen, l.Target); err != nil {
			return err
		}
	}
	server := &http.Server{Addr: c.Control, Handler: control(links), ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve the control address: %w", err)
	case <-ctx.Done():
		return server.Close()
	}
}

// control answers on the control address.
func control(links map[string]*link.Link) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		open := map[string]int{}
		for name, l := range links {
			open[name] = l.Connections()
		}
		_ = json.NewEncoder(w).Encode(open)
	})
	mux.HandleFunc("PUT /{name}/{what}", func(w http.ResponseWriter, r *http.Request) {
		l, found := links[r.PathValue("name")]
		what, known := map[string]func(*link.Link){
			"cut": (*link.Link).Cut, "stall": (*link.Link).Stall, "heal": (*link.Link).Heal,
		}[r.PathValue("what")]
		if !found || !known {
			http.NotFound(w, r)
			return
		}
		what(l)
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}
