// Package registry keeps what people declare: exchanges, brokers, clusters, refs, components, users and system events,
// with the rows that REST shows of them.
package registry

import (
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

// Registry is safe for concurrent use, also by several processes.
type Registry struct {
	db     *db.DB
	engine *engine.Engine // ends what runs in an exchange that goes
	home   string
}

// New makes a Registry. home is the name of the exchange that manager-api itself belongs to. New does not touch the
// database.
func New(d *db.DB, e *engine.Engine, home string) *Registry {
	return &Registry{db: d, engine: e, home: home}
}
