package presence

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/postgres"

	messages "github.com/openaperture/openaperture/proto-messages"
)

// batchSQL stores a batch of heartbeats. A module that is known is updated in place and keeps its id. A module that is
// not known is inserted. The two parts are separate because INSERT … ON CONFLICT draws an id for every row, also for
// the rows that exist: 3,300 heartbeats a second would use up a sequence of 32 bits in a week.
//
// Of the same boot, a beat that leaves a version field out keeps the known value. Another boot may be of another
// version. (Beats that state no boot count as one boot.) These beats change nothing: a beat of the same boot with a
// sequence number that was seen before; and a beat of a boot that was started before the known one, if the known one
// was first heard a moment ago, because the queue gave such a beat out once more. (Later the host's clock is to blame.)
// boot_since restarts with the boot. steady_since restarts with boot, status or version.
//
// The result is how many rows were updated, how many were inserted, and how many were missing. If fewer were inserted
// than were missing, another batch has inserted the same hosts meanwhile.
const batchSQL = `
WITH b AS (
	SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[], $9::text[],
		$10::text[], $11::text[], $12::text[], $13::timestamptz[])
	AS b (hostname, type, service, status, boot_id, seq, workload, source_repo, source_repo_git_ref,
		deployment_repo, deployment_repo_git_ref, started_at)
), known AS (
	SELECT m.id, m.hostname FROM messaging_exchange_modules m
	WHERE m.messaging_exchange_id = $1 AND m.hostname = ANY($2::text[]) ORDER BY m.hostname FOR UPDATE
), updated AS (
	UPDATE messaging_exchange_modules AS m SET
		type = b.type,
		service = b.service,
		status = b.status,
		boot_id = b.boot_id,
		seq = b.seq,
		workload = coalesce(b.workload, '[]')::jsonb,
		source_repo = CASE WHEN m.boot_id <> b.boot_id OR b.source_repo <> ''
			THEN b.source_repo ELSE m.source_repo END,
		source_repo_git_ref = CASE WHEN m.boot_id <> b.boot_id OR b.source_repo_git_ref <> ''
			THEN b.source_repo_git_ref ELSE m.source_repo_git_ref END,
		deployment_repo = CASE WHEN m.boot_id <> b.boot_id OR b.deployment_repo <> ''
			THEN b.deployment_repo ELSE m.deployment_repo END,
		deployment_repo_git_ref = CASE WHEN m.boot_id <> b.boot_id OR b.deployment_repo_git_ref <> ''
			THEN b.deployment_repo_git_ref ELSE m.deployment_repo_git_ref END,
		started_at = CASE WHEN m.boot_id <> b.boot_id
			THEN b.started_at ELSE coalesce(b.started_at, m.started_at) END,
		boot_since = CASE WHEN m.boot_id = b.boot_id THEN m.boot_since ELSE now() END,
		steady_since = CASE WHEN m.boot_id = b.boot_id AND m.status = b.status
			AND b.source_repo_git_ref IN ('', m.source_repo_git_ref) THEN m.steady_since ELSE now() END,
		updated_at = now()
	FROM b JOIN known k ON k.hostname = b.hostname
	WHERE m.id = k.id AND CASE WHEN m.boot_id = b.boot_id THEN b.seq = 0 OR b.seq > m.seq
		ELSE NOT coalesce(b.started_at < m.started_at AND m.boot_since > now() - interval '2 minutes', false) END
	RETURNING 1
), missing AS (
	SELECT * FROM b WHERE NOT EXISTS (SELECT 1 FROM messaging_exchange_modules m
		WHERE m.messaging_exchange_id = $1 AND m.hostname = b.hostname)
), inserted AS (
	INSERT INTO messaging_exchange_modules (messaging_exchange_id, hostname, type, service, status, boot_id, seq,
		workload, source_repo, source_repo_git_ref, deployment_repo, deployment_repo_git_ref, started_at)
	SELECT $1, hostname, type, service, status, boot_id, seq, coalesce(workload, '[]')::jsonb,
		source_repo, source_repo_git_ref, deployment_repo, deployment_repo_git_ref, started_at
	FROM missing ORDER BY hostname
	ON CONFLICT ON CONSTRAINT messaging_exchange_modules_hostname_key DO NOTHING
	RETURNING 1
)
SELECT (SELECT count(*) FROM updated) AS updated, (SELECT count(*) FROM inserted) AS inserted,
	(SELECT count(*) FROM missing) AS missing`

// batchCounts is what one run of batchSQL did.
type batchCounts struct {
	Updated  int `db:"updated"`
	Inserted int `db:"inserted"`
	Missing  int `db:"missing"`
}

// Beat stores a batch of heartbeats in one statement and returns how many modules it changed. A deadlock repeats it,
// for an error would cost the leader its covered time. It needs no term: it can only revive. The receipt is the
// database's now. Of several beats of one hostname the last counts. NotFound: no such exchange.
func (s *Presence) Beat(ctx context.Context, ex component.ExchangeID, beats []messages.ModuleStatus) (int, error) {
	if len(beats) == 0 {
		return 0, nil
	}
	c := columnsOf(beats)
	var changed int
	err := s.db.Pool.InTx(ctx, func(tx *sqlx.Tx) error {
		var n batchCounts
		changed = 0
		for again := true; again; again = n.Inserted < n.Missing { // another batch was first: its rows are updated now
			err := tx.GetContext(ctx, &n, batchSQL, ex, pq.StringArray(c.hostname), pq.StringArray(c.kind),
				pq.StringArray(c.service), pq.StringArray(c.status), pq.StringArray(c.bootID), pq.Int64Array(c.seq),
				pq.Array(c.workload), pq.StringArray(c.sourceRepo), pq.StringArray(c.sourceRef),
				pq.StringArray(c.deploymentRepo), pq.StringArray(c.deploymentRef), pq.Array(c.startedAt))
			if err != nil {
				return err
			}
			changed += n.Updated + n.Inserted
		}
		return nil
	})
	if postgres.Constraint(err) == "messaging_exchange_modules_messaging_exchange_id_fkey" {
		return 0, fault.Wrap(fault.NotFound, err, "there is no exchange %d", ex)
	}
	if err != nil {
		return 0, fmt.Errorf("store %d heartbeats: %w", len(beats), err)
	}
	return changed, nil
}

// columns is a batch turned by a quarter: one array per column.
type columns struct {
	hostname, kind, service, status, bootID              []string
	seq                                                  []int64
	workload                                             []*string
	sourceRepo, sourceRef, deploymentRepo, deploymentRef []string
	startedAt                                            []*string
}

// columnsOf sorts by hostname, so that flushers which meet do not deadlock, and drops all but the last beat of each.
func columnsOf(beats []messages.ModuleStatus) columns {
	order := make([]int, len(beats))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(beats[a].Hostname, beats[b].Hostname) })
	c := makeColumns(len(order))
	for n, i := range order {
		if n+1 < len(order) && beats[order[n+1]].Hostname == beats[i].Hostname {
			continue
		}
		c.add(&beats[i])
	}
	return c
}

func makeColumns(n int) columns {
	text := func() []string { return make([]string, 0, n) }
	return columns{hostname: text(), kind: text(), service: text(), status: text(), bootID: text(),
		seq:      make([]int64, 0, n),
		workload: make([]*string, 0, n), sourceRepo: text(), sourceRef: text(), deploymentRepo: text(), deploymentRef: text(),
		startedAt: make([]*string, 0, n)}
}

func (c *columns) add(b *messages.ModuleStatus) {
	c.hostname, c.kind, c.service = append(c.hostname, b.Hostname), append(c.kind, b.Type), append(c.service, b.Service)
	c.status, c.bootID, c.seq = append(c.status, b.Status), append(c.bootID, b.BootID), append(c.seq, b.Seq)
	c.sourceRepo, c.sourceRef = append(c.sourceRepo, b.SourceRepo), append(c.sourceRef, b.SourceRepoGitRef)
	c.deploymentRepo, c.deploymentRef = append(c.deploymentRepo, b.DeploymentRepo), append(c.deploymentRef,
		b.DeploymentRepoGitRef)
	var workload, started *string
	if len(b.Workload) > 0 && string(b.Workload) != "null" {
		text := string(b.Workload)
		workload = &text
	}
	if b.StartedAt != nil {
		text := b.StartedAt.UTC().Format(time.RFC3339Nano)
		started = &text
	}
	c.workload, c.startedAt = append(c.workload, workload), append(c.startedAt, started)
}
