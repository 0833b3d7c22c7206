// Package module holds MessagingExchangeModules: what actually runs, as far as heartbeats tell. It is pure.
package module

import (
	"time"

	"github.com/openaperture/openaperture/pkg/component"
)

// Statuses of a module.
const (
	Active   = "active"
	Inactive = "inactive"
)

// Module is one running instance, as its heartbeats describe it. All times are of the database's clock.
type Module struct {
	ExchangeID       component.ExchangeID `json:"messaging_exchange_id" db:"messaging_exchange_id"`
	Hostname         string               `json:"hostname" db:"hostname"`
	Type             component.Type       `json:"type" db:"type"`
	Service          string               `json:"service" db:"service"`
	Status           string               `json:"status" db:"status"`
	BootID           string               `json:"boot_id" db:"boot_id"`
	SourceRepo       string               `json:"source_repo" db:"source_repo"`
	SourceRepoGitRef string               `json:"source_repo_git_ref" db:"source_repo_git_ref"`
	FirstSeen        time.Time            `json:"first_seen" db:"first_seen"`     // receipt of the hostname's first beat
	LastSeen         time.Time            `json:"last_seen" db:"last_seen"`       // receipt of the last beat
	BootSince        time.Time            `json:"boot_since" db:"boot_since"`     // first beat of this boot_id
	SteadySince      time.Time            `json:"steady_since" db:"steady_since"` // of boot_id, status and ref
	// RivalBootID is another boot that was heard under the same hostname after this one had come, last at RivalSeen.
	RivalBootID string     `json:"rival_boot_id,omitempty" db:"rival_boot_id"`
	RivalSeen   *time.Time `json:"rival_seen,omitempty" db:"rival_seen"`
}

// Disputed reports whether another boot beats under the module's hostname: two hosts have one name. Such a module
// proves nothing, because nobody can tell which of the two its instance is.
func (m Module) Disputed(now time.Time, within time.Duration) bool {
	return m.RivalSeen != nil && now.Sub(*m.RivalSeen) <= within
}

// Live reports whether the module is active and was heard within the given time.
func (m Module) Live(now time.Time, within time.Duration) bool {
	return m.Status == Active && now.Sub(m.LastSeen) <= within
}

// Count is how many live modules of one kind report one version.
type Count struct {
	Type             component.Type `json:"type" db:"type"`
	Service          string         `json:"service" db:"service"`
	SourceRepoGitRef string         `json:"source_repo_git_ref" db:"source_repo_git_ref"`
	Status           string         `json:"status" db:"status"`
	Live             int            `json:"live" db:"live"`   // active and heard within live_within
	Total            int            `json:"total" db:"total"` // live or not
	// Stayed is how many of the live ones have not changed since before the end of the last upgrade to the recorded
	// version of their component, whether that was proven or could not be: it left them alone.
	Stayed int `json:"stayed,omitempty" db:"stayed"`
	// Disputed is how many of the live ones have a rival boot under their hostname (Module.Disputed).
	Disputed int `json:"disputed,omitempty" db:"disputed"`
}
