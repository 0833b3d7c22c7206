package registry

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/rabbit"
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

// Route says on which broker an exchange is served: BrokerID 0 is manager-api's own, which no row describes.
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

// Plan reads the routes of all exchanges: the exchange's own restriction first, else manager-api's own broker.
func (s *Registry) Plan(ctx context.Context, keys *seal.Ring) (Plan, error) {
	var p Plan
	err := s.db.View(ctx, func(tx *sqlx.Tx) error {
		p = Plan{Home: s.home, Brokers: map[int64]BrokerInfo{}}
		var err error
		if p.Routes, err = s.routes(ctx, tx); err != nil {
			return err
		}
		return planBrokers(ctx, tx, keys, &p)
	})
	return p, err
}

// servedOn is the registered broker that serves the exchange e: of several restrictions the oldest counts. It is NULL
// on manager-api's own broker, which no row describes. The home exchange, named $1, is always served there.
const servedOn = `CASE WHEN e.name <> $1 THEN (SELECT r.messaging_broker_id FROM messaging_exchange_brokers r
	WHERE r.messaging_exchange_id = e.id ORDER BY r.id LIMIT 1) END`

// routes reads on which broker each exchange is served.
func (s *Registry) routes(ctx context.Context, tx *sqlx.Tx) ([]Route, error) {
	var rows []struct {
		db.ExchangeRow
		Own *int64 `db:"own"`
	}
	err := tx.SelectContext(ctx, &rows, `SELECT e.id, e.name, e.parent_exchange_id, e.routing_key_fragment, e.routing_key,
			e.root_exchange_name, `+servedOn+` AS own
		FROM messaging_exchanges e ORDER BY e.id`, s.home)
	if err != nil {
		return nil, fmt.Errorf("read exchanges: %w", err)
	}
	byID := map[component.ExchangeID]db.ExchangeRow{}
	for _, r := range rows {
		byID[r.ID] = r.ExchangeRow
	}
	routes := make([]Route, 0, len(rows))
	for _, r := range rows {
		route := Route{Exchange: r.View(ancestorsOf(r.ExchangeRow, byID))}
		if r.Own != nil {
			route.BrokerID = *r.Own
		}
		routes = append(routes, route)
	}
	return routes, nil
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

// brokerInfos reads the registered brokers, without their addresses.
func brokerInfos(ctx context.Context, tx *sqlx.Tx) ([]BrokerInfo, error) {
	var brokers []BrokerInfo
	if err := tx.SelectContext(ctx, &brokers, `SELECT id, name, failover_broker_id FROM messaging_brokers
		ORDER BY id`); err != nil {
		return nil, fmt.Errorf("read brokers: %w", err)
	}
	return brokers, nil
}

func planBrokers(ctx context.Context, tx *sqlx.Tx, keys *seal.Ring, p *Plan) error {
	brokers, err := brokerInfos(ctx, tx)
	if err != nil {
		return err
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
