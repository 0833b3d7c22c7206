// Package engine moves upgrades and workflows: requests, judgements, orders, claims, results, releases, quarantine and
// deadlines. Every write reads the facts under their locks, asks a pure function, and writes what follows.
//
// Invariants: the state of an upgrade changes in move alone, by the table of pkg/upgrade. The recorded version of a
// component is written by recordVersion alone, in the transaction of its proof.
package engine

import (
	"github.com/openaperture/openaperture/pkg/times"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// Engine is safe for concurrent use, also by several processes.
type Engine struct {
	db      *db.DB
	times   times.Times
	version string
	home    string
}

// Config is what an Engine needs.
type Config struct {
	DB    *db.DB
	Times times.Times
	Home  string // name of the exchange that manager-api itself belongs to
	// Version is this manager-api's own. If an upgrade to this version hears no results, the version is blamed.
	Version string
}

// New makes an Engine. New does not touch the database.
func New(c Config) *Engine {
	return &Engine{db: c.DB, times: c.Times, version: c.Version, home: c.Home}
}
