package engine

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"

	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

// States of an order.
const (
	orderOpen      = "open"      // nobody works on it
	orderClaimed   = "claimed"   // somebody does, or did until his claim expired
	orderCompleted = "completed" // its result has been learned
	orderFailed    = "failed"
	orderClosed    = "closed" // nobody wants its result any more
)

// orderRow is one row of orders.
type orderRow struct {
	ID         string               `db:"id"`
	WorkflowID string               `db:"workflow_id"`
	ExchangeID component.ExchangeID `db:"messaging_exchange_id"`
	Queue      messages.Queue       `db:"queue"`
	Milestone  messages.Milestone   `db:"milestone"`
	State      string               `db:"state"`
	Attempt    int                  `db:"attempt"`
	Token      int64                `db:"token"`
	TakenOver  bool                 `db:"taken_over"` // another host had it before
	Body       json.RawMessage      `db:"body"`
	Deadline   time.Time            `db:"deadline"`
	// Capabilities are what the executor announced that claimed the order last.
	Capabilities pq.StringArray `db:"capabilities"`
	Now          time.Time      `db:"now"`
}

const orderColumns = `id, workflow_id, messaging_exchange_id, queue, milestone, state, attempt, token, taken_over,
	capabilities, body,
	deadline, clock_timestamp() AS now`

func (o orderRow) ended() bool { return o.State != orderOpen && o.State != orderClaimed }

func (o orderRow) lease() string { return leaseOfOrder(o.ID) }

// ordersLease is leaseOfOrder in SQL, of the orders o.
const ordersLease = `'order/' || o.id`

// heldClaim is, in SQL, whether an executor works on the order o: l is its lease.
const heldClaim = `l.name = ` + ordersLease + ` AND o.state = 'claimed' AND l.holder <> '' AND l.expires_at > now()`

// outside says that the order is for modules that others run: they need no claim.
func (o orderRow) outside() bool { return o.Milestone == messages.MilestoneBuild }

func leaseOfOrder(id string) string { return "order/" + id }

func lockOrder(ctx context.Context, tx *sqlx.Tx, id string) (*orderRow, error) {
	var o orderRow
	err := tx.GetContext(ctx, &o, `SELECT `+orderColumns+` FROM orders WHERE id = $1 FOR UPDATE`, id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.New(fault.NotFound, "there is no order %s", id)
	}
	if err != nil {
		return nil, fmt.Errorf("read order %s: %w", id, err)
	}
	return &o, nil
}

// message is the order as it is sent: the row's truth.
func (o orderRow) message() (messages.Order, error) {
	var m messages.Order
	if err := json.Unmarshal(o.Body, &m); err != nil {
		return m, fmt.Errorf("decode order %s: %w", o.ID, err)
	}
	m.Attempt, m.Deadline = o.Attempt, o.Deadline.UTC()
	return m, nil
}

// baseOrder is what every order of a workflow says.
func (s *Engine) baseOrder(w *workflowRow, m messages.Milestone) messages.Order {
	o := messages.Order{WorkflowID: w.ID, Attempt: 1, CurrentStep: m, Milestones: w.milestones(),
		MinHealthyMS: s.times.MinHealthy.Milliseconds(), HealthDeadlineMS: s.times.HealthDeadline.Milliseconds(),
		ProgressDeadlineMS: s.times.ProgressDeadline.Milliseconds(), ComponentType: string(w.ComponentType),
		DeploymentRepo: w.DeploymentRepo, DeploymentRepoGitRef: w.DeploymentRepoGitRef, SourceRepo: w.SourceRepo,
		SourceRepoGitRef: w.SourceRepoGitRef}
	if w.ExchangeID != nil {
		o.MessagingExchangeID = int64(*w.ExchangeID)
	}
	if len(w.ExecuteOptions) > 0 && string(w.ExecuteOptions) != "null" {
		o.ExecuteOptions = w.ExecuteOptions
	}
	return o
}

// sendOrder sends the order of a milestone to the workflow's executor. A failure says why there can be none.
func (s *Engine) sendOrder(ctx context.Context, tx *sqlx.Tx, w *workflowRow, m messages.Milestone) (*failure, error) {
	o := s.baseOrder(w, m)
	switch m {
	case messages.MilestoneConfig:
		if err := withPlanned(ctx, tx, w, &o); err != nil {
			return nil, err
		}
	case messages.MilestoneDeploy, messages.MilestoneDeployOA:
		failed, err := withRelease(ctx, tx, w, &o)
		if failed != nil || err != nil {
			return failed, err
		}
	case messages.MilestoneBuild:
		return nil, s.storeBuild(ctx, tx, w, o)
	case messages.MilestoneSchedule:
		if w.ScheduledAt == nil {
			return refused("schedule_missing", "the milestone scheduled needs a scheduled_start_time"), nil
		}
		return nil, nil // StartScheduled goes on at that time
	case messages.MilestoneProbe, messages.MilestoneResolve:
		return refused("milestone_unknown", "a workflow cannot ask for a %s", m), nil
	default:
		return refused("milestone_unknown",
			"no executor knows the milestone %q: use scheduled, config, build, deploy or deploy_oa", m), nil
	}
	err := s.storeOrder(ctx, tx, w, queueOf(w.Executor), o)
	if fault.Is(err, fault.TooLarge) {
		return refused("unit_invalid", "%s", fault.Public(err).Message), nil
	}
	return nil, err
}

// withPlanned adds the commits that config must render. An executor of the former release ignores them.
func withPlanned(ctx context.Context, tx *sqlx.Tx, w *workflowRow, o *messages.Order) error {
	if w.UpgradeID == nil {
		return nil
	}
	row, err := readUpgrade(ctx, tx, *w.UpgradeID)
	if err != nil {
		return err
	}
	planned := row.planned(w.Phase)
	o.SourceCommitHash, o.DeploymentCommitHash = planned.SourceCommitHash, planned.DeploymentCommitHash
	return nil
}

// storeBuild sends an order to the modules that others run on the queue builder. They need no claim: the order carries
// the token of its result. If none comes until the deadline, the workflow has failed.
func (s *Engine) storeBuild(ctx context.Context, tx *sqlx.Tx, w *workflowRow, o messages.Order) error {
	if err := tx.GetContext(ctx, &o.Token, `SELECT nextval('lease_tokens')`); err != nil {
		return fmt.Errorf("draw the token of order %s: %w", o.OrderID, err)
	}
	return s.storeOrder(ctx, tx, w, messages.QueueBuilder, o)
}

// withRelease adds what a deploy milestone deploys and where: the cluster must be the exchange's own.
func withRelease(ctx context.Context, tx *sqlx.Tx, w *workflowRow, o *messages.Order) (*failure, error) {
	if w.ReleaseID == nil {
		return refused("no_units", "the workflow has no config milestone before %s, so there is nothing to deploy",
			o.CurrentStep), nil
	}
	r, err := releaseByID(ctx, tx, *w.ReleaseID)
	if err != nil {
		return nil, err
	}
	cluster, failed, err := clusterOf(ctx, tx, r.EtcdToken, w.ExchangeID)
	if failed != nil || err != nil {
		return failed, err
	}
	o.EtcdToken, o.Cluster, o.FleetConfig = r.EtcdToken, cluster, &messages.FleetConfig{InstanceCount: r.Instances}
	if err := json.Unmarshal(r.Units, &o.DeployableUnits); err != nil {
		return nil, fmt.Errorf("decode units of release %s: %w", r.ID, err)
	}
	if r.ComponentID == nil {
		return nil, nil
	}
	known, err := provenRelease(ctx, tx, *r.ComponentID, r.Phase)
	if err != nil {
		return nil, err
	}
	o.ReplacedKnown = known != nil
	o.SourceCommitHash, o.DeploymentCommitHash = r.SourceCommitHash, r.DeploymentCommitHash
	if o.Recorded, err = recordedOf(ctx, tx, *r.ComponentID, known); err != nil {
		return nil, err
	}
	o.LeavingUnits, err = leavingUnits(ctx, tx, w, r, o.DeployableUnits)
	return nil, err
}

// recordedOf is the recorded version of a component, nil without one. The commit is that of the proven release, if the
// release is of that version.
func recordedOf(ctx context.Context, tx *sqlx.Tx, id component.ID, proven *releaseRow) (*messages.Version, error) {
	var at struct {
		Repo string `db:"source_repo"`
		Ref  string `db:"source_repo_git_ref"`
	}
	err := tx.GetContext(ctx, &at, `SELECT source_repo, source_repo_git_ref FROM system_components WHERE id = $1`, id)
	if err != nil {
		return nil, fmt.Errorf("read recorded version of component %d: %w", id, err)
	}
	if component.Blank(at.Ref) {
		return nil, nil
	}
	v := &messages.Version{SourceRepoGitRef: at.Ref}
	if proven != nil && proven.SourceRepo == at.Repo && proven.SourceRepoGitRef == at.Ref {
		v.SourceCommitHash = proven.SourceCommitHash
	}
	return v, nil
}

// clusterOf finds the cluster that a release is for; a cluster of another exchange fails the workflow.
func clusterOf(ctx context.Context, tx *sqlx.Tx, token string,
	ex *component.ExchangeID) (*messages.Cluster, *failure, error) {
	var c struct {
		Token    string                `db:"etcd_token"`
		Exchange *component.ExchangeID `db:"messaging_exchange_id"`
		Runtime  string                `db:"runtime"`
		Endpoint string                `db:"endpoint"`
	}
	err := tx.GetContext(ctx, &c, `SELECT etcd_token, messaging_exchange_id, runtime, endpoint FROM etcd_clusters
		WHERE lower(etcd_token) = lower($1)`, token)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, refused("cluster_unknown", "no cluster has the etcd token %q: POST /clusters registers it", token),
			nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read cluster %q: %w", token, err)
	}
	if c.Exchange == nil || ex == nil || *c.Exchange != *ex {
		return nil, refused("cluster_not_here",
			"the cluster %q belongs to %s, not to %s: correct etcd.json in the deployment repository, or "+
				"messaging_exchange_id by PUT /clusters/%s",
			token, exchangeOrNone(c.Exchange), exchangeOrNone(ex), token), nil
	}
	return &messages.Cluster{EtcdToken: c.Token, Runtime: c.Runtime, Endpoint: c.Endpoint}, nil, nil
}

func exchangeOrNone(id *component.ExchangeID) string {
	if id == nil {
		return "no exchange"
	}
	return fmt.Sprintf("exchange %d", *id)
}

// queueOf is the queue of an executor.
func queueOf(e upgrade.Executor) messages.Queue {
	if e == upgrade.ExecDeployOA {
		return messages.QueueDeployOA
	}
	return messages.QueueDeployer
}

// storeOrder stores an order and puts its message into the outbox.
func (s *Engine) storeOrder(ctx context.Context, tx *sqlx.Tx, w *workflowRow, to messages.Queue,
	o messages.Order) error {
	if w.ExchangeID == nil {
		return fault.New(fault.Conflict, "the exchange of workflow %s is gone", w.ID).WithCode("no_exchange")
	}
	var err error
	if o.OrderID, err = db.NewID(ctx, tx); err != nil {
		return err
	}
	o.Deadline = w.Now.Add(s.times.OrderDeadline).UTC()
	body, err := db.JSONText(o)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO orders
		(id, workflow_id, messaging_exchange_id, queue, milestone, state, attempt, token, body, deadline)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`, o.OrderID, w.ID, *w.ExchangeID, string(to), string(o.CurrentStep),
		orderOpen, o.Attempt, o.Token, body, o.Deadline)
	if err != nil {
		return fmt.Errorf("create order for %s: %w", o.CurrentStep, err)
	}
	return db.Enqueue(ctx, tx, orderMessage(*w.ExchangeID, to, o))
}

func orderMessage(ex component.ExchangeID, q messages.Queue, o messages.Order) db.NewMessage {
	return db.NewMessage{ExchangeID: ex, Queue: q, Type: messages.TypeMilestoneOrder, CorrelationID: o.WorkflowID,
		OrderID: o.OrderID, Body: o}
}

// resendOrder sends an order again, as it stands, under a new message id.
func resendOrder(ctx context.Context, tx *sqlx.Tx, o *orderRow) error {
	m, err := o.message()
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE orders SET confirmed_at = NULL WHERE id = $1`, o.ID); err != nil {
		return fmt.Errorf("send order %s again: %w", o.ID, err)
	}
	again := orderMessage(o.ExchangeID, o.Queue, m)
	again.Again = true
	return db.Enqueue(ctx, tx, again)
}

// endOrder records that an order is over and ends its claim.
func endOrder(ctx context.Context, tx *sqlx.Tx, o *orderRow, state string, result any) error {
	text, err := db.JSONText(result)
	if err != nil {
		return err
	}
	o.State = state
	if _, err := tx.ExecContext(ctx, `UPDATE orders SET state = $2, result = $3, ended_at = now() WHERE id = $1`, o.ID,
		state, text); err != nil {
		return fmt.Errorf("end order %s: %w", o.ID, err)
	}
	return dropLeases(ctx, tx, []string{o.lease()})
}

// closeOrders closes what is still wanted of a workflow and ends its claims, so that renewals answer "superseded".
func closeOrders(ctx context.Context, tx *sqlx.Tx, workflowID string) error {
	var ids []string
	err := tx.SelectContext(ctx, &ids, `UPDATE orders SET state = 'closed', ended_at = now() WHERE workflow_id = $1
		AND state IN ('open', 'claimed') RETURNING id`, workflowID)
	if err != nil {
		return fmt.Errorf("close orders of workflow %s: %w", workflowID, err)
	}
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = leaseOfOrder(id)
	}
	return dropLeases(ctx, tx, names)
}

// OrderView shows an order. Body says whether to include the order itself.
func (s *Engine) OrderView(ctx context.Context, id string) (managerapi.OrderView, component.ExchangeID, error) {
	var rows []orderViewRow
	err := s.db.View(ctx, func(tx *sqlx.Tx) error {
		rows = nil
		return tx.SelectContext(ctx, &rows, viewSQL("$2")+` WHERE o.id = $1`, id,
			s.times.LiveWithin.Milliseconds())
	})
	if err != nil {
		return managerapi.OrderView{}, 0, fmt.Errorf("show order %s: %w", id, err)
	}
	if len(rows) == 0 {
		return managerapi.OrderView{}, 0, fault.New(fault.NotFound, "there is no order %s", id)
	}
	v, err := rows[0].wire(s.tickWithin())
	return v, rows[0].ExchangeID, err
}

// ClaimsOf lists the orders that a hostname of an exchange has claimed and that have not ended, oldest first. 0 is any
// exchange.
func (s *Engine) ClaimsOf(ctx context.Context, hostname string,
	ex component.ExchangeID) ([]managerapi.OrderView, error) {
	var rows []orderViewRow
	err := s.db.View(ctx, func(tx *sqlx.Tx) error {
		rows = nil
		return tx.SelectContext(ctx, &rows, viewSQL("$3")+` WHERE l.holder = $1 AND o.state IN ('open', 'claimed')
			AND ($2 = 0 OR o.messaging_exchange_id = $2) ORDER BY o.id`, hostname, ex,
			s.times.LiveWithin.Milliseconds())
	})
	if err != nil {
		return nil, fmt.Errorf("list claims of %s: %w", hostname, err)
	}
	out := make([]managerapi.OrderView, 0, len(rows))
	for _, r := range rows {
		v, err := r.wire(s.tickWithin())
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// orderViewRow is an order with the facts for upgrade.Work.
type orderViewRow struct {
	orderRow
	Holder    string         `db:"holder"`
	Phase     int            `db:"phase"`
	Restoring bool           `db:"restoring"`
	Upgrade   *upgrade.State `db:"upgrade_state"` // nil: the workflow belongs to no upgrade
	At        int            `db:"upgrade_phase"`
	Step      upgrade.Step   `db:"upgrade_step"`
	TickedAt  *time.Time     `db:"clock_ticked_at"`
	Stalled   int64          `db:"clock_stalled"`
	Judge     bool           `db:"judge"`
}

// viewSQL reads orders o with the facts for upgrade.Work. live is the placeholder of live_within in milliseconds.
func viewSQL(live string) string {
	return `SELECT o.id, o.workflow_id, o.messaging_exchange_id, o.queue, o.milestone, o.state, o.attempt, o.token,
		o.body, o.deadline, now() AS now, coalesce(l.holder, '') AS holder, w.phase, w.restoring,
		u.state AS upgrade_state, coalesce(u.phase, 0) AS upgrade_phase, coalesce(u.step, '') AS upgrade_step,
		u.clock_ticked_at, coalesce(u.clock_stalled, 0) AS clock_stalled,
		` + db.LeaderCovers("u.messaging_exchange_id", live) + ` AS judge
	FROM orders o
	JOIN workflows w ON w.id = o.workflow_id
	LEFT JOIN upgrades u ON u.id = w.upgrade_id
	LEFT JOIN leases l ON l.name = ` + ordersLease
}

// tickWithin is how long after its last move a clock counts as kept: three times the gap that is an absence.
func (s *Engine) tickWithin() time.Duration { return 3 * s.times.TickGap }

func (r orderViewRow) work() upgrade.Work {
	w := upgrade.Work{Ended: r.ended(), Phase: r.Phase, Restoring: r.Restoring}
	if r.Upgrade == nil {
		return w
	}
	w.HasUpgrade, w.State, w.At, w.Step, w.Judge = true, *r.Upgrade, r.At, r.Step, r.Judge
	w.Clock.Stalled = time.Duration(r.Stalled) * time.Millisecond
	if r.TickedAt != nil {
		w.Clock.TickedAt = *r.TickedAt
	}
	return w
}

func (r orderViewRow) wire(tickWithin time.Duration) (managerapi.OrderView, error) {
	m, err := r.message()
	if err != nil {
		return managerapi.OrderView{}, err
	}
	return managerapi.OrderView{ID: r.ID, WorkflowID: r.WorkflowID, Milestone: r.Milestone, State: r.State,
		Settled: r.work().Settled(), Watched: r.work().Watched(r.Now, tickWithin),
		Attempt: r.Attempt, Holder: r.Holder, Token: r.Token, Order: &m}, nil
}
