// Command broken plays a bad release of a service, for the demo and the end-to-end specs. Which service it plays
// follows from the name of its executable, what is wrong from the mode that the linker stamps:
//
//	never-ready  runs, and does not become ready; as manager-api it migrates the database first, as a real one would
//	crash-loop   ends at once
//	deaf         says that it is ready, beats with the version that is wanted, and does nothing else
//	forgetful    is the real service, found beside it, that loses every result: for manager-api alone
//
// It is a program of its own, so that no service needs a switch by which it could be sabotaged.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	_ "github.com/lib/pq" // the driver
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/openaperture/openaperture/pkg/component"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// Set by the linker.
var (
	version = "dev"
	mode    = ""
)

// types are the component types by service.
var types = map[string]component.Type{
	"manager-api": component.Manager, "overseer": component.Overseer,
	"deployer": component.Deployer, "deployer-oa": component.Deployer,
}

func main() {
	service := filepath.Base(os.Args[0])
	if len(os.Args) > 1 && os.Args[1] == "--version" {
		fmt.Println(service, version)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, service, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", service, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, service string, args []string) error {
	if len(args) != 2 || args[0] != "--config" {
		return errors.New("want --config <file>")
	}
	settings, err := readSettings(args[1])
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s %s is a broken release: %s\n", service, version, mode)
	switch mode {
	case "never-ready":
		if err := settings.migrate(ctx); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	case "deaf":
		return beat(ctx, service, settings)
	case "forgetful":
		return forget(ctx, service, args, settings)
	default:
		return fmt.Errorf("mode %q ends at once", mode)
	}
}

// settings are the plain "key: value" lines of a service's configuration.
type settings map[string]string

func readSettings(path string) (settings, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer func() { _ = file.Close() }()
	found := settings{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), ": "); ok {
			found[key] = strings.TrimSpace(value)
		}
	}
	return found, lines.Err()
}

func (s settings) secret(key string) (string, error) {
	text, err := os.ReadFile(s[key])
	if err != nil {
		return "", fmt.Errorf("read %s: %w", key, err)
	}
	return strings.TrimSpace(string(text)), nil
}

// migrate expands the schema by a column that no release reads. Only a service with a database does it.
func (s settings) migrate(ctx context.Context) error {
	if s["database_url_file"] == "" {
		return nil
	}
	url, err := s.secret("database_url_file")
	if err != nil {
		return err
	}
	db, err := sqlx.ConnectContext(ctx, "postgres", url)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(ctx, `ALTER TABLE system_components ADD COLUMN IF NOT EXISTS remark text`); err != nil {
		return fmt.Errorf("expand the schema: %w", err)
	}
	return nil
}

// address is that of the local stack's only exchange.
var address = messages.Address{Name: "local", Root: "local", RoutingKey: "local"}

// dial opens a channel on a connection of its own.
func (s settings) dial() (*amqp.Connection, *amqp.Channel, error) {
	url, err := s.secret("amqp_url_file")
	if err != nil {
		return nil, nil, err
	}
	conn, err := amqp.DialConfig(url, amqp.Config{Dial: amqp.DefaultDial(5 * time.Second)})
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the broker: %w", err)
	}
	channel, err := conn.Channel()
	if err != nil {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("open a channel: %w", err)
	}
	return conn, channel, nil
}

// forget runs the real service and takes every result away from it: a consumer of higher priority gets them all.
func forget(ctx context.Context, service string, args []string, s settings) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the executable: %w", err)
	}
	conn, channel, err := s.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	results, err := channel.ConsumeWithContext(ctx, address.QueueName(messages.QueueWorkflowOrchestration), "", true,
		false, false, false, amqp.Table{"x-priority": int32(10)})
	if err != nil {
		return fmt.Errorf("consume results: %w", err)
	}
	go func() {
		for range results { //nolint:revive // acknowledged by the broker, and gone
		}
	}()
	cmd := exec.CommandContext(ctx, filepath.Join(filepath.Dir(self), "real", service), args...)
	notices, err := relayNotices()
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(filepath.Dir(notices)) }()
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notices)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd.Run()
}

// relayNotices opens a socket for a child's notices and passes them on: the host listens to its own child alone.
func relayNotices() (string, error) {
	dir, err := os.MkdirTemp("", "broken-")
	if err != nil {
		return "", fmt.Errorf("make a directory for notices: %w", err)
	}
	at := filepath.Join(dir, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: at, Net: "unixgram"})
	if err != nil {
		return "", fmt.Errorf("listen for notices: %w", err)
	}
	go func() {
		notice := make([]byte, 4096)
		for {
			n, err := socket.Read(notice)
			if err != nil {
				return
			}
			_, _ = daemon.SdNotify(false, string(notice[:n])) // without it the host will say that we are not ready
		}
	}()
	return at, nil
}

// beat says ready and sends a heartbeat every second, straight to the queue of the stack's only exchange.
func beat(ctx context.Context, service string, s settings) error {
	conn, channel, err := s.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("say ready: %w", err)
	}
	status := messages.ModuleStatus{EventType: messages.EventStatus, Hostname: os.Getenv("HOSTNAME"),
		Type: string(types[service]), Service: service, Status: messages.StatusActive, BootID: uuid.NewString(),
		SourceRepo: s["source_repo"], SourceRepoGitRef: version}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		status.Seq++
		if err := publish(ctx, channel, status); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			status.Seq, status.Status = status.Seq+1, messages.StatusInactive
			return publish(context.WithoutCancel(ctx), channel, status) // the last words, after the end of ctx
		case <-tick.C:
		}
	}
}

func publish(ctx context.Context, channel *amqp.Channel, status messages.ModuleStatus) error {
	body, err := json.Marshal(status)
	if err != nil {
		return fmt.Errorf("encode heartbeat: %w", err)
	}
	err = channel.PublishWithContext(ctx, "", address.QueueName(messages.QueueSystemModules), false, false,
		amqp.Publishing{ContentType: "application/json", Type: messages.TypeModuleStatus, MessageId: uuid.NewString(),
			Timestamp: time.Now(), Body: body})
	if err != nil {
		return fmt.Errorf("send heartbeat: %w", err)
	}
	return nil
}
