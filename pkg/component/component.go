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
}

// Component is a SystemComponent: what should run in one exchange. SourceRepo and its ref are the recorded,
// proven version; they change only together with a proof.
type Component struct {
	ID               ID         `json:"id" db:"id"`
	ExchangeID       ExchangeID `json:"messaging_exchange_id" db:"messaging_exchange_id"`
	Type             Type       `json:"type" db:"type"`
	SourceRepo       string     `json:"source_repo" db:"source_repo"`
	SourceRepoGitRef string     `json:"source_repo_git_ref" db:"source_repo_git_ref"`
	// SourceCommitHash is the commit of the recorded version; "" if nobody knows it.
	SourceCommitHash     string     `json:"source_commit_hash" db:"source_commit_hash"`
	DeploymentRepo       string     `json:"deployment_repo" db:"deployment_repo"`
	DeploymentRepoGitRef string     `json:"deployment_repo_git_ref" db:"deployment_repo_git_ref"`
	Strategy             Strategy   `json:"upgrade_strategy" db:"upgrade_strategy"`
	Proof                ProofKind  `json:"proof" db:"proof"`
	Status               string     `json:"status" db:"status"`
	NextCheckAt          *time.Time `json:"next_check_at" db:"next_check_at"`
	LastVerdict          string     `json:"last_verdict" db:"last_verdict"` // code of the last automatic check
}

// Blank reports whether s says nothing.
func Blank(s string) bool { return strings.TrimSpace(s) == "" }
