package store

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// reserved is what RabbitMQ keeps for itself: no name of ours may be this, a dot, and more.
const reserved = "amq"

// reach is an exchange on one of the brokers that it may use, with what its queues begin with there.
type reach struct {
	ID         component.ExchangeID `db:"id"`
	Name       string               `db:"name"`
	RoutingKey string               `db:"routing_key"`
	Broker     int64                `db:"broker"` // 0 is manager-api's own
}

func (r reach) prefix() string {
	return messages.Address{Name: r.Name, RoutingKey: r.RoutingKey}.QueuePrefix()
}

// reached lists which exchange may use which registered broker: those that it is restricted to and those that they fail
// over to, all of which may hold its queues. An exchange without restrictions has none: it lives on manager-api's own.
const reached = `SELECT r.messaging_exchange_id AS exchange, b.id AS broker FROM messaging_exchange_brokers r
	JOIN messaging_brokers own ON own.id = r.messaging_broker_id
	JOIN messaging_brokers b ON b.id IN (own.id, own.failover_broker_id)`

// reaches lists every exchange on every broker that it may use, manager-api's own among them: that is used without
// restrictions, and by the home exchange always.
const reaches = `
	SELECT e.id, e.name, e.routing_key, x.broker FROM messaging_exchanges e JOIN (` + reached + `) x ON x.exchange = e.id
	UNION SELECT e.id, e.name, e.routing_key, 0 FROM messaging_exchanges e
		WHERE e.name = $1 OR NOT EXISTS (SELECT 1 FROM messaging_exchange_brokers r WHERE r.messaging_exchange_id = e.id)
	ORDER BY id, broker`

// pair is two exchanges, the lower id first.
type pair [2]component.ExchangeID

// sharing is two exchanges that use the same queues of one broker.
type sharing struct{ one, other reach }

func (s sharing) pair() pair { return pair{s.one.ID, s.other.ID} }

// sharings lists who shares queues with whom.
func (s *Store) sharings(ctx context.Context, tx *sqlx.Tx) ([]sharing, error) {
	var all []reach
	if err := tx.SelectContext(ctx, &all, reaches, s.home); err != nil {
		return nil, fmt.Errorf("read which exchange uses which broker: %w", err)
	}
	type queues struct {
		prefix string
		broker int64
	}
	users := map[queues][]reach{}
	var found []sharing
	for _, r := range all {
		at := queues{r.prefix(), r.Broker}
		for _, earlier := range users[at] {
			found = append(found, sharing{earlier, r})
		}
		users[at] = append(users[at], r)
	}
	return found, nil
}

// way is how the messages of an exchange go: orders to its broker, results from that and from what it fails over to.
// Both are 0 for manager-api's own.
type way struct {
	ID       component.ExchangeID `db:"id"`
	Broker   int64                `db:"broker"`
	Failover int64                `db:"failover"`
}

const waysSQL = `SELECT x.id, coalesce(b.id, 0) AS broker, coalesce(b.failover_broker_id, 0) AS failover
	FROM messaging_exchanges x LEFT JOIN messaging_brokers b ON x.name <> $1 AND b.id = ` + ownBroker

func (s *Store) ways(ctx context.Context, tx *sqlx.Tx) ([]way, error) {
	var all []way
	if err := tx.SelectContext(ctx, &all, waysSQL, s.home); err != nil {
		return nil, fmt.Errorf("read the brokers of exchanges: %w", err)
	}
	return all, nil
}

// barred lists the exchanges whose messages on their way would be lost by a change: they have another broker, or one less.
// A failover that is added takes nothing away; an exchange that is gone has no messages.
func barred(before, after []way) []component.ExchangeID {
	now := map[component.ExchangeID]way{}
	for _, w := range after {
		now[w.ID] = w
	}
	var ids []component.ExchangeID
	for _, w := range before {
		next, there := now[w.ID]
		if there && (next.Broker != w.Broker || (w.Failover != 0 && next.Failover != w.Failover)) {
			ids = append(ids, w.ID)
		}
	}
	return ids
}

// CodeUpgradeRuns is the code of a change that would lose the messages of a running upgrade.
const CodeUpgradeRuns = "upgrade_runs"

// keepWays is Conflict if an upgrade or a workflow runs in an exchange whose messages would be lost. The exchanges are locked first: what
// begins there meanwhile is waited for, what begins later goes the new way.
func keepWays(ctx context.Context, tx *sqlx.Tx, before, after []way) error {
	ids := pq.Array(ints(barred(before, after)))
	if _, err := tx.ExecContext(ctx, `SELECT 1 FROM messaging_exchanges WHERE id = ANY($1) ORDER BY id FOR UPDATE`, ids); err != nil {
		return fmt.Errorf("lock exchanges whose brokers change: %w", err)
	}
	var running []upgradeRow
	err := tx.SelectContext(ctx, &running, `SELECT `+upgradeColumns+` FROM upgrades WHERE messaging_exchange_id = ANY($1) AND state IN `+runningStates+` ORDER BY id LIMIT 1`, ids)
	if err != nil {
		return fmt.Errorf("look for upgrades whose broker changes: %w", err)
	}
	if len(running) > 0 {
		u := running[0]
		return fault.New(fault.Conflict, "upgrade %s runs in MessagingExchange %d, and its results would wait on a broker that nobody reads any more: "+
			"wait until it has ended, or cancel it; of a broker that has moved, change the connections instead", u.ID, u.ExchangeID).WithCode(CodeUpgradeRuns)
	}
	var workflows []string
	err = tx.SelectContext(ctx, &workflows, `SELECT id FROM workflows WHERE messaging_exchange_id = ANY($1) AND upgrade_id IS NULL AND `+openWorkflow+` ORDER BY id LIMIT 1`, ids)
	if err != nil {
		return fmt.Errorf("look for workflows whose broker changes: %w", err)
	}
	if len(workflows) > 0 {
		return fault.New(fault.Conflict, "workflow %s runs there, and its results would wait on a broker that nobody reads any more: wait until it has ended; "+
			"of a broker that has moved, change the connections instead", workflows[0]).WithCode(CodeUpgradeRuns)
	}
	return nil
}

// rearrange is tx for a change of addresses or brokers of exchanges. It lets one through at a time: two that are each
// harmless could make a cycle together, or queues with two owners. It refuses one after which two exchanges share queues
// that did not before: the heartbeats of the one would prove versions of the other. And it refuses one that takes the broker
// away from under a running upgrade: its results would wait in a queue that nobody reads.
func (s *Store) rearrange(ctx context.Context, change func(tx *sqlx.Tx) error) error {
	return s.tx(ctx, func(tx *sqlx.Tx) error {
		if err := lockTree(ctx, tx); err != nil {
			return err
		}
		before, waysBefore, err := s.arrangement(ctx, tx)
		if err != nil {
			return err
		}
		if err := change(tx); err != nil {
			return err
		}
		after, waysAfter, err := s.arrangement(ctx, tx)
		if err != nil {
			return err
		}
		if err := newlyShared(before, after); err != nil {
			return err
		}
		return keepWays(ctx, tx, waysBefore, waysAfter)
	})
}

// arrangement is who shares queues with whom, and how the messages of each exchange go.
func (s *Store) arrangement(ctx context.Context, tx *sqlx.Tx) ([]sharing, []way, error) {
	shared, err := s.sharings(ctx, tx)
	if err != nil {
		return nil, nil, err
	}
	ways, err := s.ways(ctx, tx)
	return shared, ways, err
}

// newlyShared is Conflict if two share that did not before. Rows that shared when this was not refused yet stay changeable.
func newlyShared(before, after []sharing) error {
	known := map[pair]bool{}
	for _, x := range before {
		known[x.pair()] = true
	}
	for _, x := range after {
		if known[x.pair()] {
			continue
		}
		broker := "manager-api's own broker"
		if x.one.Broker != 0 {
			broker = fmt.Sprintf("broker %d", x.one.Broker)
		}
		return fault.New(fault.Conflict, "MessagingExchange %d (%s) and MessagingExchange %d (%s) would share the queues %s.* on %s: "+
			"give one of them, or one above it, another routing_key_fragment, or restrict them to different brokers",
			x.one.ID, x.one.Name, x.other.ID, x.other.Name, x.one.prefix(), broker).WithCode("queues_shared")
	}
	return nil
}
