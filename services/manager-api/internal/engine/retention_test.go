package engine_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
)

var _ = Describe("History", func() {
	// fill makes n failed upgrades, one every five hours, with all that such an upgrade leaves. The last is five hours
	// old.
	fill := func(w *world, c component.ID, count int) {
		GinkgoHelper()
		w.exec(`CREATE TEMP TABLE hourly AS SELECT n, now() - n * interval '5 hours' AS at,
			lpad(to_hex(100000000 - n), 12, '0')::text AS tail FROM generate_series(1, $1) n`, count)
		DeferCleanup(func() { w.exec(`DROP TABLE IF EXISTS hourly`) })
		w.exec(`INSERT INTO releases (id, component_id, source_repo, source_repo_git_ref, deployment_repo,
			deployment_repo_git_ref,
				etcd_token, units, inserted_at)
			SELECT ('00000000-0000-7000-8000-' || tail)::uuid, $1, 'src', 'v2', 'd', 'main', 'tok', '[]', at FROM hourly`, c)
		w.exec(`INSERT INTO upgrades (id, component_id, component_type, messaging_exchange_id, proof, trigger, state,
			created_at,
				started_at, finished_at)
			SELECT ('00000000-0000-7000-8000-' || tail)::uuid, $1, 'builder', $2, 'modules', 'hourly', 'rolled_back', at, at, at
			FROM hourly`, c, w.exchange)
		w.exec(`INSERT INTO workflows (id, upgrade_id, phase, restoring, messaging_exchange_id, release_id,
			workflow_completed,
				began_at, ended_at, inserted_at)
			SELECT gen_random_uuid(), ('00000000-0000-7000-8000-' || tail)::uuid, 1, false, $1,
				('00000000-0000-7000-8000-' || tail)::uuid, true, at, at, at FROM hourly`, w.exchange)
		w.exec(`INSERT INTO workflows (id, messaging_exchange_id, workflow_completed, began_at, ended_at, inserted_at)
			SELECT gen_random_uuid(), $1, true, at, at, at FROM hourly`, w.exchange)
		w.exec(`INSERT INTO orders (id, workflow_id, messaging_exchange_id, queue, milestone, state, body, deadline)
			SELECT gen_random_uuid(), id, $1, 'deploy_oa', 'deploy_oa', 'failed', '{}', now() FROM workflows`, w.exchange)
		w.exec(`INSERT INTO system_events (type, severity, inserted_at) SELECT 'upgrade_failed', 'error', at FROM hourly
			ORDER BY at`)
		w.exec(`INSERT INTO journal (actor, subject, code, at) SELECT 'x', 'upgrade/x', 'failed', at FROM hourly ORDER BY at`)
	}
	prune := func(w *world) {
		GinkgoHelper()
		for again := true; again; {
			var err error
			again, err = w.PruneHistory(ctx())
			Expect(err).NotTo(HaveOccurred())
		}
	}
	count := func(w *world, table string) int {
		GinkgoHelper()
		var n int
		Expect(w.db.Get(&n, `SELECT count(*) FROM `+table)).To(Succeed())
		return n
	}

	It("of five years of failures is bounded", func() {
		w := newWorld()
		w.exec(`DELETE FROM system_events`)
		c := w.component(component.Builder)
		w.proven(c, 1)
		journal := count(w, "journal")
		fill(w, c, 5*365*24/5)
		prune(w)
		days := 90 * 24 / 5
		Expect(count(w, "upgrades")).To(BeNumerically("~", days, 1))
		Expect(count(w, "workflows")).To(BeNumerically("~", 2*days, 2))
		Expect(count(w, "orders")).To(BeNumerically("~", 2*days, 2))
		Expect(count(w, "releases")).To(BeNumerically("~", days+1, 1))
		Expect(count(w, "system_events")).To(BeNumerically("~", days, 1))
		Expect(count(w, "journal") - journal).To(BeNumerically("~", 400*24/5, 1))
		w.exec(`ANALYZE`)
		for _, table := range []string{"upgrades", "workflows", "releases", "system_events", "journal", "orders"} {
			before := w.read(table)
			prune(w)
			Expect(w.read(table)-before).To(BeNumerically("<=", 1100), "rows of %s that a pass reads which removes nothing",
				table)
		}
	})

	It("keeps the last upgrades of a component however old, its last completed one, and what a rollback may return to",
		func() {
			w := newWorld()
			w.times.KeepUpgrades = 3
			w.runs("v1")
			c := w.component(component.Builder)
			fill(w, c, 10)
			w.exec(`UPDATE upgrades SET finished_at = finished_at - interval '1 year'`)
			w.exec(`UPDATE releases SET inserted_at = inserted_at - interval '1 year'`)
			w.exec(`UPDATE upgrades SET state = 'completed' WHERE id IN (SELECT id FROM upgrades ORDER BY id LIMIT 2)`)
			for range 5 {
				w.proven(c, 1)
			}
			w.exec(`UPDATE releases SET inserted_at = now() - interval '1 year'`)
			prune(w)
			Expect(w.value(`SELECT string_agg(state, ' ' ORDER BY id) FROM upgrades`)).
				To(Equal("completed rolled_back rolled_back rolled_back"))
			Expect(w.value(`SELECT count(*) FROM releases WHERE proven_at IS NOT NULL`)).To(Equal("3"))
			Expect(w.value(`SELECT count(*) FROM releases WHERE proven_at IS NULL`)).To(Equal("4"), "their upgrades are kept")
		})

	It("never loses a row of the journal that is younger than 90 days", func() {
		w := newWorld()
		_, err := w.db.Exec(`DELETE FROM journal`)
		Expect(err).To(MatchError(ContainSubstring("append-only")))
	})
})
