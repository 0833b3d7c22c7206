package registry

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/rabbit"
	"github.com/openaperture/openaperture/pkg/routing"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/seal"
)

// address opens the password.
func (c ConnectionRow) address(keys *seal.Ring) (rabbit.Address, error) {
	password, err := c.open(keys)
	if err != nil {
		return rabbit.Address{}, err
	}
	port := 0
	if c.Port != nil {
		port = int(*c.Port)
	}
	return rabbit.NewAddress(c.Host, port, c.Username, password.Reveal(), c.VirtualHost), nil
}

// Route says on which broker an exchange is served (routing.Exchange.Broker).
type Route struct {
	Exchange managerapi.Exchange
	BrokerID int64
}

// BrokerInfo is one registered broker.
type BrokerInfo struct {
	ID         int64            `db:"id"`
	Name       string           `db:"name"`
	FailoverID *int64           `db:"failover_broker_id"`
	Addresses  []rabbit.Address // of its nodes; they hold passwords
	Unusable   string           // why it cannot be used, "" if it can
}

// Plan is which exchange is served by which broker.
type Plan struct {
	Home    string // name of manager-api's own exchange, which may not be registered yet
	Routes  []Route
	Brokers map[int64]BrokerInfo // by id
}

// Failover is the broker that stands in for another one; ok is false if none does, or if it cannot be used.
func (p Plan) Failover(id int64) (b BrokerInfo, ok bool) {
	next := p.Brokers[id].FailoverID
	if next == nil || p.Brokers[*next].Unusable != "" {
		return BrokerInfo{}, false
	}
	return p.Brokers[*next], true
}

// Plan reads the routes of all exchanges.
func (s *Registry) Plan(ctx context.Context, keys *seal.Ring) (Plan, error) {
	var p Plan
	err := s.db.View(ctx, func(tx *sqlx.Tx) error {
		p = Plan{Home: s.home, Brokers: map[int64]BrokerInfo{}}
		exchanges, routed, err := s.findExchanges(ctx, tx)
		if err != nil {
			return err
		}
		for i, e := range exchanges {
			p.Routes = append(p.Routes, Route{Exchange: e, BrokerID: routed[i].Broker()})
		}
		return planBrokers(ctx, tx, keys, &p)
	})
	return p, err
}

// restrictedTo is, in SQL, the array of the brokers that the exchange e is restricted to, the oldest restriction first.
const restrictedTo = `ARRAY(SELECT r.messaging_broker_id FROM messaging_exchange_brokers r
	WHERE r.messaging_exchange_id = e.id ORDER BY r.id)`

// findExchanges reads all exchanges by id: as services see them, and as pkg/routing decides over them.
func (s *Registry) findExchanges(ctx context.Context, tx *sqlx.Tx) ([]managerapi.Exchange, []routing.Exchange, error) {
	var rows []struct {
		db.ExchangeRow
		RestrictedTo pq.Int64Array `db:"restricted_to"`
	}
	err := tx.SelectContext(ctx, &rows, `SELECT e.id, e.name, e.parent_exchange_id, e.routing_key_fragment, e.routing_key,
			e.root_exchange_name, `+restrictedTo+` AS restricted_to
		FROM messaging_exchanges e ORDER BY e.id`)
	if err != nil {
		return nil, nil, fmt.Errorf("read exchanges: %w", err)
	}
	byID := map[component.ExchangeID]db.ExchangeRow{}
	for _, r := range rows {
		byID[r.ID] = r.ExchangeRow
	}
	views, routed := make([]managerapi.Exchange, len(rows)), make([]routing.Exchange, len(rows))
	for i, r := range rows {
		views[i] = r.View(ancestorsOf(r.ExchangeRow, byID))
		routed[i] = s.routed(views[i], r.RestrictedTo)
	}
	return views, routed, nil
}

// routed is an exchange as pkg/routing decides over it.
func (s *Registry) routed(e managerapi.Exchange, restrictedTo []int64) routing.Exchange {
	out := routing.Exchange{ID: e.ID, Name: e.Name, Home: e.Name == s.home, Queues: e.Address().QueuePrefix(),
		Chain: []routing.Address{routing.Address(e.Address())}, RestrictedTo: restrictedTo}
	for _, a := range e.Ancestors {
		out.Chain = append(out.Chain, routing.Address{Name: a.Name, RoutingKey: a.RoutingKey})
	}
	return out
}

// arrangement reads the facts for pkg/routing.
func (s *Registry) arrangement(ctx context.Context, tx *sqlx.Tx) (a routing.Arrangement, err error) {
	if _, a.Exchanges, err = s.findExchanges(ctx, tx); err != nil {
		return a, err
	}
	a.Failovers, err = findFailovers(ctx, tx)
	return a, err
}

// findFailovers reads which brokers have a failover.
func findFailovers(ctx context.Context, q sqlx.QueryerContext) (routing.Failovers, error) {
	var rows []struct {
		ID       int64 `db:"id"`
		Failover int64 `db:"failover_broker_id"`
	}
	err := sqlx.SelectContext(ctx, q, &rows, `SELECT id, failover_broker_id FROM messaging_brokers
		WHERE failover_broker_id IS NOT NULL`)
	if err != nil {
		return nil, fmt.Errorf("read failovers of brokers: %w", err)
	}
	f := routing.Failovers{}
	for _, r := range rows {
		f[r.ID] = r.Failover
	}
	return f, nil
}

// brokersOf reads which brokers an exchange may use, and which broker stands in for the one that serves it (nil: none).
// An exchange that is not known uses none.
func (s *Registry) brokersOf(ctx context.Context, id component.ExchangeID) (reach []int64, failover *int64, err error) {
	var rows []struct {
		Name         string        `db:"name"`
		RestrictedTo pq.Int64Array `db:"restricted_to"`
	}
	err = s.db.Pool.SelectContext(ctx, &rows, `SELECT e.name, `+restrictedTo+` AS restricted_to
		FROM messaging_exchanges e WHERE e.id = $1`, id)
	if err != nil {
		return nil, nil, fmt.Errorf("read restrictions of exchange %d: %w", id, err)
	}
	if len(rows) == 0 {
		return nil, nil, nil
	}
	failovers, err := findFailovers(ctx, s.db.Pool)
	if err != nil {
		return nil, nil, err
	}
	e := s.routed(managerapi.Exchange{ID: id, Name: rows[0].Name}, rows[0].RestrictedTo)
	if next, has := failovers[e.Broker()]; has {
		failover = &next
	}
	return failovers.Reach(e), failover, nil
}

// ancestorsOf is the chain from the parent to the root; a ring, which REST refuses, ends it.
func ancestorsOf(x db.ExchangeRow, byID map[component.ExchangeID]db.ExchangeRow) []db.ExchangeRow {
	var chain []db.ExchangeRow
	for p := x.ParentID; p != nil && len(chain) < 32; {
		parent, ok := byID[*p]
		if !ok {
			break
		}
		chain = append(chain, parent)
		p = parent.ParentID
	}
	return chain
}

func planBrokers(ctx context.Context, tx *sqlx.Tx, keys *seal.Ring, p *Plan) error {
	var brokers []BrokerInfo
	err := tx.SelectContext(ctx, &brokers, `SELECT id, name, failover_broker_id FROM messaging_brokers ORDER BY id`)
	if err != nil {
		return fmt.Errorf("read brokers: %w", err)
	}
	var connections []ConnectionRow
	err = tx.SelectContext(ctx, &connections, `SELECT `+connectionColumns+` FROM messaging_broker_connections ORDER BY id`)
	if err != nil {
		return fmt.Errorf("read broker connections: %w", err)
	}
	for _, b := range brokers {
		for _, c := range connections {
			if c.BrokerID == b.ID {
				b.add(c, keys)
			}
		}
		if len(b.Addresses) == 0 && b.Unusable == "" {
			b.Unusable = fmt.Sprintf("broker %s has no connection", b.Name)
		}
		p.Brokers[b.ID] = b
	}
	return nil
}

func (b *BrokerInfo) add(c ConnectionRow, keys *seal.Ring) {
	a, err := c.address(keys)
	if err != nil {
		b.Unusable = err.Error()
		return
	}
	b.Addresses = append(b.Addresses, a)
}
