package registry

import (
	"context"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"

	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
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

// reaches lists every exchange on every broker that it may use. manager-api's own broker is used by exchanges without
// restrictions, and always by the home exchange.
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
func (s *Registry) sharings(ctx context.Context, tx *sqlx.Tx) ([]sharing, error) {
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

// way is how the messages of an exchange go: under its address, orders to its broker, results from that and from what
// it fails over to.
type way struct {
	Route
	Failover int64 // 0 without one
}

// keeps says whether what is on its way w arrives on the way next too. A failover that is added takes nothing away.
func (w way) keeps(next way) bool {
	return next.BrokerID == w.BrokerID && (w.Failover == 0 || next.Failover == w.Failover) &&
		next.Exchange.Address() == w.Exchange.Address() && slices.Equal(next.Exchange.Ancestors, w.Exchange.Ancestors)
}

func (s *Registry) ways(ctx context.Context, tx *sqlx.Tx) (map[component.ExchangeID]way, error) {
	routes, err := s.routes(ctx, tx)
	if err != nil {
		return nil, err
	}
	brokers, err := brokerInfos(ctx, tx)
	if err != nil {
		return nil, err
	}
	failovers := map[int64]int64{}
	for _, b := range brokers {
		if b.FailoverID != nil {
			failovers[b.ID] = *b.FailoverID
		}
	}
	all := make(map[component.ExchangeID]way, len(routes))
	for _, r := range routes {
		all[r.Exchange.ID] = way{r, failovers[r.BrokerID]}
	}
	return all, nil
}

// barredExchanges lists the exchanges whose messages on their way would be lost by a change. One that is gone has no
// messages.
func barredExchanges(before, after map[component.ExchangeID]way) []component.ExchangeID {
	var ids []component.ExchangeID
	for id, w := range before {
		if next, there := after[id]; there && !w.keeps(next) {
			ids = append(ids, id)
		}
	}
	return ids
}

// CodeExchangeBusy is the code of a change that would lose the messages of what runs in an exchange.
const CodeExchangeBusy = "exchange_busy"

// keepWays is Conflict if an upgrade or a workflow runs in an exchange whose messages would be lost. The exchanges are
// locked first: what begins there meanwhile is waited for, what begins later goes the new way.
func keepWays(ctx context.Context, tx *sqlx.Tx, before, after map[component.ExchangeID]way) error {
	ids := pq.Array(db.ExchangeIDs(barredExchanges(before, after)))
	if _, err := tx.ExecContext(ctx, `SELECT 1 FROM messaging_exchanges WHERE id = ANY($1) ORDER BY id FOR UPDATE`,
		ids); err != nil {
		return fmt.Errorf("lock exchanges whose messages go another way: %w", err)
	}
	var running []string
	err := tx.SelectContext(ctx, &running, `
		SELECT 'upgrade ' || id || ' runs in MessagingExchange ' || messaging_exchange_id FROM upgrades
			WHERE messaging_exchange_id = ANY($1) AND state IN `+engine.RunningStates+`
		UNION ALL SELECT 'workflow ' || id || ' runs in MessagingExchange ' || messaging_exchange_id FROM workflows
			WHERE messaging_exchange_id = ANY($1) AND upgrade_id IS NULL AND `+engine.OpenWorkflow+` LIMIT 1`, ids)
	if err != nil {
		return fmt.Errorf("look for what runs in exchanges whose messages go another way: %w", err)
	}
	if len(running) > 0 {
		return fault.New(fault.Conflict,
			"%s, and its results would wait in a queue that nobody reads any more: wait until it has ended, or end it; "+
				"of a broker that has moved, change the connections instead", running[0]).WithCode(CodeExchangeBusy)
	}
	return nil
}

// rearrange is tx for a change of addresses or brokers of exchanges. It lets one through at a time: two that are each
// harmless could make a cycle together, or queues with two owners. It refuses one after which two exchanges share
// queues that did not before: the heartbeats of the one would prove versions of the other. And it refuses one that
// takes the address or the broker away from under what runs: its results would wait in a queue that nobody reads.
func (s *Registry) rearrange(ctx context.Context, change func(tx *sqlx.Tx) error) error {
	return s.db.Tx(ctx, func(tx *sqlx.Tx) error {
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
func (s *Registry) arrangement(ctx context.Context, tx *sqlx.Tx) ([]sharing, map[component.ExchangeID]way, error) {
	shared, err := s.sharings(ctx, tx)
	if err != nil {
		return nil, nil, err
	}
	ways, err := s.ways(ctx, tx)
	return shared, ways, err
}

// newlyShared is Conflict if two share that did not before. Rows that shared when this was not refused yet stay
// changeable.
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
		return fault.New(fault.Conflict,
			"MessagingExchange %d (%s) and MessagingExchange %d (%s) would share the queues %s.* on %s: "+
				"give one of them, or one above it, another routing_key_fragment, or restrict them to different brokers",
			x.one.ID, x.one.Name, x.other.ID, x.other.Name, x.one.prefix(), broker).WithCode("queues_shared")
	}
	return nil
}
