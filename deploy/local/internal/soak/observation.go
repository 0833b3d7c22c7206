package soak

import (
	"slices"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// Observation is what one look at the stack has seen. The rows are of one transaction, so that they fit each other; the
// processes were listed right before it. Times are the database's, unless a field says otherwise.
type Observation struct {
	Now         time.Time
	Components  []Component
	Upgrades    []Upgrade // in the order in which they were made
	Workflows   []Workflow
	Orders      []Order
	Leases      []Lease
	Modules     []Module
	Quarantines []Quarantine
	Events      []SystemEvent
	Outbox      Outbox
	Journal     []Entry // all of it, in its order
	DeadLetters map[string]int

	Processes []proc.Process
	Units     map[string]string // active state by unit; nil while unitd did not answer
	Resources []Resources       // of services at rest; nil at other times
	Leaked    []string          // where a secret was found
	Told      Told
}

// Told is what the run knows beside the stack: what it has asked for, and what it has done to the stack.
type Told struct {
	Bad       map[string]component.Type // the component type that is broken in a release, by ref
	Beating   map[string]time.Time      // when the broker last took a simulated module's heartbeat, by hostname
	Silent    map[string]bool           // simulated modules that have been told to be silent
	Struck    map[string]time.Time      // when a fault last hit a unit
	Disturbed time.Time                 // when a fault of a server or of a link ended last
	Ended     time.Time                 // until then faults went on; zero while they do
	Inactive  time.Duration             // inactive_after and delete_after of the stack
	Delete    time.Duration
}

// Component is a row of system_components.
type Component struct {
	ID       component.ID   `db:"id"`
	Type     component.Type `db:"type"`
	Recorded string         `db:"source_repo_git_ref"`
}

// Upgrade is a row of upgrades.
type Upgrade struct {
	ID          string         `db:"id"`
	ComponentID component.ID   `db:"component_id"`
	Type        component.Type `db:"component_type"`
	State       upgrade.State  `db:"state"`
	Phase       int            `db:"phase"`
	Step        upgrade.Step   `db:"step"`
	Cause       upgrade.Cause  `db:"cause"`
	Code        string         `db:"verdict_code"`
	Message     string         `db:"verdict_message"`
	From        string         `db:"from_source_repo_git_ref"`
	To          string         `db:"to_source_repo_git_ref"`
	Created     time.Time      `db:"created_at"`
	Finished    *time.Time     `db:"finished_at"`
}

// Workflow is a row of workflows that belongs to an upgrade.
type Workflow struct {
	ID        string     `db:"id"`
	UpgradeID string     `db:"upgrade_id"`
	Phase     int        `db:"phase"`
	Restoring bool       `db:"restoring"`
	Completed bool       `db:"workflow_completed"`
	Ended     *time.Time `db:"ended_at"`
}

// Order is a row of orders.
type Order struct {
	ID          string             `db:"id"`
	WorkflowID  string             `db:"workflow_id"`
	Milestone   messages.Milestone `db:"milestone"`
	State       string             `db:"state"`
	Token       int64              `db:"token"`
	ResultToken int64              `db:"result_token"` // 0: there is no result of an executor
}

// Ended says whether nobody works on the order any more.
func (o Order) Ended() bool { return o.State != "open" && o.State != "claimed" }

// Lease is a row of leases.
type Lease struct {
	Name    string    `db:"name"`
	Holder  string    `db:"holder"`
	Token   int64     `db:"token"`
	Expires time.Time `db:"expires_at"`
}

// Module is a row of messaging_exchange_modules.
type Module struct {
	Hostname string    `db:"hostname"`
	Service  string    `db:"service"`
	Status   string    `db:"status"`
	Ref      string    `db:"source_repo_git_ref"`
	LastSeen time.Time `db:"updated_at"`
}

// Quarantine is a row of quarantines.
type Quarantine struct {
	Type   component.Type `db:"component_type"`
	Ref    string         `db:"source_repo_git_ref"`
	Reason string         `db:"reason"`
}

// SystemEvent is a row of system_events.
type SystemEvent struct {
	Type      string `db:"type"`
	UpgradeID string `db:"upgrade_id"`
	Message   string `db:"message"`
}

// Outbox counts the rows of the outbox.
type Outbox struct {
	Waiting   int           `db:"waiting"`
	Oldest    time.Duration `db:"-"` // age of the oldest that waits
	OldestMS  int64         `db:"oldest_ms"`
	Unproven  int           `db:"unproven"`  // published without the broker's confirm
	Forgotten int           `db:"forgotten"` // published without attempt
}

// Entry is a row of the journal, with what its inputs say of a move, a claim or silence.
type Entry struct {
	Seq       int64
	At        time.Time
	Subject   string
	Code      string
	Event     upgrade.EventKind // of a move of an upgrade; empty for all else
	From, To  upgrade.State
	Phase     int
	Term      int64 // of a leader's judgement, and of a change of the leader
	OrderID   string
	Token     int64
	Hostnames []string
	Message   string
}

// Resources are what a process holds.
type Resources struct {
	Name       string // of the service, or of a server
	Goroutines int
	Files      int // open descriptors; of the database its connections
}

// recorded is the recorded version of a type.
func (o Observation) recorded(t component.Type) string {
	for _, c := range o.Components {
		if c.Type == t {
			return c.Recorded
		}
	}
	return ""
}

// open are the upgrades that have not ended.
func (o Observation) open() []Upgrade {
	return slices.DeleteFunc(slices.Clone(o.Upgrades), func(u Upgrade) bool { return !u.State.Open() })
}

// moves are the entries about the moves of one upgrade, in their order.
func (o Observation) moves(id string) []Entry {
	var found []Entry
	for _, e := range o.Journal {
		if e.Subject == "upgrade/"+id && e.Event != "" {
			found = append(found, e)
		}
	}
	return found
}
