// Package presence knows who is there: heartbeats of modules, who was silent for too long, who leads an exchange, and
// which time the leader has covered.
package presence

import (
	"github.com/openaperture/openaperture/pkg/times"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// Presence is safe for concurrent use, also by several processes.
type Presence struct {
	db    *db.DB
	times times.Times
}

// New makes a Presence. New does not touch the database.
func New(d *db.DB, t times.Times) *Presence { return &Presence{db: d, times: t} }
