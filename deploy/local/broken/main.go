// Command broken plays a bad release of a service, for the demo and the end-to-end specs. Which service it plays follows
// from the name of its executable, what is wrong from the mode that the linker stamps:
//
//	never-ready  runs, and does not become ready; as manager-api it migrates the database first, as a real one would
//	crash-loop   ends at once
//	deaf         says that it is ready, beats with the version that is wanted, and does nothing else
//
// It is a program of its own, so that no service needs a switch by which it could be sabotaged.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
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
	"manager-api": component.Manager, "overseer": component.Overseer, "deployer": component.Deployer, "deployer-oa": component.Deployer,
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

// beat says ready and sends a heartbeat every second, straight to the queue of the stack's only exchange.
func beat(ctx context.Context, service string, s settings) error {
	url, err := s.secret("amqp_url_file")
	if err != nil {
		return err
	}
	conn, err := amqp.DialConfig(url, amqp.Config{Dial: amqp.DefaultDial(5 * time.Second)})
	if err != nil {
		return fmt.Errorf("connect to the broker: %w", err)
	}
	defer func() { _ = conn.Close() }()
	channel, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel: %w", err)
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("say ready: %w", err)
	}
	status := messages.ModuleStatus{EventType: messages.EventStatus, Hostname: os.Getenv("HOSTNAME"), Type: string(types[service]), Service: service,
		Status: messages.StatusActive, BootID: uuid.NewString(), SourceRepo: s["source_repo"], SourceRepoGitRef: version}
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
	const exchange = "local" // of the local stack; its fragment, and so the queue's prefix, is its name
	queue := messages.Address{Name: exchange, Root: exchange, RoutingKey: exchange}.QueueName(messages.QueueSystemModules)
	err = channel.PublishWithContext(ctx, "", queue, false, false, amqp.Publishing{ContentType: "application/json",
		Type: messages.TypeModuleStatus, MessageId: uuid.NewString(), Timestamp: time.Now(), Body: body})
	if err != nil {
		return fmt.Errorf("send heartbeat: %w", err)
	}
	return nil
}
