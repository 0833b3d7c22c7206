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

// batchSQL keeps a module's id, and of the same boot what a beat does not say: another process may be of another
// version. (Those that state no boot at all count as one.) A beat of the same boot with a sequence number that was
// seen before changes nothing, nor does one of a boot that was started before the one that is known, if that was first
// heard a moment ago: the queue gave it out once more. (Later the host's clock is to blame.) boot_since restarts with
// the boot, steady_since with boot, status or version.
const batchSQL = `
INSERT INTO messaging_exchange_modules AS m (messaging_exchange_id, hostname, type, service, status, boot_id, seq,
workload,
	source_repo, source_repo_git_ref, deployment_repo, deployment_repo_git_ref, started_at)
SELECT $1, b.hostname, b.type, b.service, b.status, b.boot_id, b.seq, coalesce(b.workload, '[]')::jsonb, b.source_repo,
b.source_ref, b.deployment_repo, b.deployment_ref, b.started_at
FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[], $9::text[],
$10::text[], $11::text[], $12::text[], $13::timestamptz[])
	AS b (hostname, type, service, status, boot_id, seq, workload, source_repo, source_ref, deployment_repo,
	deployment_ref, started_at)
ON CONFLICT ON CONSTRAINT messaging_exchange_modules_hostname_key DO UPDATE SET
	type = excluded.type, service = excluded.service, status = excluded.status, boot_id = excluded.boot_id,
	seq = excluded.seq, workload = excluded.workload,
	source_repo = CASE WHEN m.boot_id <> excluded.boot_id OR excluded.source_repo <> '' THEN excluded.source_repo
	ELSE m.source_repo END,
	source_repo_git_ref = CASE WHEN m.boot_id <> excluded.boot_id OR excluded.source_repo_git_ref <> ''
	THEN excluded.source_repo_git_ref ELSE m.source_repo_git_ref END,
	deployment_repo = CASE WHEN m.boot_id <> excluded.boot_id OR excluded.deployment_repo <> ''
	THEN excluded.deployment_repo ELSE m.deployment_repo END,
	deployment_repo_git_ref = CASE WHEN m.boot_id <> excluded.boot_id OR excluded.deployment_repo_git_ref <> ''
	THEN excluded.deployment_repo_git_ref ELSE m.deployment_repo_git_ref END,
	started_at = CASE WHEN m.boot_id <> excluded.boot_id THEN excluded.started_at
	ELSE coalesce(excluded.started_at, m.started_at) END,
	boot_since = CASE WHEN m.boot_id = excluded.boot_id THEN m.boot_since ELSE now() END,
	steady_since = CASE WHEN m.boot_id = excluded.boot_id AND m.status = excluded.status
		AND excluded.source_repo_git_ref IN ('', m.source_repo_git_ref) THEN m.steady_since ELSE now() END,
	updated_at = now()
WHERE CASE WHEN m.boot_id = excluded.boot_id THEN excluded.seq = 0 OR excluded.seq > m.seq
	ELSE NOT coalesce(excluded.started_at < m.started_at AND m.boot_since > now() - interval '2 minutes', false) END`

// Beat stores a batch of heartbeats in one statement and returns how many modules it changed. A deadlock repeats it,
// for an error would cost the leader its covered time. It needs no term: it can only revive. The receipt is the
// database's now. Of several beats of one hostname the last counts. NotFound: no such exchange.
func (s *Presence) Beat(ctx context.Context, ex component.ExchangeID, beats []messages.ModuleStatus) (int, error) {
	if len(beats) == 0 {
		return 0, nil
	}
	c := columnsOf(beats)
	var changed int64
	err := s.db.Pool.InTx(ctx, func(tx *sqlx.Tx) error {
		res, err := tx.ExecContext(ctx, batchSQL, ex, pq.StringArray(c.hostname), pq.StringArray(c.kind),
			pq.StringArray(c.service), pq.StringArray(c.status),
			pq.StringArray(c.bootID), pq.Int64Array(c.seq), pq.Array(c.workload), pq.StringArray(c.sourceRepo),
			pq.StringArray(c.sourceRef),
			pq.StringArray(c.deploymentRepo), pq.StringArray(c.deploymentRef), pq.Array(c.startedAt))
		if err != nil {
			return err
		}
		changed, err = res.RowsAffected()
		return err
	})
	if postgres.Constraint(err) == "messaging_exchange_modules_messaging_exchange_id_fkey" {
		return 0, fault.Wrap(fault.NotFound, err, "there is no exchange %d", ex)
	}
	if err != nil {
		return 0, fmt.Errorf("store %d heartbeats: %w", len(beats), err)
	}
	return int(changed), nil
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
