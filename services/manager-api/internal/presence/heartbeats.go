package presence

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/postgres"

	messages "github.com/openaperture/openaperture/proto-messages"
)

// replayWithin is module.Merge's: how long after a boot was first heard a beat of a boot that was started earlier is
// not taken for a new process.
const replayWithin = "interval '2 minutes'"

// batchSQL stores a batch of heartbeats, at most one per hostname, by the rule of module.Merge: a spec holds the two
// together. A module that is known is updated in place and keeps its id. A module that is not known is inserted. The
// two parts are separate because INSERT … ON CONFLICT draws an id for every row, also for the rows that exist: 3,300
// heartbeats a second would use up a sequence of 32 bits in a week.
//
// known locks the rows in the order of sweepSQL, by hostname. kind says what a beat is to its row:
//
//   - goes_on: the boot that counts goes on.
//   - new: a new boot counts from now on, the boot before is the other one.
//   - returns: the other boot counts again, because the boot that counts is silent or has ended.
//   - beside, stranger: a boot is alive beside the one that counts: the other boot that is known, or one that was
//     started earlier.
//   - ends: the other boot says that it ends.
//   - nothing: a beat that was seen before, or the last word of a boot that was started earlier.
//
// The result is how many rows were updated, how many were inserted, and how many were missing. If fewer were inserted
// than were missing, another batch has inserted the same hosts meanwhile. $14 is live_within in milliseconds.
const batchSQL = `
WITH b AS (
	SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[], $9::text[],
		$10::text[], $11::text[], $12::text[], $13::timestamptz[])
	AS b (hostname, type, service, status, boot_id, seq, workload, source_repo, source_repo_git_ref,
		deployment_repo, deployment_repo_git_ref, started_at)
), known AS (
	SELECT m.id, m.hostname, m.status, m.boot_id, m.seq, m.started_at, m.boot_since, m.updated_at,
		m.rival_boot_id, m.rival_seq,
		m.updated_at < now() - $14 * interval '1 millisecond' AS silent,
		coalesce(m.rival_boot_id <> m.boot_id AND m.rival_again >= now() - $14 * interval '1 millisecond', false)
			AS rival_alive
	FROM messaging_exchange_modules m
	WHERE m.messaging_exchange_id = $1 AND m.hostname = ANY($2::text[])
	ORDER BY m.hostname COLLATE "C" FOR UPDATE
), judged AS (
	SELECT b.*, k.id, k.rival_alive,
		CASE
			WHEN k.boot_id = b.boot_id AND (b.seq = 0 OR b.seq > k.seq) THEN 'goes_on'
			WHEN k.boot_id = b.boot_id THEN 'nothing'
			WHEN k.rival_boot_id = b.boot_id AND b.seq <> 0 AND b.seq <= k.rival_seq THEN 'nothing'
			WHEN k.rival_boot_id = b.boot_id AND b.status = 'inactive' THEN 'ends'
			WHEN k.rival_boot_id = b.boot_id AND (k.status = 'inactive' OR k.silent) THEN 'returns'
			WHEN k.rival_boot_id = b.boot_id THEN 'beside'
			WHEN b.started_at < k.started_at AND k.boot_since > now() - ` + replayWithin + ` AND NOT k.silent
				THEN CASE WHEN b.status = 'inactive' OR k.rival_alive THEN 'nothing' ELSE 'stranger' END
			ELSE 'new'
		END AS kind
	FROM b JOIN known k ON k.hostname = b.hostname
), gone_on AS (
	UPDATE messaging_exchange_modules AS m SET
		type = j.type,
		service = j.service,
		status = j.status,
		seq = j.seq,
		workload = coalesce(j.workload, '[]')::jsonb,
		source_repo = CASE WHEN j.source_repo = '' THEN m.source_repo ELSE j.source_repo END,
		source_repo_git_ref = CASE WHEN j.source_repo_git_ref = ''
			THEN m.source_repo_git_ref ELSE j.source_repo_git_ref END,
		deployment_repo = CASE WHEN j.deployment_repo = '' THEN m.deployment_repo ELSE j.deployment_repo END,
		deployment_repo_git_ref = CASE WHEN j.deployment_repo_git_ref = ''
			THEN m.deployment_repo_git_ref ELSE j.deployment_repo_git_ref END,
		started_at = coalesce(j.started_at, m.started_at),
		steady_since = CASE WHEN m.status = j.status AND j.source_repo_git_ref IN ('', m.source_repo_git_ref)
			THEN m.steady_since ELSE now() END,
		updated_at = now()
	FROM judged j
	WHERE m.id = j.id AND j.kind = 'goes_on'
	RETURNING 1
), counted AS ( -- a boot that counts from now on, in the place of another one
	UPDATE messaging_exchange_modules AS m SET
		type = j.type,
		service = j.service,
		status = j.status,
		boot_id = j.boot_id,
		seq = j.seq,
		workload = coalesce(j.workload, '[]')::jsonb,
		source_repo = j.source_repo,
		source_repo_git_ref = j.source_repo_git_ref,
		deployment_repo = j.deployment_repo,
		deployment_repo_git_ref = j.deployment_repo_git_ref,
		started_at = CASE j.kind WHEN 'returns' THEN coalesce(j.started_at, m.rival_started_at) ELSE j.started_at END,
		boot_since = CASE j.kind WHEN 'returns' THEN m.rival_since ELSE now() END,
		steady_since = now(),
		updated_at = now(),
		rival_boot_id = CASE WHEN j.displaces THEN m.boot_id ELSE m.rival_boot_id END,
		rival_seq = CASE WHEN j.displaces THEN m.seq ELSE m.rival_seq END,
		rival_started_at = CASE WHEN j.displaces THEN m.started_at ELSE m.rival_started_at END,
		rival_since = CASE WHEN j.displaces THEN m.boot_since ELSE m.rival_since END,
		rival_seen = CASE WHEN j.displaces THEN m.updated_at ELSE m.rival_seen END,
		rival_again = CASE WHEN j.displaces THEN NULL ELSE m.rival_again END
	FROM (SELECT *, kind = 'returns' OR NOT rival_alive AS displaces FROM judged) j
	WHERE m.id = j.id AND j.kind IN ('new', 'returns')
	RETURNING 1
), heard AS ( -- a boot that does not count
	UPDATE messaging_exchange_modules AS m SET
		rival_boot_id = j.boot_id,
		rival_seq = j.seq,
		rival_started_at = CASE j.kind WHEN 'stranger' THEN j.started_at
			ELSE coalesce(j.started_at, m.rival_started_at) END,
		rival_since = CASE j.kind WHEN 'stranger' THEN now() ELSE m.rival_since END,
		rival_seen = now(),
		rival_again = CASE j.kind WHEN 'ends' THEN NULL ELSE now() END
	FROM judged j
	WHERE m.id = j.id AND j.kind IN ('beside', 'stranger', 'ends')
	RETURNING 1
), missing AS (
	SELECT * FROM b WHERE NOT EXISTS (SELECT 1 FROM messaging_exchange_modules m
		WHERE m.messaging_exchange_id = $1 AND m.hostname = b.hostname)
), inserted AS (
	INSERT INTO messaging_exchange_modules (messaging_exchange_id, hostname, type, service, status, boot_id, seq,
		workload, source_repo, source_repo_git_ref, deployment_repo, deployment_repo_git_ref, started_at)
	SELECT $1, hostname, type, service, status, boot_id, seq, coalesce(workload, '[]')::jsonb,
		source_repo, source_repo_git_ref, deployment_repo, deployment_repo_git_ref, started_at
	FROM missing ORDER BY hostname COLLATE "C"
	ON CONFLICT ON CONSTRAINT messaging_exchange_modules_hostname_key DO NOTHING
	RETURNING 1
)
SELECT (SELECT count(*) FROM gone_on) + (SELECT count(*) FROM counted) + (SELECT count(*) FROM heard) AS updated,
	(SELECT count(*) FROM inserted) AS inserted, (SELECT count(*) FROM missing) AS missing`

// batchCounts is what one run of batchSQL did.
type batchCounts struct {
	Updated  int `db:"updated"`
	Inserted int `db:"inserted"`
	Missing  int `db:"missing"`
}

// Beat stores a batch of heartbeats and returns how many of them changed something. The beats of one hostname are taken
// in their order, each in a statement of its own; of most hostnames there is one. A deadlock repeats the batch, because
// an error would cost the leader its covered time. A batch needs no term: it can only revive. The receipt is the
// database's now. NotFound: no such exchange.
func (s *Presence) Beat(ctx context.Context, ex component.ExchangeID, beats []messages.ModuleStatus) (int, error) {
	if len(beats) == 0 {
		return 0, nil
	}
	rounds := roundsOf(beats)
	var changed int
	err := s.db.Pool.InTx(ctx, func(tx *sqlx.Tx) error {
		changed = 0
		for _, round := range rounds {
			n, err := s.store(ctx, tx, ex, round)
			if err != nil {
				return err
			}
			changed += n
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

// store runs batchSQL over columns that hold each hostname once.
func (s *Presence) store(ctx context.Context, tx *sqlx.Tx, ex component.ExchangeID,
	c columns) (changed int, err error) {
	var n batchCounts
	for again := true; again; again = n.Inserted < n.Missing { // another batch was first: its rows are updated now
		err := tx.GetContext(ctx, &n, batchSQL, ex, pq.StringArray(c.hostname), pq.StringArray(c.kind),
			pq.StringArray(c.service), pq.StringArray(c.status), pq.StringArray(c.bootID), pq.Int64Array(c.seq),
			pq.Array(c.workload), pq.StringArray(c.sourceRepo), pq.StringArray(c.sourceRef),
			pq.StringArray(c.deploymentRepo), pq.StringArray(c.deploymentRef), pq.Array(c.startedAt),
			s.times.LiveWithin.Milliseconds())
		if err != nil {
			return changed, err
		}
		changed += n.Updated + n.Inserted
	}
	return changed, nil
}

// columns is a part of a batch turned by a quarter: one array per column.
type columns struct {
	hostname, kind, service, status, bootID              []string
	seq                                                  []int64
	workload                                             []*string
	sourceRepo, sourceRef, deploymentRepo, deploymentRef []string
	startedAt                                            []*string
}

// maxRounds bounds the beats of one hostname in a batch: of more, the last ones count.
const maxRounds = 8

// roundsOf divides a batch so that each round has at most one beat of each hostname: the first has the first beats, the
// second the second ones. Hostnames are sorted, so that flushers which meet do not deadlock.
func roundsOf(beats []messages.ModuleStatus) []columns {
	of := make(map[string][]*messages.ModuleStatus, len(beats))
	for i := range beats {
		of[beats[i].Hostname] = append(of[beats[i].Hostname], &beats[i])
	}
	hostnames := slices.Sorted(maps.Keys(of))
	var rounds []columns
	for _, h := range hostnames {
		own := of[h]
		for i, b := range own[max(0, len(own)-maxRounds):] {
			if i == len(rounds) {
				rounds = append(rounds, makeColumns(len(hostnames)))
			}
			rounds[i].add(b)
		}
	}
	return rounds
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
