package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/lib/pq"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/jmoiron/sqlx"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// bareTable has the columns and the key of the modules' table, and nothing else.
const bareTable = `CREATE TABLE IF NOT EXISTS bench_bare (
	id serial PRIMARY KEY, messaging_exchange_id integer NOT NULL, hostname text NOT NULL, type text NOT NULL,
	service text NOT NULL, status text NOT NULL,
	boot_id text NOT NULL, seq bigint NOT NULL, source_repo text NOT NULL, source_repo_git_ref text NOT NULL,
	updated_at timestamptz NOT NULL DEFAULT now(),
	UNIQUE (messaging_exchange_id, hostname))`

const bareUpsert = `INSERT INTO bench_bare (messaging_exchange_id, hostname, type, service, status, boot_id, seq,
	source_repo, source_repo_git_ref)
	SELECT 1, * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[],
	$8::text[])
	ON CONFLICT (messaging_exchange_id, hostname) DO UPDATE SET type = excluded.type, service = excluded.service,
	status = excluded.status,
		boot_id = excluded.boot_id, seq = excluded.seq, source_repo = excluded.source_repo,
		source_repo_git_ref = excluded.source_repo_git_ref, updated_at = now()`

// bareLoop is the baseline: consume, decode, upsert in batches, acknowledge after the commit, with the overseer's
// decoder, batch size and pace. It ends with ctx.
func bareLoop(ctx context.Context, url, queue string, db *sqlx.DB, prefetch, batch int) error {
	conn, err := amqp.Dial(url)
	if err != nil {
		return fmt.Errorf("dial the broker to consume: %w", err)
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel to consume: %w", err)
	}
	if err := ch.Qos(prefetch, 0, false); err != nil {
		return fmt.Errorf("set the prefetch: %w", err)
	}
	deliveries, err := ch.ConsumeWithContext(ctx, queue, "", false, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("consume %s: %w", queue, err)
	}
	next := time.Now()
	for {
		beats, last, open, err := gather(ctx, deliveries, batch, next)
		if err != nil || !open {
			return err
		}
		next = time.Now().Add(pace)
		if err := upsertBare(ctx, db, beats); err != nil {
			return err
		}
		if err := last.Ack(true); err != nil {
			return fmt.Errorf("acknowledge a batch: %w", err)
		}
	}
}

// gather waits for one delivery and takes what follows it until its time, up to the batch size; for what is under way
// already it waits a moment in any case.
func gather(ctx context.Context, deliveries <-chan amqp.Delivery, batch int,
	until time.Time) ([]messages.ModuleStatus, amqp.Delivery, bool, error) {
	const moment = time.Millisecond
	var last amqp.Delivery
	beats := make([]messages.ModuleStatus, 0, batch)
	idle := time.NewTimer(time.Hour)
	defer idle.Stop()
	for len(beats) < batch {
		select {
		case <-ctx.Done():
			return nil, last, false, nil
		case <-idle.C:
			return beats, last, true, nil
		case d, ok := <-deliveries:
			if !ok {
				return nil, last, false, nil
			}
			last = d
		}
		var beat messages.ModuleStatus
		if err := messages.Unmarshal(last.Body, &beat); err != nil {
			return nil, last, false, fmt.Errorf("decode heartbeat: %w", err)
		}
		beats = append(beats, beat)
		if len(beats) == 1 {
			idle.Reset(max(time.Until(until), moment))
		}
	}
	return beats, last, true, nil
}

func upsertBare(ctx context.Context, db *sqlx.DB, beats []messages.ModuleStatus) error {
	n := len(beats)
	host, kind, service, status, boot, repo, ref := make([]string, n), make([]string, n), make([]string, n),
		make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	seq := make([]int64, n)
	for i, b := range beats {
		host[i], kind[i], service[i], status[i], boot[i], seq[i], repo[i], ref[i] = b.Hostname, b.Type, b.Service, b.Status,
			b.BootID, b.Seq, b.SourceRepo, b.SourceRepoGitRef
	}
	if _, err := db.ExecContext(ctx, bareUpsert, pq.Array(host), pq.Array(kind), pq.Array(service), pq.Array(status),
		pq.Array(boot), pq.Array(seq), pq.Array(repo), pq.Array(ref)); err != nil {
		return fmt.Errorf("upsert a batch: %w", err)
	}
	return nil
}
