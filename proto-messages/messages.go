// Package messages is the wire contract between the services of OpenAperture: what travels over RabbitMQ,
// as JSON, one struct per message (docs/messaging.md#messages). It imports nothing of ours. The JSON Schemas under
// schemas/ and the examples under examples/ are proven equal to these structs by the specs.
package messages

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// AMQP message types, carried in the property `type`.
const (
	TypeModuleStatus    = "module_status"
	TypeUpgradeRequest  = "upgrade_request"
	TypeChanged         = "changed"
	TypeMilestoneOrder  = "milestone_order"
	TypeMilestoneResult = "milestone_result"
)

// EventStatus is the only event type of a heartbeat.
const EventStatus = "status"

// Module statuses.
const (
	StatusActive   = "active"
	StatusInactive = "inactive"
)

// ModuleStatus is a heartbeat. Version fields that are empty keep what is known of the module.
type ModuleStatus struct {
	EventType            string          `json:"event_type"`
	Hostname             string          `json:"hostname"`
	Type                 string          `json:"type"`
	Status               string          `json:"status"`
	Service              string          `json:"service,omitempty"`
	BootID               string          `json:"boot_id,omitempty"`
	Seq                  int64           `json:"seq,omitempty"`
	Workload             json.RawMessage `json:"workload,omitempty"`
	SourceRepo           string          `json:"source_repo,omitempty"`
	SourceRepoGitRef     string          `json:"source_repo_git_ref,omitempty"`
	DeploymentRepo       string          `json:"deployment_repo,omitempty"`
	DeploymentRepoGitRef string          `json:"deployment_repo_git_ref,omitempty"`
	StartedAt            *time.Time      `json:"started_at,omitempty"`
	SentAt               *time.Time      `json:"sent_at,omitempty"`
}

// Actions of a message to the overseer.
const (
	ActionUpgradeRequest = "upgrade_request"
	ActionChanged        = "changed"
)

// OverseerMessage is an upgrade request or a change: both only wake the overseer's pass.
type OverseerMessage struct {
	Action  string          `json:"action"`
	Options OverseerOptions `json:"options"`
}

// OverseerOptions belong to an OverseerMessage; component_type is required for an upgrade request.
type OverseerOptions struct {
	ComponentType string `json:"component_type,omitempty"`
	ComponentID   int64  `json:"component_id,omitempty"`
	UpgradeID     string `json:"upgrade_id,omitempty"`
	RequestedBy   string `json:"requested_by,omitempty"`
	Reason        string `json:"reason,omitempty"`
	RequestID     string `json:"request_id,omitempty"`
}

// Milestone is one step of a workflow.
type Milestone string

// The milestones that executors know.
const (
	MilestoneConfig   Milestone = "config"    // fetch, render and validate; yields a release
	MilestoneDeploy   Milestone = "deploy"    // roll through the instances, by a deployer
	MilestoneDeployOA Milestone = "deploy_oa" // the same, by a deployer-oa
	MilestoneProbe    Milestone = "probe"     // do nothing, but answer: proves that an executor hears
	// ask git hosts which commits refs stand for; only for executors that announce it
	MilestoneResolve  Milestone = "resolve"
	MilestoneBuild    Milestone = "build"     // for modules that others run, on the queue builder
	MilestoneSchedule Milestone = "scheduled" // wait for the workflow's scheduled_start_time; no executor takes part
)

// Option is one line of a unit file: its section, name and value.
type Option struct {
	Section string `json:"section"`
	Name    string `json:"name"`
	Value   string `json:"value"`
}

// UnitDefinition is a rendered unit, in Fleet's shape. Its name is a template ("manager@.service") in an
// order and an instance ("manager@1.service") where it describes what ran.
type UnitDefinition struct {
	Name    string   `json:"name"`
	Options []Option `json:"options"`
}

// Order is a milestone order: one milestone of one workflow for one executor. The row in manager-api is the
// truth; the message is its doorbell with a copy. Durations are in milliseconds.
type Order struct {
	OrderID              string           `json:"order_id"`
	WorkflowID           string           `json:"workflow_id"`
	Attempt              int              `json:"attempt"`
	CurrentStep          Milestone        `json:"current_step"`
	Milestones           []Milestone      `json:"milestones"`
	Deadline             time.Time        `json:"deadline"`
	MinHealthyMS         int64            `json:"min_healthy"`
	HealthDeadlineMS     int64            `json:"health_deadline"`
	ProgressDeadlineMS   int64            `json:"progress_deadline"`
	ComponentType        string           `json:"component_type"`
	MessagingExchangeID  int64            `json:"messaging_exchange_id"`
	DeploymentRepo       string           `json:"deployment_repo"`
	DeploymentRepoGitRef string           `json:"deployment_repo_git_ref"`
	SourceRepo           string           `json:"source_repo"`
	SourceRepoGitRef     string           `json:"source_repo_git_ref"`
	EtcdToken            string           `json:"etcd_token,omitempty"`
	Cluster              *Cluster         `json:"cluster,omitempty"`
	DeployableUnits      []UnitDefinition `json:"deployable_units,omitempty"`
	// names of units of former releases that are not in this one
	LeavingUnits []string     `json:"leaving_units,omitempty"`
	FleetConfig  *FleetConfig `json:"fleet_config,omitempty"`
	// there is a release to return to: the result need not say what the deploy replaced
	ReplacedKnown  bool            `json:"replaced_known,omitempty"`
	ExecuteOptions json.RawMessage `json:"execute_options,omitempty"`
	// Of a deploy milestone: the commits behind the two refs, "" if nobody knows them. The executor writes ref and source
	// commit into every definition, so that another version is another definition. Of a config milestone: the commits that
	// were planned, which are rendered or nothing; "" is what the ref stands for.
	SourceCommitHash     string `json:"source_commit_hash,omitempty"`
	DeploymentCommitHash string `json:"deployment_commit_hash,omitempty"`
	// Recorded is the component's recorded version. A running definition that carries no version counts as this one.
	Recorded *Version `json:"recorded,omitempty"`
	// Token is the token under which the result of a build order counts: a build order needs no claim. Other orders carry
	// none, their token comes with the claim.
	Token int64 `json:"token,omitempty"`
	// Resolve are the refs of a resolve milestone.
	Resolve []GitRef `json:"resolve,omitempty"`
}

// Version is a version of a component: the ref, and the full commit behind the ref as far as that is known.
type Version struct {
	SourceRepoGitRef string `json:"source_repo_git_ref"`
	SourceCommitHash string `json:"source_commit_hash,omitempty"`
}

// GitRef is a ref of a repository.
type GitRef struct {
	Repo string `json:"repo"`
	Ref  string `json:"ref"`
}

// Cluster says where a deploy milestone deploys. It is filled by manager-api from the cluster row that the
// release's etcd_token names.
type Cluster struct {
	EtcdToken string `json:"etcd_token"`
	Runtime   string `json:"runtime"`
	Endpoint  string `json:"endpoint"`
}

// FleetConfig is fleet.json of a deployment repository; nil InstanceCount means one per machine.
type FleetConfig struct {
	InstanceCount *int `json:"instance_cnt,omitempty"`
}

// Event types of a milestone result.
const (
	EventMilestoneProgress  = "milestone_progress"
	EventMilestoneCompleted = "milestone_completed"
	EventMilestoneFailed    = "milestone_failed"
)

// Cause says why something failed, and so whether a version is to blame (docs/how-an-upgrade-works.md#failure).
type Cause string

// The three causes.
const (
	CauseVersion     Cause = "version"
	CauseEnvironment Cause = "environment"
	CauseOperator    Cause = "operator"
)

// Result is what an executor reports about an order. A failed one carries cause and reason.
type Result struct {
	EventType  string    `json:"event_type"`
	OrderID    string    `json:"order_id"`
	WorkflowID string    `json:"workflow_id"`
	Attempt    int       `json:"attempt"`
	Token      int64     `json:"token"`
	At         time.Time `json:"at"`

	Cause   Cause  `json:"cause,omitempty"`
	Reason  string `json:"reason,omitempty"`  // enumerated, snake_case
	Message string `json:"message,omitempty"` // one sentence that says what to do
	Log     string `json:"log,omitempty"`     // end of the failing instance's log, of its last start; lines

	// Of a completed config milestone: the release.
	EtcdToken            string           `json:"etcd_token,omitempty"`
	DeployableUnits      []UnitDefinition `json:"deployable_units,omitempty"`
	FleetConfig          *FleetConfig     `json:"fleet_config,omitempty"`
	SourceCommitHash     string           `json:"source_commit_hash,omitempty"`
	DeploymentCommitHash string           `json:"deployment_commit_hash,omitempty"`

	// Of a deploy milestone, completed or failed.
	Instances int        `json:"instances,omitempty"` // how many instances run after it
	Touched   bool       `json:"touched,omitempty"`   // whether any instance was changed
	Restored  bool       `json:"restored,omitempty"`  // whether the failing instance was put back and got healthy
	Undone    bool       `json:"undone,omitempty"`    // a confirmed deploy was taken back, because its order stayed open
	Replaced  []Replaced `json:"replaced,omitempty"`  // what this order found, each definition once; none if ReplacedKnown
	Steps     []Step     `json:"steps,omitempty"`     // where the time went
	Deployed  []Deployed `json:"deployed,omitempty"`  // the instances that a completed deploy left running

	Resolved []Resolved `json:"resolved,omitempty"` // of a completed resolve milestone
}

// Deployed is one instance that a deploy left running. A proof demands beats from these instances.
type Deployed struct {
	Host string `json:"host"` // the machine, in the cluster's words
	Unit string `json:"unit"` // manager@1.service
	// Hostname is the name under which the instance will beat; "" if the definition does not tell.
	Hostname string `json:"hostname,omitempty"`
	// Applied says that this order started the instance anew; false: the instance already ran the target.
	Applied bool `json:"applied,omitempty"`
}

// Resolved is what a git host said about one ref. Exactly one of Commit and Error is set.
type Resolved struct {
	Repo   string `json:"repo"`
	Ref    string `json:"ref"`
	Kind   string `json:"kind,omitempty"`   // branch, tag or commit
	Commit string `json:"commit,omitempty"` // full hash
	Error  string `json:"error,omitempty"`  // for people
}

// Kinds of refs.
const (
	RefBranch = "branch"
	RefTag    = "tag"
	RefCommit = "commit"
)

// Replaced is one definition that an order found, and the instances that had it.
type Replaced struct {
	Names   []string `json:"names"`
	Options []Option `json:"options"`
}

// Distinct names each definition once, in the order of the first instances that have them.
func Distinct(found []UnitDefinition) []Replaced {
	var out []Replaced
	for _, u := range found {
		i := slices.IndexFunc(out, func(r Replaced) bool { return slices.Equal(r.Options, u.Options) })
		if i < 0 {
			i, out = len(out), append(out, Replaced{Options: u.Options})
		}
		out[i].Names = append(out[i].Names, u.Name)
	}
	return out
}

// ReplacedUnits is what the order found, per instance, sorted by name.
func (r Result) ReplacedUnits() []UnitDefinition {
	var out []UnitDefinition
	for _, d := range r.Replaced {
		for _, name := range d.Names {
			out = append(out, UnitDefinition{Name: name, Options: d.Options})
		}
	}
	slices.SortFunc(out, func(a, b UnitDefinition) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Step is one timed action of an executor, for the table of where the time goes.
type Step struct {
	Name string `json:"name"`
	MS   int64  `json:"ms"`
}
