package servers

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Cluster is several nodes of RabbitMQ that form one broker. Each has a management API. Nodes that lose the majority
// pause until they have it again (pause_minority), so that no two halves go on by themselves.
type Cluster struct {
	Nodes []RabbitMQ `json:"nodes"`
}

// NewCluster describes a cluster of n nodes below dir, on free ports. Nothing is started.
func NewCluster(ctx context.Context, dir string, n int, user, password string) (Cluster, error) {
	ports, err := FreePorts(ctx, 4*n+1)
	if err != nil {
		return Cluster{}, err
	}
	epmd, ports := ports[0], ports[1:]
	cookie := rand.Text()
	c := Cluster{Nodes: make([]RabbitMQ, n)}
	var names []string
	for i := range c.Nodes {
		own := ports[4*i : 4*i+4]
		c.Nodes[i] = RabbitMQ{Dir: filepath.Join(dir, "node"+strconv.Itoa(i+1)), Port: own[0], Dist: own[1],
			Management: own[2], Control: own[3], Epmd: epmd, User: user, Password: password, cookie: cookie}
		names = append(names, c.Nodes[i].Name())
	}
	for i := range c.Nodes {
		c.Nodes[i].Peers = names
	}
	return c, nil
}

// Start starts all nodes that do not run, and waits until they have formed the cluster: 20 to 30 s.
func (c Cluster) Start(ctx context.Context) error {
	group, inner := errgroup.WithContext(ctx)
	for _, n := range c.Nodes {
		group.Go(func() error { return n.Start(inner) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		if err := c.awaitAll(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// awaitAll waits until a node sees all nodes.
func (c Cluster) awaitAll(ctx context.Context, n RabbitMQ) error {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	for {
		var nodes []struct {
			Running bool `json:"running"`
		}
		err := n.Manage(ctx, "/api/nodes", &nodes)
		running := 0
		for _, x := range nodes {
			if x.Running {
				running++
			}
		}
		if err == nil && running == len(c.Nodes) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the cluster: node %s sees %d of %d nodes: %w", n.Name(), running, len(c.Nodes),
				errors.Join(ctx.Err(), err))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Kill ends all nodes at once, with what they hold, and their epmd.
func (c Cluster) Kill(ctx context.Context) error {
	for _, n := range c.Nodes {
		_ = n.Signal(syscall.SIGKILL) // gone already: fine
	}
	for _, n := range c.Nodes {
		ended(ctx, n.pid(), 5*time.Second)
	}
	return c.Nodes[0].stopEpmd(ctx)
}

// URLs are the AMQP URLs of all nodes; they contain the password.
func (c Cluster) URLs() []string {
	urls := make([]string, len(c.Nodes))
	for i, n := range c.Nodes {
		urls[i] = n.URL()
	}
	return urls
}

// Named returns the node with the name that the broker uses for it.
func (c Cluster) Named(name string) (RabbitMQ, bool) {
	for _, n := range c.Nodes {
		if n.Name() == name {
			return n, true
		}
	}
	return RabbitMQ{}, false
}

// Name is the node's name among the others.
func (r RabbitMQ) Name() string { return "oa" + strconv.Itoa(r.Port) + "@localhost" }

// Signal sends a signal to the node and all its processes: SIGKILL is a crash, SIGSTOP a node that hangs.
func (r RabbitMQ) Signal(sig syscall.Signal) error {
	pid := r.pid()
	if pid == 0 {
		return fmt.Errorf("signal RabbitMQ: node %s does not run", r.Name())
	}
	if err := syscall.Kill(-pid, sig); err != nil {
		return fmt.Errorf("signal RabbitMQ: %w", err)
	}
	return nil
}

// Isolate cuts a node off from the others, as a broken network does; its clients still reach it. The node alone pauses,
// as it has lost the majority.
func (c Cluster) Isolate(ctx context.Context, node int) error {
	return c.each(ctx, node, "erlang:set_cookie(N, cut), erlang:disconnect_node(N)")
}

// Rejoin ends Isolate.
func (c Cluster) Rejoin(ctx context.Context, node int) error {
	return c.each(ctx, node, "erlang:set_cookie(N, erlang:get_cookie()), net_kernel:connect_node(N)")
}

// each evaluates an Erlang expression on a node for each other node N.
func (c Cluster) each(ctx context.Context, node int, expression string) error {
	var others []string
	for i, n := range c.Nodes {
		if i != node {
			others = append(others, "'"+n.Name()+"'")
		}
	}
	n := c.Nodes[node]
	program := fmt.Sprintf("lists:foreach(fun(N) -> %s end, [%s]).", expression, strings.Join(others, ", "))
	cmd := exec.CommandContext(ctx, filepath.Join(rabbitBin, "rabbitmqctl"), "--quiet", "eval", program)
	cmd.Dir, cmd.Env = n.Dir, n.environment()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("evaluate on %s: %w: %s", n.Name(), err, out)
	}
	return nil
}

// Manage reads a path of the node's management API.
func (r RabbitMQ) Manage(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.ManagementURL()+path, nil)
	if err != nil {
		return fmt.Errorf("ask RabbitMQ: %w", err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask RabbitMQ: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("ask RabbitMQ for %s: %s", path, response.Status)
	}
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return fmt.Errorf("read the answer of RabbitMQ: %w", err)
	}
	return nil
}
