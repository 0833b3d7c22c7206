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
	a := rabbit.Address{Host: c.Host, User: c.Username, Password: password.Reveal(), VHost: c.VirtualHost}
	if c.Port != nil {
		a.Port = int(*c.Port)
	}
	a.TLS = a.Port == amqpsPort
	return a, nil
}

// amqpsPort is the port of AMQP over TLS; the predecessor's connections have no flag for it.
const amqpsPort = 5671

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

// routes reads on which broker each exchange is served: of several restrictions the oldest counts.
func (s *Registry) routes(ctx context.Context, tx *sqlx.Tx) ([]Route, error) {
	var rows []struct {
		db.ExchangeRow
		Own *int64 `db:"own"`
	}
	err := tx.SelectContext(ctx, &rows, `SELECT x.id, x.name, x.parent_exchange_id, x.routing_key_fragment, x.routing_key,
		x.root_exchange_name,
			(SELECT messaging_broker_id FROM messaging_exchange_brokers WHERE messaging_exchange_id = x.id ORDER BY id
			LIMIT 1) AS own
		FROM messaging_exchanges x ORDER BY x.id`)
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
		if r.Own != nil && r.Name != s.home { // the home exchange's broker is the one of the configuration
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
