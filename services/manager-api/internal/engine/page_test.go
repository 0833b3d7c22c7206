package engine_test

import (
	"strconv"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/upgrade"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

// read counts the rows of a table that were read so far.
func (w *world) read(table string) int {
	GinkgoHelper()
	w.exec(`SELECT pg_stat_force_next_flush()`)
	n, err := strconv.Atoi(w.value(`SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables
		WHERE relname = $1`, table))
	Expect(err).NotTo(HaveOccurred())
	return n
}

var _ = Describe("Pages", func() {
	const rows, size = 2000, 10

	// Each entry fills a table, and lists a page of it below a cursor ("" is none), as ids.
	DescribeTable("follow one another, and a deep one reads no more than a first one",
		func(table, key, fill string, page func(w *world, cursor string) ([]string, error)) {
			w := newWorld()
			c := w.component(component.Builder)
			w.exec(`DELETE FROM quarantines`)
			w.exec(fill, w.exchange, c)
			w.exec(`ANALYZE ` + table)
			var all []string
			Expect(w.db.Select(&all, `SELECT `+key+`::text FROM `+table+` ORDER BY `+key+` DESC`)).To(Succeed())
			Expect(page(w, "")).To(Equal(all[:size]))

			before := w.read(table)
			Expect(page(w, all[rows-size-1])).To(Equal(all[rows-size : rows]))
			Expect(w.read(table)-before).To(BeNumerically("<=", 5*size), "rows of "+table)
		},
		Entry("upgrades", "upgrades", "id", `INSERT INTO upgrades (id, component_id, component_type, messaging_exchange_id,
			proof, trigger, state)
			SELECT gen_random_uuid(), $2, 'builder', $1, 'modules', 'hourly', 'completed' FROM generate_series(1, 2000)`,
			func(w *world, cursor string) (ids []string, err error) {
				list, err := w.Upgrades(ctx(), engine.UpgradeQuery{ComponentID: 1, Before: upgrade.ID(cursor), Limit: size})
				for _, u := range list {
					ids = append(ids, string(u.ID))
				}
				return ids, err
			}),
		Entry("releases", "releases", "id", `INSERT INTO releases (id, component_id, source_repo, source_repo_git_ref,
			deployment_repo, deployment_repo_git_ref, etcd_token, units)
			SELECT gen_random_uuid(), $2, 'src', 'v1', 'd', 'main', $1::text, '[]' FROM generate_series(1, 2000)`,
			func(w *world, cursor string) (ids []string, err error) {
				list, err := w.Releases(ctx(), 1, cursor, size)
				for _, r := range list {
					ids = append(ids, r.ID)
				}
				return ids, err
			}),
		Entry("quarantines", "quarantines", "id", `INSERT INTO quarantines (id, messaging_exchange_id, component_type,
			source_repo, source_repo_git_ref, reason, message)
			SELECT gen_random_uuid(), $1, 'builder', 'src', $2::text || n, 'r', 'm' FROM generate_series(1, 2000) n`,
			func(w *world, cursor string) (ids []string, err error) {
				list, err := w.Quarantines(ctx(), w.exchange, cursor, size)
				for _, q := range list {
					ids = append(ids, q.ID)
				}
				return ids, err
			}),
	)

	It("of one actor's journal read his rows alone", func() {
		w := newWorld()
		w.exec(`INSERT INTO journal (actor, subject, code) SELECT CASE WHEN n % 100 = 0 THEN 'alice' ELSE 'bob' END, 's', 'c'
			FROM generate_series(1, 2000) n`)
		w.exec(`ANALYZE journal`)
		before := w.read("journal")
		Expect(w.Journal(ctx(), db.JournalQuery{Actor: "alice", Limit: 10})).To(HaveLen(10))
		Expect(w.read("journal") - before).To(BeNumerically("<=", 50))
	})
})
