package engine_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/postgres"
	"github.com/openaperture/openaperture/pkg/times"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
	"github.com/openaperture/openaperture/services/manager-api/internal/presence"
	"github.com/openaperture/openaperture/services/manager-api/internal/registry"
)

// world is one exchange with a cluster, a leading overseer and components, on one connection.
type world struct {
	*db.DB
	*engine.Engine
	*presence.Presence
	*registry.Registry
	db       *postgres.DB
	times    times.Times
	exchange component.ExchangeID
	term     int64
}

func newWorld() *world { return newWorldWith(1, func(*times.Times) {}) }

// runs makes the manager-api of the spec one of another version.
func (w *world) runs(version string) {
	w.DB = db.New(db.Config{Pool: w.db, Times: w.times})
	w.Engine = engine.New(engine.Config{DB: w.DB, Times: w.times, Home: "here", Version: version})
	w.Presence = presence.New(w.DB, w.times)
	w.Registry = registry.New(w.DB, w.Engine, "here")
}

func newWorldWith(connections int, adjust func(*times.Times)) *world {
	GinkgoHelper()
	t, err := times.Named(times.Fast)
	Expect(err).NotTo(HaveOccurred())
	t.MinHealthy = 0
	adjust(&t)
	w := &world{db: database.Pool, times: t}
	if connections > 1 {
		w.db = database.Open(connections)
	}
	w.runs("v1")
	w.exchange = component.ExchangeID(w.insert(`INSERT INTO messaging_exchanges (name, routing_key_fragment, routing_key,
		root_exchange_name) VALUES ('here', 'here', 'here', 'here') RETURNING id`))
	w.insert(`INSERT INTO etcd_clusters (etcd_token, name, messaging_exchange_id, runtime, endpoint)
		VALUES ('Tok', 'c', $1, 'fleet', 'http://unitd') RETURNING id`, w.exchange)
	w.exec(`INSERT INTO ticks (name, ticked_at, present_since) VALUES ('sweeper', now(), now() - interval '1 day')`)
	w.term = w.lead("overseer-1", 0).Term
	w.lead("overseer-1", w.term) // from here on it covers
	return w
}

func (w *world) insert(sql string, args ...any) int64 {
	GinkgoHelper()
	var id int64
	Expect(w.db.Get(&id, sql, args...)).To(Succeed())
	return id
}

func (w *world) exec(sql string, args ...any) {
	GinkgoHelper()
	_, err := w.db.Exec(sql, args...)
	Expect(err).NotTo(HaveOccurred())
}

// value reads one text value; a missing row or NULL is "".
func (w *world) value(query string, args ...any) string {
	GinkgoHelper()
	var out []sql.NullString
	Expect(w.db.Select(&out, query, args...)).To(Succeed())
	if len(out) == 0 {
		return ""
	}
	return out[0].String
}

func (w *world) lead(holder string, term int64) managerapi.Lease {
	GinkgoHelper()
	l, err := w.Lead(ctx(), w.exchange, managerapi.LeaseRequest{Holder: holder, Term: term, TTLMS: 60_000, Covered: true})
	Expect(err).NotTo(HaveOccurred())
	return l
}

func ctx() context.Context { return context.Background() }

// component makes a component that runs version v1.
func (w *world) component(t component.Type) component.ID {
	GinkgoHelper()
	return component.ID(w.insert(`INSERT INTO system_components (messaging_exchange_id, type, source_repo,
		source_repo_git_ref, deployment_repo, deployment_repo_git_ref, upgrade_strategy, proof)
		VALUES ($1, $2, 'src', 'v1', 'https://git/deploy.git', 'master', 'hourly', $3)
		RETURNING id`, w.exchange, string(t), string(component.DefaultProof(t))))
}

// proven stores a proven release of v1.
func (w *world) proven(id component.ID, phase int) managerapi.Release {
	GinkgoHelper()
	r, err := w.Adopt(ctx(), managerapi.Release{ComponentID: id, Phase: phase, SourceRepo: "src", SourceRepoGitRef: "v1",
		EtcdToken: "tok",
		Units:     []messages.UnitDefinition{{Name: unitOf(phase) + "@.service"}}})
	Expect(err).NotTo(HaveOccurred())
	return r
}

func (w *world) request(id component.ID) managerapi.Upgrade {
	GinkgoHelper()
	u, _, err := w.RequestUpgrade(ctx(), managerapi.UpgradeRequest{ComponentID: id, RequestedBy: "alice"})
	Expect(err).NotTo(HaveOccurred())
	return u
}

var target = upgrade.Version{SourceRepo: "src", SourceRepoGitRef: "v2"}

// forced is a request with force: what is recorded is deployed again from its repository.
func (w *world) forced(id component.ID) managerapi.Upgrade {
	GinkgoHelper()
	u, _, err := w.RequestUpgrade(ctx(), managerapi.UpgradeRequest{ComponentID: id, RequestedBy: "alice", Force: true})
	Expect(err).NotTo(HaveOccurred())
	return u
}

func (w *world) judgement() managerapi.Judgement {
	return managerapi.Judgement{Term: w.term, Verdict: managerapi.Verdict{Code: "eligible", Message: "it is"},
		Target: target}
}

// started is an upgrade to v2 that runs.
func (w *world) started(id component.ID) upgrade.ID {
	GinkgoHelper()
	u := w.request(id)
	Expect(w.Start(ctx(), u.ID, w.exchange, w.judgement())).To(Succeed())
	return u.ID
}

// order is the newest order of an upgrade with this milestone.
func (w *world) order(id upgrade.ID, milestone string) string {
	GinkgoHelper()
	return w.value(`SELECT o.id FROM orders o JOIN workflows w ON w.id = o.workflow_id WHERE w.upgrade_id = $1
		AND o.milestone = $2 ORDER BY o.created_at DESC, o.id DESC LIMIT 1`, string(id), milestone)
}

func (w *world) claim(order, host string) managerapi.Claim {
	GinkgoHelper()
	v, _, err := w.OrderView(ctx(), order)
	Expect(err).NotTo(HaveOccurred())
	k, err := w.Claim(ctx(), order, w.exchange, managerapi.ClaimRequest{Attempt: v.Attempt, Hostname: host,
		BootID: host + "-boot"})
	Expect(err).NotTo(HaveOccurred())
	return k
}

// result is a completed result under a claim.
func result(k managerapi.Claim, with func(*messages.Result)) messages.Result {
	r := messages.Result{EventType: messages.EventMilestoneCompleted, OrderID: k.Order.OrderID,
		WorkflowID: k.Order.WorkflowID,
		Attempt:    k.Order.Attempt, Token: k.Token, At: time.Now().UTC()}
	with(&r)
	return r
}

func (w *world) tell(r messages.Result) engine.Applied {
	GinkgoHelper()
	applied, err := w.ApplyResult(ctx(), engine.Delivered{MessageID: uuid.NewString(),
		Queue: "here.workflow_orchestration"}, r)
	Expect(err).NotTo(HaveOccurred())
	return applied
}

func completed(r *messages.Result) {}

func configured(r *messages.Result) {
	r.EtcdToken, r.SourceCommitHash, r.DeploymentCommitHash = "TOK", "abc123", "def456"
	r.DeployableUnits = []messages.UnitDefinition{{Name: "x@.service",
		Options: []messages.Option{{Section: "Service", Name: "ExecStart", Value: "/bin/x"}}}}
}

func deployed(r *messages.Result) {
	r.Instances, r.Touched = 2, true
	r.Replaced = messages.Distinct([]messages.UnitDefinition{{Name: "x@1.service"}, {Name: "x@2.service"}})
}

func failed(cause messages.Cause, reason string, touched bool) func(*messages.Result) {
	return func(r *messages.Result) {
		r.EventType, r.Cause, r.Reason, r.Message, r.Touched = messages.EventMilestoneFailed, cause, reason,
			"it says "+reason, touched
	}
}

// runConfig completes the config milestone, runDeploy the deploy milestone.
func (w *world) runConfig(id upgrade.ID) {
	GinkgoHelper()
	Expect(w.tell(result(w.claim(w.order(id, "config"), "exec-1"), func(r *messages.Result) {
		configured(r)
		r.DeployableUnits[0].Name = unitOf(w.phase(id)) + "@.service"
	}))).To(Equal(engine.AppliedDone))
}

// unitOf is the base name of the units of a phase: a name has one owner.
func unitOf(phase int) string {
	if phase == 2 {
		return "y"
	}
	return "x"
}

func (w *world) phase(id upgrade.ID) int {
	GinkgoHelper()
	var phase int
	Expect(w.db.Get(&phase, `SELECT phase FROM upgrades WHERE id = $1`, string(id))).To(Succeed())
	return phase
}

func (w *world) runDeploy(id upgrade.ID, milestone string) managerapi.Claim {
	GinkgoHelper()
	k := w.claim(w.order(id, milestone), "exec-1")
	unit := unitOf(w.phase(id))
	Expect(w.tell(result(k, func(r *messages.Result) {
		deployed(r)
		r.Replaced[0].Names = []string{unit + "@1.service", unit + "@2.service"}
	}))).To(Equal(engine.AppliedDone))
	return k
}

// verifying is an upgrade whose deploy is done.
func (w *world) verifying(id component.ID) upgrade.ID {
	GinkgoHelper()
	u := w.started(id)
	w.runConfig(u)
	w.runDeploy(u, "deploy_oa")
	return u
}

var beats int64

// beat stores active beats of hosts that report a version.
func (w *world) beat(t component.Type, service, ref string, hosts ...string) {
	GinkgoHelper()
	list := make([]messages.ModuleStatus, len(hosts))
	for i, h := range hosts {
		beats++
		list[i] = messages.ModuleStatus{EventType: "status", Hostname: h, Type: string(t), Service: service, Status: "active",
			BootID: h + ref, Seq: beats,
			SourceRepo: "src", SourceRepoGitRef: ref}
	}
	n, err := w.Beat(ctx(), w.exchange, list)
	Expect(err).NotTo(HaveOccurred())
	Expect(n).To(Equal(len(hosts)))
}

// provenByUnits is a component whose first upgrade has completed: what that replaced was adopted, and what it brought
// was proven, in one transaction.
func (w *world) provenByUnits() component.ID {
	GinkgoHelper()
	c := w.component("billing")
	u := w.started(c)
	w.runConfig(u)
	w.runDeploy(u, "deploy")
	Expect(w.recorded(c)).To(Equal("v2 upgrade_completed"))
	return c
}

// shown is an upgrade as REST shows it.
func (w *world) shown(id upgrade.ID) managerapi.Upgrade {
	GinkgoHelper()
	u, err := w.Upgrade(ctx(), id)
	Expect(err).NotTo(HaveOccurred())
	return u
}

func (w *world) state(id upgrade.ID) upgrade.State { GinkgoHelper(); return w.shown(id).State }

// recorded is "ref status" of a component.
func (w *world) recorded(id component.ID) string {
	GinkgoHelper()
	return w.value(`SELECT source_repo_git_ref || ' ' || coalesce(status, '-') FROM system_components WHERE id = $1`, id)
}

// outboxed lists "queue type" of the messages that wait, oldest first.
func (w *world) outboxed() []string {
	GinkgoHelper()
	var out []string
	Expect(w.db.Select(&out, `SELECT queue || ' ' || type FROM outbox WHERE published_at IS NULL
		ORDER BY created_at, id`)).To(Succeed())
	return out
}

func (w *world) events() []string {
	GinkgoHelper()
	var out []string
	Expect(w.db.Select(&out, `SELECT type || ' ' || severity FROM system_events ORDER BY id`)).To(Succeed())
	return out
}

func (w *world) codes(subject string) []string {
	GinkgoHelper()
	var out []string
	Expect(w.db.Select(&out, `SELECT code FROM journal WHERE subject = $1 ORDER BY seq`, subject)).To(Succeed())
	return out
}

// lastSeq is the newest row of the journal.
func (w *world) lastSeq() (seq int64) {
	GinkgoHelper()
	Expect(w.db.Get(&seq, `SELECT coalesce(max(seq), 0) FROM journal`)).To(Succeed())
	return seq
}

// auditedSince lists the codes that GET /audit?after=<seq> shows.
func (w *world) auditedSince(seq int64) []string {
	GinkgoHelper()
	list, err := w.Journal(ctx(), db.JournalQuery{After: seq, Limit: 200})
	Expect(err).NotTo(HaveOccurred())
	codes := make([]string, len(list))
	for i, e := range list {
		codes[i] = e.Code
	}
	return codes
}

// auditedSubjects lists the subjects of the rows with this code, oldest first.
func (w *world) auditedSubjects(code string) []string {
	GinkgoHelper()
	var out []string
	Expect(w.db.Select(&out, `SELECT subject FROM journal WHERE code = $1 ORDER BY seq`, code)).To(Succeed())
	return out
}

// outOfTime leaves an upgrade without time, as if it had shown no progress.
func (w *world) outOfTime(id upgrade.ID) {
	GinkgoHelper()
	w.exec(`UPDATE upgrades SET clock_left = 1, clock_ticked_at = now() - interval '1 second' WHERE id = $1`, string(id))
	Expect(w.TickUpgrades(ctx(), []component.ExchangeID{w.exchange})).To(Succeed())
}

func order(raw string) messages.Order {
	GinkgoHelper()
	var o messages.Order
	Expect(json.Unmarshal([]byte(raw), &o)).To(Succeed())
	return o
}

func upgradeSubject(id upgrade.ID) string { return fmt.Sprintf("upgrade/%s", id) }
