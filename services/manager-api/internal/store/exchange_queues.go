package store

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"

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

// rearrange is tx for a change of addresses or brokers of exchanges. It lets one through at a time: two that are each
// harmless could make a cycle together, or queues with two owners. It refuses one after which two exchanges share queues
// that did not before: the heartbeats of the one would prove versions of the other.
func (s *Store) rearrange(ctx context.Context, change func(tx *sqlx.Tx) error) error {
	return s.tx(ctx, func(tx *sqlx.Tx) error {
		if err := lockTree(ctx, tx); err != nil {
			return err
		}
		before, err := s.sharings(ctx, tx)
		if err != nil {
			return err
		}
		if err := change(tx); err != nil {
			return err
		}
		after, err := s.sharings(ctx, tx)
		if err != nil {
			return err
		}
		return newlyShared(before, after)
	})
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
