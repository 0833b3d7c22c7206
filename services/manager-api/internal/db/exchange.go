package db

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
)

// ExchangeSubject is the journal's subject of an exchange.
func ExchangeSubject(id component.ExchangeID) string {
	return "exchange/" + strconv.FormatInt(int64(id), 10)
}

// FindExchange reads an exchange with its ancestors.
func FindExchange(ctx context.Context, tx *sqlx.Tx, id component.ExchangeID) (managerapi.Exchange, error) {
	var chain []ExchangeRow
	err := tx.SelectContext(ctx, &chain, `
		WITH RECURSIVE chain AS (
			SELECT x.*, 0 AS depth FROM messaging_exchanges x WHERE id = $1
			UNION ALL SELECT p.*, c.depth + 1 FROM messaging_exchanges p JOIN chain c ON p.id = c.parent_exchange_id
			WHERE c.depth < 32)
		SELECT id, name, parent_exchange_id, routing_key_fragment, routing_key, root_exchange_name FROM chain
		ORDER BY depth`, id)
	if err != nil {
		return managerapi.Exchange{}, fmt.Errorf("read exchange %d: %w", id, err)
	}
	if len(chain) == 0 {
		return managerapi.Exchange{}, fault.New(fault.NotFound, "there is no exchange %d", id)
	}
	return chain[0].View(chain[1:]), nil
}

// ExchangeRow is what routes need of an exchange.
type ExchangeRow struct {
	ID         component.ExchangeID  `db:"id"`
	Name       string                `db:"name"`
	ParentID   *component.ExchangeID `db:"parent_exchange_id"`
	Fragment   *string               `db:"routing_key_fragment"`
	RoutingKey string                `db:"routing_key"`
	Root       string                `db:"root_exchange_name"`
}

// View is the exchange as services see it. The ancestors go from the parent to the root.
func (x ExchangeRow) View(ancestors []ExchangeRow) managerapi.Exchange {
	out := managerapi.Exchange{ID: x.ID, Name: x.Name, ParentExchangeID: x.ParentID, RoutingKeyFragment: x.Fragment,
		RoutingKey:       x.RoutingKey,
		RootExchangeName: x.Root, Ancestors: []managerapi.Ancestor{}}
	for _, a := range ancestors {
		out.Ancestors = append(out.Ancestors, managerapi.Ancestor{Name: a.Name, RoutingKey: a.RoutingKey})
	}
	return out
}
