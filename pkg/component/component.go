// Package component holds the nouns of the gold standard: what should run. It is pure.
package component

import (
	"strings"
	"time"
)

// ID identifies a SystemComponent.
type ID int64

// ExchangeID identifies a MessagingExchange.
type ExchangeID int64

// Type names a kind of service. Types are open; the seed's own are the constants below.
type Type string

// The seed's types. Deployer covers the services deployer and deployer-oa.
const (
	Manager              Type = "manager"
	Overseer             Type = "overseer"
	Notifications        Type = "notifications"
	WorkflowOrchestrator Type = "workflow_orchestrator"
	Builder              Type = "builder"
	Deployer             Type = "deployer"
	FleetManager         Type = "fleet_manager"
)

// Seed reports whether t is one of the seed's seven types: OpenAperture's own, upgraded by deployer-oa.
func (t Type) Seed() bool {
	switch t {
	case Manager, Overseer, Notifications, WorkflowOrchestrator, Builder, Deployer, FleetManager:
		return true
	default:
		return false
	}
}

// Strategy says whether a component is checked by itself.
type Strategy string

// The closed set of upgrade strategies.
const (
	Manual Strategy = "manual"
	Hourly Strategy = "hourly"
)

// Strategies lists all upgrade strategies.
var Strategies = []Strategy{Manual, Hourly}

// ProofKind says what proves that a version runs (docs/how-an-upgrade-works.md#proof).
type ProofKind string

// Modules: heartbeats that report the target. Units: the runtime's own verdict over the deploy.
const (
	ProofModules ProofKind = "modules"
	ProofUnits   ProofKind = "units"
)

// DefaultProof is the proof of a type that states none.
func DefaultProof(t Type) ProofKind {
	if t.Seed() {
		return ProofModules
	}
	return ProofUnits
}

// Ref is a SystemComponentRef: the gold standard of one type.
type Ref struct {
	Type               Type   `json:"type" db:"type"`
	SourceRepo         string `json:"source_repo" db:"source_repo"`
	SourceRepoGitRef   string `json:"source_repo_git_ref" db:"source_repo_git_ref"`
	AutoUpgradeEnabled bool   `json:"auto_upgrade_enabled" db:"auto_upgrade_enabled"`
	// Follow says whether a new commit behind the ref is an upgrade. nil: of a branch it is, of a tag it is not.
	Follow *bool `json:"follow,omitempty" db:"follow"`
}

// Equal reports whether two refs say the same.
func (r Ref) Equal(o Ref) bool {
	if (r.Follow == nil) != (o.Follow == nil) || r.Follow != nil && *r.Follow != *o.Follow {
		return false
	}
	r.Follow, o.Follow = nil, nil
	return r == o
}

// Follows reports whether a new commit behind the ref is an upgrade.
func (r Ref) Follows(kind RefKind) bool {
	if r.Follow != nil {
		return *r.Follow
	}
	return kind == Branch
}

// RefKind is what a git ref is.
type RefKind string

// The kinds of git refs. A commit is a ref that stands for itself.
const (
	Branch RefKind = "branch"
	Tag    RefKind = "tag"
	Commit RefKind = "commit"
)

// Tip is what a git host said last about a ref.
type Tip struct {
	Kind   RefKind `json:"kind,omitempty"`
	Commit string  `json:"commit,omitempty"` // for which the ref stands; "" if nobody knows it
	Error  string  `json:"error,omitempty"`  // why the host could not be asked the last time; Commit is then from before
}

// Component is a SystemComponent: what should run in one exchange. SourceRepo and its ref are the recorded,
// proven version; they change only together with a proof.
type Component struct {
	ID               ID         `json:"id" db:"id"`
	ExchangeID       ExchangeID `json:"messaging_exchange_id" db:"messaging_exchange_id"`
	Type             Type       `json:"type" db:"type"`
	SourceRepo       string     `json:"source_repo" db:"source_repo"`
	SourceRepoGitRef string     `json:"source_repo_git_ref" db:"source_repo_git_ref"`
	// The commits of the recorded version, "" where nobody knows them. Those of a deployer's two deployment repositories
	// are joined (upgrade.JoinCommits).
	SourceCommitHash     string `json:"source_commit_hash" db:"source_commit_hash"`
	DeploymentCommitHash string `json:"deployment_commit_hash,omitempty" db:"deployment_commit_hash"`
	DeploymentRepo       string `json:"deployment_repo" db:"deployment_repo"`
	DeploymentRepoGitRef string `json:"deployment_repo_git_ref" db:"deployment_repo_git_ref"`
	// FollowDeployment says that a new commit of the deployment repository alone is an upgrade.
	FollowDeployment bool       `json:"follow_deployment,omitempty" db:"follow_deployment"`
	Strategy         Strategy   `json:"upgrade_strategy" db:"upgrade_strategy"`
	Proof            ProofKind  `json:"proof" db:"proof"`
	Status           string     `json:"status" db:"status"`
	NextCheckAt      *time.Time `json:"next_check_at" db:"next_check_at"`
	LastVerdict      string     `json:"last_verdict" db:"last_verdict"` // code of the last automatic check
}

// Heard is when the instances of a component of which nothing is live were heard last. All times are of the database's
// clock.
type Heard struct {
	ComponentID ID `json:"component_id" db:"component_id"`
	// LastAt is the last heartbeat of any instance. A proof by heartbeats counts as one. nil: none is known.
	LastAt *time.Time `json:"last_at" db:"last_at"`
	// TriedAt is when the last upgrade to the recorded version ended that was completed or could not be proven
	// (eligibility.Tried).
	TriedAt *time.Time `json:"tried_at" db:"tried_at"`
	// CheckedAt is the last automatic check.
	CheckedAt *time.Time `json:"checked_at" db:"checked_at"`
}

// Blank reports whether s says nothing.
func Blank(s string) bool { return strings.TrimSpace(s) == "" }
