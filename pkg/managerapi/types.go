// Package managerapi is the REST interface of manager-api as the other services use it: the wire types of the new
// resources, and a client. The paths of each resource stand at the client's methods; errors come back as fault kinds.
package managerapi

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/module"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// Exchange is a MessagingExchange of the predecessor's family.
type Exchange struct {
	ID                 component.ExchangeID  `json:"id"`
	Name               string                `json:"name"`
	ParentExchangeID   *component.ExchangeID `json:"parent_exchange_id"`
	RoutingKeyFragment *string               `json:"routing_key_fragment"`
	RoutingKey         string                `json:"routing_key"`
	RootExchangeName   string                `json:"root_exchange_name"`
	// Ancestors are the exchange's chain from its parent to the root, so that a service can declare all of it.
	Ancestors []Ancestor `json:"ancestors"`
	// FailoverBrokerID is the broker that messages take while the exchange's own broker is away; absent without one.
	// GET /messaging/exchanges/:id alone has it.
	FailoverBrokerID *int64 `json:"failover_broker_id,omitempty"`
}

// Ancestor is one exchange above another.
type Ancestor struct {
	Name       string `json:"name"`
	RoutingKey string `json:"routing_key"`
}

// BrokerConnection is one address of a broker, of the predecessor's family. The password is shown to services and
// modules of an exchange that may use the broker, and to nobody else; each such read is in the journal.
type BrokerConnection struct {
	Username    string      `json:"username"`
	Password    boot.Secret `json:"password"`
	Host        string      `json:"host"`
	Port        *int        `json:"port"`
	VirtualHost string      `json:"virtual_host"`
}

// Address is how the exchange is reached on a broker.
func (e Exchange) Address() messages.Address {
	return messages.Address{Name: e.Name, Root: e.RootExchangeName, RoutingKey: e.RoutingKey}
}

// Verdict is a judgement with its enumerated code and a sentence.
type Verdict struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Upgrade as the API shows it (docs/rest.md#upgrades).
type Upgrade struct {
	ID            upgrade.ID           `json:"id"`
	ComponentID   component.ID         `json:"component_id"`
	ComponentType component.Type       `json:"component_type"`
	ExchangeID    component.ExchangeID `json:"messaging_exchange_id"`
	Trigger       upgrade.Trigger      `json:"trigger"`
	RequestedBy   string               `json:"requested_by"`
	Reason        string               `json:"reason"`
	Force         bool                 `json:"force"`
	State         upgrade.State        `json:"state"`
	Phase         int                  `json:"phase"`
	Step          upgrade.Step         `json:"step"`
	Verdict       Verdict              `json:"verdict"`
	From          upgrade.Version      `json:"from"`
	To            upgrade.Version      `json:"to"`
	Cause         upgrade.Cause        `json:"cause,omitempty"`
	WorkflowIDs   []string             `json:"workflow_ids"`
	CreatedAt     time.Time            `json:"created_at"`
	StartedAt     *time.Time           `json:"started_at"`
	FinishedAt    *time.Time           `json:"finished_at"`
	DeadlineAt    *time.Time           `json:"deadline_at"`
	Decisions     []Decision           `json:"decisions,omitempty"` // on show only
	Steps         []messages.Step      `json:"steps,omitempty"`     // on show only: where the executors' time went
}

// Decision is one journal row about an upgrade, for everybody who may read: who it was is in /audit alone.
type Decision struct {
	At      time.Time       `json:"at"`
	Code    string          `json:"code"`
	Message string          `json:"message"`
	Inputs  json.RawMessage `json:"inputs,omitempty"`
}

// UpgradeRequest asks for an upgrade of one component, or of a type in an exchange. Force overrides
// auto_upgrade_enabled, quarantine, already-the-latest and stray modules, is audited, and needs role operator or admin.
type UpgradeRequest struct {
	ComponentID component.ID `json:"component_id,omitempty"`
	// with ComponentType, instead of ComponentID
	ExchangeID    component.ExchangeID `json:"messaging_exchange_id,omitempty"`
	ComponentType component.Type       `json:"component_type,omitempty"`
	Trigger       upgrade.Trigger      `json:"trigger,omitempty"` // request (default), or hourly: role service, with Term
	Term          int64                `json:"term,omitempty"`
	RequestedBy   string               `json:"requested_by,omitempty"`
	Reason        string               `json:"reason,omitempty"`
	Force         bool                 `json:"force,omitempty"`
	Quiet         bool                 `json:"quiet,omitempty"` // publish no doorbell: the caller is the overseer
}

// Judgement is what the overseer writes about one requested upgrade: start it, or refuse it. It carries its term.
type Judgement struct {
	Term    int64           `json:"term"`
	Verdict Verdict         `json:"verdict"`
	Target  upgrade.Version `json:"target"`           // of a start
	Inputs  json.RawMessage `json:"inputs,omitempty"` // what was looked at, for the journal
	// Saw is what the judgement rests on. manager-api compares it with its rows under their locks, and answers a conflict
	// with the code `seen_changed` if they differ: the overseer judges anew. nil, from the former release: no comparison.
	Saw *Saw `json:"saw,omitempty"`
}

// CodeSeenChanged is the code of a judgement that rests on what has changed since it was seen.
const CodeSeenChanged = "seen_changed"

// Saw is what a judgement about a requested upgrade rests on.
type Saw struct {
	Ref         *component.Ref      `json:"ref"` // nil: there is no ref of this type
	Component   component.Component `json:"component"`
	Trigger     upgrade.Trigger     `json:"trigger"`
	Force       bool                `json:"force"`
	Quarantines []string            `json:"quarantines"` // ids of those of this type, sorted
}

// Check is what the overseer writes after an automatic check: the verdict and when to look next. With Create an
// upgrade with trigger hourly is requested in the same transaction.
type Check struct {
	Term        int64     `json:"term"`
	Verdict     Verdict   `json:"verdict"`
	NextCheckAt time.Time `json:"next_check_at"`
	Create      bool      `json:"create"`
}

// Lease is leadership over an exchange. Durations are milliseconds on the database's clock.
type Lease struct {
	Holder       string     `json:"holder"` // hostname of the leader
	Term         int64      `json:"term"`
	ExpiresInMS  int64      `json:"expires_in_ms"`
	CoveredSince *time.Time `json:"covered_since"`
	CoveredUntil *time.Time `json:"covered_until"`
	Covering     bool       `json:"covering"` // covered until within live_within of the database's now
}

// LeaseRequest acquires or renews leadership. Term 0 acquires. Covered says that, up to now, the leader consumed, its
// own beats came back and its batches committed; false or a new term starts covered time anew.
type LeaseRequest struct {
	Holder  string `json:"holder"`
	Term    int64  `json:"term"`
	TTLMS   int64  `json:"ttl_ms"`
	Covered bool   `json:"covered"`
	// Capabilities are what this overseer can judge on beside what the former release could (Cap… constants).
	Capabilities []string `json:"capabilities,omitempty"`
}

// Snapshot is everything that a pass of the overseer decides on, read in one repeatable-read transaction.
type Snapshot struct {
	DatabaseTime time.Time             `json:"database_time"`
	Exchange     Exchange              `json:"exchange"`
	Lease        *Lease                `json:"lease"`
	Refs         []component.Ref       `json:"refs"`
	Components   []component.Component `json:"components"`
	Upgrades     []OpenUpgrade         `json:"upgrades"` // open ones, explicit requests first, then by age
	Quarantines  []Quarantine          `json:"quarantines"`
	Freeze       *Freeze               `json:"freeze,omitempty"` // the one that holds for the exchange
	Counts       []module.Count        `json:"module_counts"`
	Modules      []module.Module       `json:"modules"` // only of types with a running upgrade
	MinHealthyMS int64                 `json:"min_healthy_ms"`
	LiveWithinMS int64                 `json:"live_within_ms"`
	// MissingAfterMS is missing_after; 0, from the former release: nothing is brought back because it is gone.
	MissingAfterMS int64 `json:"missing_after_ms,omitempty"`
	// Heard are of the components that have a recorded version and of which nothing is live.
	Heard []component.Heard `json:"heard,omitempty"`
	// Resolved is what git hosts said last about the refs of the exchange's components.
	Resolved []ResolvedRef `json:"resolved,omitempty"`
	// Resolving says that an executor asks git hosts at this moment: a check, and a request whose verdict depends on it,
	// wait for the answer.
	Resolving bool `json:"resolving,omitempty"`
	// Failures are of components whose last upgrades to their present target failed by the environment.
	Failures []EnvironmentFailures `json:"failures,omitempty"`
}

// ResolvedRef is what a git host said about a ref of a repository.
type ResolvedRef struct {
	Repo   string            `json:"repo"`
	Ref    string            `json:"ref"`
	Kind   component.RefKind `json:"kind"`
	Commit string            `json:"commit"`      // full hash, "" while the host has never told it
	At     time.Time         `json:"resolved_at"` // when the host told it last
	// Error is why the host could not be asked the last time, "" if it could. Commit is then from before.
	Error string `json:"error,omitempty"`
}

// EnvironmentFailures are the upgrades of one component to one version that failed by the environment, one after the
// other. A success, and an upgrade to another version, begin the row anew.
type EnvironmentFailures struct {
	ComponentID component.ID    `json:"component_id" db:"component_id"`
	Target      upgrade.Version `json:"target" db:"target"`
	Count       int             `json:"count" db:"count"`
	Last        time.Time       `json:"last" db:"last"` // when the last of them was started
}

// Freeze is the emergency stop of an exchange, or of everything: nothing starts. What runs goes on to its end, and
// rollbacks pass.
type Freeze struct {
	ExchangeID *component.ExchangeID `json:"messaging_exchange_id" db:"messaging_exchange_id"` // null: everything
	CreatedBy  string                `json:"created_by" db:"created_by"`
	Reason     string                `json:"reason" db:"reason"`
	CreatedAt  time.Time             `json:"created_at" db:"created_at"`
	Until      *time.Time            `json:"until" db:"until"` // null: until somebody ends it
}

// String says who froze what, why, and until when.
func (f Freeze) String() string {
	what, until := "everything", "until somebody ends it"
	if f.ExchangeID != nil {
		what = fmt.Sprintf("exchange %d", *f.ExchangeID)
	}
	if f.Until != nil {
		until = "until " + f.Until.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%s is frozen %s (%s): nothing starts", what, until, f.Reason)
}

// FreezeRequest freezes. Reason is required; without Until the freeze holds until it is deleted.
type FreezeRequest struct {
	Reason string     `json:"reason"`
	Until  *time.Time `json:"until,omitempty"`
}

// OpenUpgrade is an open upgrade with what its proof needs.
type OpenUpgrade struct {
	Upgrade
	Need *upgrade.Need `json:"need"` // only while its step is verify
}

// Quarantine refuses one version of one type in one exchange.
type Quarantine struct {
	ID               string               `json:"id"`
	ExchangeID       component.ExchangeID `json:"messaging_exchange_id"`
	ComponentType    component.Type       `json:"component_type"`
	SourceRepo       string               `json:"source_repo"`
	SourceRepoGitRef string               `json:"source_repo_git_ref"`
	// The commits that are refused; "" refuses whatever stands behind the ref.
	SourceCommitHash     string     `json:"source_commit_hash,omitempty"`
	DeploymentCommitHash string     `json:"deployment_commit_hash,omitempty"`
	UpgradeID            upgrade.ID `json:"upgrade_id,omitempty"`
	Reason               string     `json:"reason"`
	Message              string     `json:"message"`
	CreatedAt            time.Time  `json:"created_at"`
	ExpiresAt            *time.Time `json:"expires_at"`
}

// ModuleBatch is a coalesced batch of heartbeats, at most one per hostname.
type ModuleBatch struct {
	Modules []messages.ModuleStatus `json:"modules"`
}

// BatchResult says what a batch did.
type BatchResult struct {
	Accepted int `json:"accepted"`
}

// Expiry asks for one sweep over the silent modules of an exchange, under the leader's term.
type Expiry struct {
	Term int64 `json:"term"`
}

// ExpiryResult says what a sweep did. Held means that deletions wait for an operator (docs/messaging.md#silence).
type ExpiryResult struct {
	Inactivated []string `json:"inactivated"`
	Deleted     []string `json:"deleted"`
	Held        bool     `json:"held"`
}

// ClaimRequest claims an order. The same hostname claims again under a new boot_id and gets a new token.
type ClaimRequest struct {
	Attempt  int    `json:"attempt"`
	Hostname string `json:"hostname"`
	BootID   string `json:"boot_id"`
	// Capabilities are what this executor can do beside what the former release could (Cap… constants).
	Capabilities []string `json:"capabilities,omitempty"`
}

// Capabilities that a service announces with its claim or its lease. What is announced there comes with a service
// token; what stands in a message is never a capability.
const (
	CapInstances = "instances" // executor: its deploy results name their instances; overseer: it judges proofs by them
	CapResolve   = "resolve"   // executor: it performs the milestone resolve
)

// Executor is a process that executes orders, as it announces itself.
type Executor struct {
	Hostname     string   `json:"hostname"`
	BootID       string   `json:"boot_id"`
	Service      string   `json:"service"` // deployer or deployer-oa
	Capabilities []string `json:"capabilities,omitempty"`
}

// Claim is the right to work on an order until it expires; Order is the row's truth, not the message's copy. Its
// deadline is on the database's clock: an executor goes by the time that was left at the answer, 0 if that is not told.
type Claim struct {
	Token        int64          `json:"token"`
	ExpiresInMS  int64          `json:"expires_in_ms"`
	DeadlineInMS int64          `json:"deadline_in_ms"`
	Order        messages.Order `json:"order"`
}

// DeadlineAt is the order's deadline on the clock of who asked at now.
func (c Claim) DeadlineAt(now time.Time) time.Time {
	if c.DeadlineInMS <= 0 {
		return c.Order.Deadline
	}
	// now carries a monotonic reading, so a step of the clock does not move the deadline.
	return now.Add(time.Duration(c.DeadlineInMS) * time.Millisecond)
}

// Renewal renews or releases a claim.
type Renewal struct {
	Token int64 `json:"token"`
}

// OrderView shows an order: closed means that manager-api has learned its result, or wants none any more, and that
// the upgrade it belonged to has ended or moved on.
type OrderView struct {
	ID         string             `json:"id"`
	WorkflowID string             `json:"workflow_id"`
	Milestone  messages.Milestone `json:"milestone"`
	State      string             `json:"state"`   // open | claimed | completed | failed | closed
	Settled    bool               `json:"settled"` // the upgrade has proven or ended this phase: the work file may go
	// Watched: manager-api has learned the result, waits for the proof and keeps the clock that will end it. An executor
	// need not undo such an order. Absent from the former release.
	Watched bool            `json:"watched,omitempty"`
	Attempt int             `json:"attempt"`
	Holder  string          `json:"holder,omitempty"`
	Token   int64           `json:"token,omitempty"`
	Order   *messages.Order `json:"order,omitempty"`
}

// Release is an immutable result of config, or what was found running (adopted).
type Release struct {
	ID                   string                    `json:"id"`
	ComponentID          component.ID              `json:"component_id"`
	Phase                int                       `json:"phase"`
	Adopted              bool                      `json:"adopted"`
	SourceRepo           string                    `json:"source_repo"`
	SourceRepoGitRef     string                    `json:"source_repo_git_ref"`
	SourceCommitHash     string                    `json:"source_commit_hash"`
	DeploymentRepo       string                    `json:"deployment_repo"`
	DeploymentRepoGitRef string                    `json:"deployment_repo_git_ref"`
	DeploymentCommitHash string                    `json:"deployment_commit_hash"`
	EtcdToken            string                    `json:"etcd_token"`
	Units                []messages.UnitDefinition `json:"units"`
	Instances            *int                      `json:"instances"`
	ProvenAt             *time.Time                `json:"proven_at"`
	InsertedAt           time.Time                 `json:"inserted_at"`
}

// JournalEntry is one row of the journal, as /audit shows it; /events leaves the actor out.
type JournalEntry struct {
	Seq       int64           `json:"seq"`
	At        time.Time       `json:"at"`
	Actor     string          `json:"actor,omitempty"`
	Subject   string          `json:"subject"`
	Code      string          `json:"code"`
	Message   string          `json:"message"`
	Inputs    json.RawMessage `json:"inputs,omitempty"`
	RequestID string          `json:"request_id,omitempty"`
}

// Page is one page of a new resource's list; Next is the cursor of the following one, empty at the end.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// Problem is an RFC 9457 problem; Code is our machine-readable code, such as "superseded".
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Code   string `json:"code,omitempty"`
}
