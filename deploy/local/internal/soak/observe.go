package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// observer looks at one stack. It goes to the servers directly, by no link that a fault may have broken.
type observer struct {
	stack   *stack.Stack
	db      *sqlx.DB
	journal []Entry
	logs    map[string]int64 // how much of each log has been searched for secrets
	secrets map[string]string
}

// patienceForServers is how long an observation waits for a database that has just been started again.
const patienceForServers = 20 * time.Second

// observe looks once. What has a fault, such as a unitd that is stopped, is left out.
func (o *observer) observe(ctx context.Context, told Told) (Observation, error) {
	ctx, cancel := context.WithTimeout(ctx, patienceForServers)
	defer cancel()
	for {
		seen, err := o.observeOnce(ctx, told)
		if err == nil || ctx.Err() != nil {
			return seen, err
		}
		select {
		case <-ctx.Done():
			return seen, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (o *observer) observeOnce(ctx context.Context, told Told) (Observation, error) {
	seen := Observation{Told: told}
	var err error
	if seen.Processes, err = proc.Running(o.stack.Releases()); err != nil {
		return seen, err
	}
	if err := o.rows(ctx, &seen); err != nil {
		return seen, err
	}
	seen.Units = o.units(ctx)
	seen.DeadLetters = o.deadLetters()
	seen.Leaked, err = o.leaked(ctx, seen)
	return seen, err
}

// units are the states of unitd's units; nil while it does not answer at once.
func (o *observer) units(ctx context.Context) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	states, err := o.stack.UnitStates(ctx)
	if err != nil {
		return nil
	}
	return states
}

// rows reads the database in one transaction.
func (o *observer) rows(ctx context.Context, seen *Observation) error {
	tx, err := o.db.BeginTxx(ctx, nil)
	if err != nil {
		return fmt.Errorf("look at the database: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, `SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY`); err != nil {
		return fmt.Errorf("look at the database: %w", err)
	}
	if err := tx.GetContext(ctx, &seen.Now, `SELECT clock_timestamp()`); err != nil {
		return fmt.Errorf("look at the database's clock: %w", err)
	}
	for _, q := range []struct {
		into any
		sql  string
	}{
		{&seen.Components, `SELECT id, type, source_repo_git_ref FROM system_components ORDER BY id`},
		{&seen.Upgrades, `SELECT id, component_id, component_type, state, phase, step, coalesce(cause, '') AS cause,
			verdict_code, verdict_message, from_source_repo_git_ref, to_source_repo_git_ref, created_at, finished_at
			FROM upgrades ORDER BY id`},
		{&seen.Workflows, `SELECT id, upgrade_id, phase, restoring, workflow_completed, ended_at FROM workflows
			WHERE upgrade_id IS NOT NULL ORDER BY id`},
		{&seen.Orders, `SELECT id, workflow_id, milestone, state, token,
			coalesce((result->>'token')::bigint, 0) AS result_token
			FROM orders ORDER BY id`},
		{&seen.Leases, `SELECT name, holder, token, expires_at FROM leases ORDER BY name`},
		{&seen.Modules, `SELECT hostname, service, status, source_repo_git_ref, updated_at FROM messaging_exchange_modules
			ORDER BY hostname`},
		{&seen.Quarantines, `SELECT component_type, source_repo_git_ref, reason FROM quarantines ORDER BY id`},
		{&seen.Events, `SELECT type, coalesce(data->>'upgrade_id', '') AS upgrade_id, coalesce(message, '') AS message
			FROM system_events ORDER BY id`},
	} {
		if err := tx.SelectContext(ctx, q.into, q.sql); err != nil {
			return fmt.Errorf("look at the database: %w", err)
		}
	}
	err = tx.GetContext(ctx, &seen.Outbox, `SELECT count(*) FILTER (WHERE published_at IS NULL) AS waiting,
			coalesce(extract(epoch FROM now() - min(created_at) FILTER (WHERE published_at IS NULL)) * 1000, 0)::bigint AS
				oldest_ms,
			count(*) FILTER (WHERE published_at IS NOT NULL AND outcome <> 'confirmed') AS unproven,
			count(*) FILTER (WHERE published_at IS NOT NULL AND attempts = 0) AS forgotten
		FROM outbox`)
	if err != nil {
		return fmt.Errorf("look at the outbox: %w", err)
	}
	seen.Outbox.Oldest = time.Duration(seen.Outbox.OldestMS) * time.Millisecond
	seen.Journal, err = o.readJournal(ctx, tx)
	return err
}

// late is how far back the journal is read again: an entry may be committed after entries with higher numbers.
const late = 500

func (o *observer) readJournal(ctx context.Context, tx *sqlx.Tx) ([]Entry, error) {
	var rows []struct {
		Seq     int64           `db:"seq"`
		At      time.Time       `db:"at"`
		Subject string          `db:"subject"`
		Code    string          `db:"code"`
		Message string          `db:"message"`
		Inputs  json.RawMessage `db:"inputs"`
	}
	var from int64
	if n := len(o.journal); n > late {
		from = o.journal[n-late].Seq
	}
	err := tx.SelectContext(ctx, &rows, `SELECT seq, at, subject, code, message, coalesce(inputs, 'null') AS inputs FROM
		journal
		WHERE seq > $1 ORDER BY seq`, from)
	if err != nil {
		return nil, fmt.Errorf("look at the journal: %w", err)
	}
	at := slices.IndexFunc(o.journal, func(e Entry) bool { return e.Seq > from })
	if at < 0 {
		at = len(o.journal)
	}
	journal := slices.Clone(o.journal[:at])
	for _, r := range rows {
		var in struct {
			Event     upgrade.EventKind `json:"event"`
			From      upgrade.State     `json:"from_state"`
			To        upgrade.State     `json:"to_state"`
			Phase     int               `json:"phase"`
			Term      int64             `json:"term"`
			OrderID   string            `json:"order_id"`
			Token     int64             `json:"token"`
			Hostnames []string          `json:"hostnames"`
		}
		_ = json.Unmarshal(r.Inputs, &in) // inputs of another shape say nothing of a move
		journal = append(journal, Entry{Seq: r.Seq, At: r.At, Subject: r.Subject, Code: r.Code, Message: r.Message,
			Event: in.Event, From: in.From, To: in.To, Phase: in.Phase, Term: in.Term,
			OrderID: in.OrderID, Token: in.Token, Hostnames: in.Hostnames})
	}
	o.journal = journal
	return journal, nil
}

// address is that of the stack's only exchange.
var address = messages.Address{Name: stack.ExchangeName, Root: stack.ExchangeName, RoutingKey: stack.ExchangeName}

// deadLetters counts what is in the dead-letter queues; nil while the broker does not answer.
func (o *observer) deadLetters() map[string]int {
	dial := amqp.Config{Dial: amqp.DefaultDial(500 * time.Millisecond)}
	conn, err := amqp.DialConfig(o.stack.RabbitMQ.URL(), dial)
	if err != nil {
		return nil
	}
	defer func() { _ = conn.CloseDeadline(time.Now().Add(time.Second)) }()
	found := map[string]int{}
	for _, queue := range []messages.Queue{messages.QueueOverseer, messages.QueueWorkflowOrchestration,
		messages.QueueDeployer,
		messages.QueueDeployOA} {
		name := address.QueueName(queue) + "_error"
		ch, err := conn.Channel() // a queue that does not exist closes it
		if err != nil {
			return nil
		}
		q, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
		if err == nil {
			found[name] = q.Messages
		}
	}
	return found
}

// leaked searches what was written since the last look for the stack's secrets: logs, the journal, events, and the
// answers that show a broker. It says where a secret was found, never the secret.
func (o *observer) leaked(ctx context.Context, seen Observation) ([]string, error) {
	if o.secrets == nil {
		if err := o.readSecrets(); err != nil {
			return nil, err
		}
	}
	var found []string
	look := func(where string, text []byte) {
		for name, secret := range o.secrets {
			if bytes.Contains(text, []byte(secret)) {
				found = append(found, fmt.Sprintf("%s contains the secret %s", where, name))
			}
		}
	}
	for _, e := range seen.Events {
		look("a system event of type "+e.Type, []byte(e.Message))
	}
	for _, e := range seen.Journal[max(0, len(seen.Journal)-late):] {
		look(fmt.Sprintf("journal entry %d", e.Seq), []byte(e.Message))
	}
	if answer := o.answer(ctx, "/messaging/brokers/1/connections"); answer != nil {
		look("the list of a broker's connections", answer)
	}
	logs, err := o.newLogs()
	for path, text := range logs {
		look(path, text)
	}
	return found, err
}

// readSecrets keeps what is secret by itself: tokens, passwords, keys.
func (o *observer) readSecrets() error {
	o.secrets = map[string]string{}
	for _, name := range []string{"admin_token", "service_token", "unitd_token", "postgres_password", "rabbitmq_password",
		"seal_keys"} {
		text, err := os.ReadFile(filepath.Join(o.stack.Dir, "secrets", name))
		if err != nil {
			return fmt.Errorf("read the secrets to search for: %w", err)
		}
		words := strings.Fields(string(text))
		o.secrets[name] = words[len(words)-1] // of a key its bytes, not its name
	}
	return nil
}

// answer is what manager-api answers to a reader; nil while it does not.
func (o *observer) answer(ctx context.Context, path string) []byte {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.stack.URL()+path, nil)
	if err != nil {
		return nil
	}
	req.Header.Set("Authorization", "Bearer "+o.secrets["admin_token"])
	return body(req)
}

func body(req *http.Request) []byte {
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	if err != nil || res.StatusCode != http.StatusOK {
		return nil
	}
	return text
}

// newLogs is what was appended to each log since the last look, and a little of what stood before.
func (o *observer) newLogs() (map[string][]byte, error) {
	const overlap = 100
	found := map[string][]byte{}
	for _, dir := range []string{"log", "unitd"} {
		err := filepath.WalkDir(filepath.Join(o.stack.Dir, dir), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.Contains(strings.TrimPrefix(path, o.stack.Dir), "log") {
				return nil //nolint:nilerr // a log that was rotated or removed meanwhile
			}
			file, err := os.Open(path)
			if err != nil {
				return nil //nolint:nilerr // the same
			}
			defer func() { _ = file.Close() }()
			info, err := file.Stat()
			if err != nil || info.Size() == o.logs[path] || !info.Mode().IsRegular() {
				return err
			}
			from := o.logs[path] - overlap
			if from < 0 || info.Size() < o.logs[path] {
				from = 0
			}
			text, err := io.ReadAll(io.NewSectionReader(file, from, info.Size()-from))
			if err != nil {
				return fmt.Errorf("search %s for secrets: %w", path, err)
			}
			found[path], o.logs[path] = text, info.Size()
			return nil
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return found, nil
}

var goroutines = regexp.MustCompile(`(?m)^go_goroutines(?:\{[^}]*\})? (\d+)`)

// resources are what the services hold, unitd and the database's connections. Who does not answer is left out.
func (o *observer) resources(ctx context.Context) ([]Resources, error) {
	running, err := proc.Running(o.stack.Releases())
	if err != nil {
		return nil, err
	}
	var found []Resources
	add := func(name string, pid, port int) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		r := Resources{Name: name}
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return // it has ended
		}
		r.Files = len(files)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/metrics", port), nil)
		if err != nil {
			return
		}
		if m := goroutines.FindSubmatch(body(req)); m != nil {
			r.Goroutines, _ = strconv.Atoi(string(m[1])) // digits only
			found = append(found, r)
		}
	}
	for _, p := range running {
		if v, own := service(p.Binary); own {
			instance, _ := strconv.Atoi(p.Hostname[strings.LastIndexByte(p.Hostname, '-')+1:]) // the unit sets it
			add(p.Hostname, p.PID, o.stack.Listen[v.Name]+instance)
		}
	}
	if pid, runs := o.stack.UnitdPID(); runs {
		add(unitd, pid, o.stack.Unitd)
	}
	var connections int
	err = o.db.GetContext(ctx, &connections, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()`)
	if err != nil {
		return nil, fmt.Errorf("count the database's connections: %w", err)
	}
	return append(found, Resources{Name: "database", Files: connections}), nil
}
