package servers

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const rabbitBin = "/usr/lib/rabbitmq/bin"

// RabbitMQ is a private node with an epmd of its own.
type RabbitMQ struct {
	Dir        string `json:"dir"`
	Port       int    `json:"port"`
	Dist       int    `json:"dist"`       // the port between nodes
	Epmd       int    `json:"epmd"`       // of Erlang's port mapper, a daemon that outlives its nodes
	Management int    `json:"management"` // 0: the node has no management API
	User       string `json:"user"`
	Password   string `json:"-"`
	// Of a node of a Cluster: the names of all its nodes, and the port of rabbitmqctl's own.
	Peers   []string `json:"peers,omitempty"`
	Control int      `json:"control,omitempty"`

	cookie string // what nodes know each other by; random if empty
}

// URL is the AMQP URL; it contains the password.
func (r RabbitMQ) URL() string {
	return r.url("amqp", r.Port, "/")
}

// ManagementURL is the root of the management API; it contains the password.
func (r RabbitMQ) ManagementURL() string {
	return r.url("http", r.Management, "")
}

func (r RabbitMQ) url(scheme string, port int, path string) string {
	u := url.URL{Scheme: scheme, User: url.UserPassword(r.User, r.Password), Path: path}
	u.Host = "127.0.0.1:" + strconv.Itoa(port)
	return u.String()
}

// Start starts the node if it does not run and waits until it takes AMQP connections. An open port proves nothing: it
// may belong to a node that is about to end.
func (r RabbitMQ) Start(ctx context.Context) error {
	if !alive(r.pid()) {
		if err := r.launch(ctx); err != nil {
			return err
		}
	}
	return r.await(ctx, 90*time.Second)
}

func (r RabbitMQ) launch(ctx context.Context) error {
	if err := r.configure(); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(r.Dir, "log", "stdout"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of RabbitMQ: %w", err)
	}
	defer func() { _ = log.Close() }()
	// The node outlives this program: it is not bound to ctx.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), filepath.Join(rabbitBin, "rabbitmq-server"))
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = r.Dir, r.environment(), log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start RabbitMQ: %w", err)
	}
	if err := os.WriteFile(r.pidFile(), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		return fmt.Errorf("remember RabbitMQ's process: %w", err)
	}
	go func() { _ = cmd.Wait() }() // reaps it if it ends before we do; it is meant to live on
	return nil
}

// await opens AMQP connections until one succeeds or the node has ended.
func (r RabbitMQ) await(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		conn, err := amqp.DialConfig(r.URL(), amqp.Config{Dial: amqp.DefaultDial(3 * time.Second)})
		if err == nil {
			return conn.Close()
		}
		if !alive(r.pid()) {
			return fmt.Errorf("start RabbitMQ: it ended; see %s", filepath.Join(r.Dir, "log", "stdout"))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for RabbitMQ: %w; see %s", ctx.Err(), filepath.Join(r.Dir, "log", "stdout"))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Stop stops the node gracefully, by force after 20 s, and then its epmd.
func (r RabbitMQ) Stop(ctx context.Context) error {
	pid := r.pid()
	if alive(pid) {
		_ = syscall.Kill(pid, syscall.SIGTERM) // gone already: fine
		if !ended(ctx, pid, 20*time.Second) {
			_ = syscall.Kill(-pid, syscall.SIGKILL) // its whole session
			ended(ctx, pid, 5*time.Second)
		}
	}
	_ = os.Remove(r.pidFile())
	return r.stopEpmd(ctx)
}

// stopEpmd asks until epmd agrees: it refuses for as long as it knows a node.
func (r RabbitMQ) stopEpmd(ctx context.Context) error {
	var out []byte
	for range 30 {
		cmd := exec.CommandContext(ctx, "epmd", "-kill")
		cmd.Env = r.environment()
		var err error
		if out, err = cmd.CombinedOutput(); errors.Is(err, exec.ErrNotFound) {
			return nil // never installed, never started
		}
		// "Killed", or that there is none to connect to; both mean that it is gone.
		text := string(out)
		if strings.Contains(text, "Killed") || strings.Contains(text, "Cannot connect") {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	return fmt.Errorf("stop epmd: %s", strings.TrimSpace(string(out)))
}

func (r RabbitMQ) pidFile() string { return filepath.Join(r.Dir, "sh.pid") }

func (r RabbitMQ) pid() int {
	text, err := os.ReadFile(r.pidFile())
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text))) // 0 is "none"
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || cwd != r.Dir {
		return 0 // the number of a process that was killed, given to somebody else since
	}
	return pid
}

// configure writes the node's files. The cookie is ours, so that no other node of this machine can join.
func (r RabbitMQ) configure() error {
	for _, dir := range []string{"mnesia", "log", "home", "schema"} {
		if err := os.MkdirAll(filepath.Join(r.Dir, dir), 0o700); err != nil {
			return fmt.Errorf("make the directories of RabbitMQ: %w", err)
		}
	}
	plugins, conf := "[].", fmt.Sprintf(`listeners.tcp.1 = 127.0.0.1:%d
default_user = %s
default_pass = %s
loopback_users = none
vm_memory_high_watermark.absolute = 1GiB
disk_free_limit.absolute = 200MB
`, r.Port, r.User, r.Password)
	if r.Management != 0 {
		plugins = "[rabbitmq_management]."
		conf += fmt.Sprintf("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = %d\n", r.Management)
	}
	conf += r.formation()
	files := map[string]string{"env.conf": "", "enabled_plugins": plugins + "\n", "rabbitmq.conf": conf}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(r.Dir, name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("configure RabbitMQ: %w", err)
		}
	}
	cookie := filepath.Join(r.Dir, "home", ".erlang.cookie")
	if _, err := os.Stat(cookie); err == nil {
		return nil
	}
	if err := os.WriteFile(cookie, []byte(cmp.Or(r.cookie, rand.Text())), 0o400); err != nil {
		return fmt.Errorf("configure RabbitMQ: %w", err)
	}
	return nil
}

// formation is how a node of a cluster finds the others.
func (r RabbitMQ) formation() string {
	if len(r.Peers) == 0 {
		return ""
	}
	conf := `cluster_partition_handling = pause_minority
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.randomized_startup_delay_range.min = 0
cluster_formation.randomized_startup_delay_range.max = 1
`
	for i, name := range r.Peers {
		conf += fmt.Sprintf("cluster_formation.classic_config.nodes.%d = %s\n", i+1, name)
	}
	return conf
}

func (r RabbitMQ) environment() []string {
	file := func(name string) string { return filepath.Join(r.Dir, name) }
	port := strconv.Itoa
	env := append(os.Environ(),
		"HOME="+file("home"), "PATH="+rabbitBin+":"+os.Getenv("PATH"),
		"ERL_EPMD_PORT="+port(r.Epmd), "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME="+r.Name(), "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		"RABBITMQ_NODE_PORT="+port(r.Port), "RABBITMQ_DIST_PORT="+port(r.Dist),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
		"RABBITMQ_MNESIA_BASE="+file("mnesia"), "RABBITMQ_LOG_BASE="+file("log"), "RABBITMQ_CONFIG_FILE="+file("rabbitmq"),
		"RABBITMQ_CONF_ENV_FILE="+file("env.conf"), "RABBITMQ_ENABLED_PLUGINS_FILE="+file("enabled_plugins"),
		"RABBITMQ_GENERATED_CONFIG_DIR="+file("schema"), "RABBITMQ_PID_FILE="+file("pid"))
	if r.Control == 0 {
		return env
	}
	return append(env, "RABBITMQ_CTL_DIST_PORT_MIN="+port(r.Control), "RABBITMQ_CTL_DIST_PORT_MAX="+port(r.Control))
}

// alive reports whether a process exists and is no zombie.
func alive(pid int) bool {
	if pid <= 0 {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// ended waits until a process is gone.
func ended(ctx context.Context, pid int, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for alive(pid) {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return false
		}
		time.Sleep(50 * time.Millisecond)
	}
	return true
}
