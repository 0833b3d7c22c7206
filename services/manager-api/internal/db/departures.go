package db

import (
	"maps"
	"slices"
	"sync"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/component"
)

// departures remembers for which exchanges each open transaction has put a message into the outbox, so that its commit
// wakes their relays and no others.
//
// It is one map for the process, by transaction, because the transaction is all that Enqueue and Tx share: a function
// that writes takes tx and nothing else. To ask the database at each commit would cost a round trip. A transaction is
// in the map while its function runs and not longer, also if the function panics.
type departures struct {
	mu   sync.Mutex
	open map[*sqlx.Tx]map[component.ExchangeID]bool
}

// leaving has the transactions of DB.Tx; no other transaction rings.
var leaving = departures{open: map[*sqlx.Tx]map[component.ExchangeID]bool{}}

func (d *departures) begin(tx *sqlx.Tx) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open[tx] = nil
}

// end forgets the transaction and returns its exchanges, the lowest id first.
func (d *departures) end(tx *sqlx.Tx) []component.ExchangeID {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := slices.Sorted(maps.Keys(d.open[tx]))
	delete(d.open, tx)
	return list
}

// note records a message of the transaction.
func (d *departures) note(tx *sqlx.Tx, ex component.ExchangeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	exchanges, open := d.open[tx]
	if !open {
		return
	}
	if exchanges == nil {
		exchanges = map[component.ExchangeID]bool{}
		d.open[tx] = exchanges
	}
	exchanges[ex] = true
}
