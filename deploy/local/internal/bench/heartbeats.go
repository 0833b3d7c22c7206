package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	amqp "github.com/rabbitmq/amqp091-go"

	messages "github.com/openaperture/openaperture/proto-messages"
)

// Of the heartbeats' comparison; batch, prefetch and pace are the overseer's.
const (
	beats    = 40_000 // per run, each with a hostname of its own
	prefetch = 4000
	batch    = 1000
	pace     = 20 * time.Millisecond
	pairs    = 5
)

// heartbeats measures published → durable, ours against the bare loop, interleaved: what one run leaves behind in
// caches and files is there for the next of either kind.
func (b *bench) heartbeats(ctx context.Context) error {
	bareQueue, bareKey := "local.bench_bare", "local.bench_bare"
	if err := declareBare(b.stack.RabbitMQ.URL(), bareQueue, bareKey); err != nil {
		return err
	}
	if _, err := b.db.ExecContext(ctx, bareTable); err != nil {
		return fmt.Errorf("make the bare table: %w", err)
	}
	loop, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- bareLoop(loop, b.stack.RabbitMQ.URL(), bareQueue, b.db, prefetch, batch) }()
	var ours, bare []float64
	for round := 1; round <= pairs+1; round++ { // the first pair inserts, the others update: it is not counted
		o, err := b.drain(ctx, round, messages.Address{Name: "local", Root: "local",
			RoutingKey: "local"}.Key(messages.QueueSystemModules),
			`messaging_exchange_modules`)
		if err != nil {
			return fmt.Errorf("heartbeats through OpenAperture: %w", err)
		}
		r, err := b.drain(ctx, round, bareKey, `bench_bare`)
		if err != nil {
			return fmt.Errorf("heartbeats through the bare loop: %w", err)
		}
		if round > 1 {
			ours, bare = append(ours, o), append(bare, r)
		}
	}
	stop()
	if err := <-ended; err != nil {
		return fmt.Errorf("the bare loop: %w", err)
	}
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = ours[i] / bare[i]
	}
	b.line("heartbeats, ours", "%8.0f /s   %s", median(ours), spread(ours))
	b.line("heartbeats, bare", "%8.0f /s   %s", median(bare), spread(bare))
	b.line("heartbeats, ratio", "%8.2f      %s   goal ≥ 0.8", median(ratios), spread(ratios))
	if median(bare) < 20_000 {
		b.line("", "bare below 20000 /s: publisher, broker, database and consumer share these cores")
	}
	return b.forget(ctx)
}

// drain publishes one round and returns heartbeats per second from the first publish until the last is durable. Both
// sides commit in the order of the queue, so it asks for the last alone, and counts all when that is there.
func (b *bench) drain(ctx context.Context, round int, key, table string) (float64, error) {
	all, err := bodies(beats, round)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	began := time.Now()
	if err := publishAll(ctx, b.stack.RabbitMQ.URL(), "local", key, all); err != nil {
		return 0, err
	}
	last := `SELECT EXISTS (SELECT 1 FROM ` + table + ` WHERE messaging_exchange_id = 1 AND hostname = $1 AND seq = $2)`
	for there := false; !there; {
		if err := b.db.GetContext(ctx, &there, last, hostname(beats-1), round); err != nil {
			return 0, fmt.Errorf("wait until all is durable: %w", err)
		}
		if !there {
			time.Sleep(5 * time.Millisecond)
		}
	}
	took := time.Since(began)
	var n int
	if err := b.db.GetContext(ctx, &n, `SELECT count(*) FROM `+table+` WHERE type = 'bench' AND seq = $1`,
		round); err != nil {
		return 0, fmt.Errorf("count what is durable: %w", err)
	}
	if n != beats {
		return 0, fmt.Errorf("%d of %d heartbeats are durable when the last is", n, beats)
	}
	return beats / took.Seconds(), nil
}

// forget removes the modules that were only for this.
func (b *bench) forget(ctx context.Context) error {
	if _, err := b.db.ExecContext(ctx, `DELETE FROM messaging_exchange_modules WHERE type = 'bench'`); err != nil {
		return fmt.Errorf("remove the bench's modules: %w", err)
	}
	return nil
}

// declareBare makes a queue like system_modules.
func declareBare(url, queue, key string) error {
	conn, err := amqp.Dial(url)
	if err != nil {
		return fmt.Errorf("dial the broker: %w", err)
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel: %w", err)
	}
	if _, err := ch.QueueDeclare(queue, true, false, false, false,
		amqp.Table{"x-message-ttl": int32(messages.SystemModulesTTL)}); err != nil {
		return fmt.Errorf("declare %s: %w", queue, err)
	}
	if err := ch.QueueBind(queue, key, "local", false, nil); err != nil {
		return fmt.Errorf("bind %s: %w", queue, err)
	}
	return nil
}

// bareDB is a pool like the one that a plain program would use.
func bareDB(ctx context.Context, url string) (*sqlx.DB, error) {
	db, err := sqlx.ConnectContext(ctx, "postgres", url)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	return db, nil
}
