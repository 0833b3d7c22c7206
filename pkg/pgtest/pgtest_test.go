package pgtest_test

import (
	"context"
	"database/sql"
	"net/url"
	"strings"
	"time"

	"github.com/openaperture/openaperture/pkg/pgtest"
	"github.com/openaperture/openaperture/pkg/postgres"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

const schema = `CREATE TABLE goose_db_version (id int);
	CREATE TABLE parents (id serial PRIMARY KEY);
	CREATE TABLE children (parent_id int REFERENCES parents);
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'append-only'; END $$;
	CREATE TRIGGER append_only BEFORE DELETE ON children FOR EACH ROW EXECUTE FUNCTION refuse();
	CREATE TABLE schema_info (id int);
	INSERT INTO goose_db_version VALUES (1);
	INSERT INTO schema_info VALUES (1);`

var migrations int

func migrate(ctx context.Context, c postgres.Config) error {
	migrations++
	return pgtest.Statements(schema)(ctx, c)
}

func names(like string) []string {
	db, err := sql.Open("postgres", pgtest.ServerURL())
	Expect(err).ToNot(HaveOccurred())
	defer func() { _ = db.Close() }()
	var list sql.NullString
	row := db.QueryRow(`SELECT string_agg(datname, ' ') FROM pg_database WHERE datname LIKE $1 || '%'`, like)
	Expect(row.Scan(&list)).To(Succeed())
	return strings.Fields(list.String)
}

var _ = Describe("A database for specs", Ordered, func() {
	var used string

	It("is migrated once, and emptied but for what is kept", func(ctx SpecContext) {
		before := migrations
		first := pgtest.New(migrate, "schema_info")
		second := pgtest.New(migrate, "schema_info")
		Expect(second.URL).To(Equal(first.URL))
		Expect(migrations - before).To(Equal(1))
		u, err := url.Parse(first.URL)
		Expect(err).ToNot(HaveOccurred())
		used = strings.TrimPrefix(u.Path, "/")[:len("oatest_123456789abc")]

		db := second.Open(1)
		count := func(table string) (n int) {
			Expect(db.GetContext(ctx, &n, "SELECT count(*) FROM "+table)).To(Succeed())
			return n
		}
		_, err = db.ExecContext(ctx, `INSERT INTO parents DEFAULT VALUES; INSERT INTO children VALUES (1)`)
		Expect(err).ToNot(HaveOccurred())
		second.Truncate()
		Expect([]int{count("parents"), count("children")}).To(HaveEach(0))
		Expect([]int{count("schema_info"), count("goose_db_version")}).To(HaveEach(1))
		var id int
		Expect(db.GetContext(ctx, &id, `INSERT INTO parents DEFAULT VALUES RETURNING id`)).To(Succeed())
		Expect(id).To(Equal(1))
	})

	It("is emptied of many rows too, and does not keep their space", func(ctx SpecContext) {
		database := pgtest.New(migrate, "schema_info")
		db := database.Open(1)
		size := func() (bytes int) {
			Expect(db.GetContext(ctx, &bytes, `SELECT pg_relation_size('parents')`)).To(Succeed())
			return bytes
		}
		_, err := db.ExecContext(ctx, `INSERT INTO parents SELECT generate_series(1, 50000); INSERT INTO children VALUES (1)`)
		Expect(err).ToNot(HaveOccurred())
		Expect(size()).To(BeNumerically(">", 1<<20))
		database.Truncate()
		Expect(size()).To(BeZero())
	})

	It("is emptied only when no transaction writes any more", func(ctx SpecContext) {
		database := pgtest.New(migrate, "schema_info")
		db := database.Open(2)
		tx, err := db.BeginTxx(ctx, nil)
		Expect(err).ToNot(HaveOccurred())
		_, err = tx.ExecContext(ctx, `INSERT INTO parents DEFAULT VALUES`)
		Expect(err).ToNot(HaveOccurred())
		emptied := make(chan struct{})
		go func() {
			defer GinkgoRecover()
			defer close(emptied)
			database.Truncate()
		}()
		Eventually(ctx, func(g Gomega) {
			var waiting bool
			g.Expect(db.GetContext(ctx, &waiting, `SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted
				AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`)).To(Succeed())
			g.Expect(waiting).To(BeTrue())
		}).Should(Succeed())
		Expect(tx.Commit()).To(Succeed())
		Eventually(ctx, emptied).Should(BeClosed())
		var rows int
		Expect(db.GetContext(ctx, &rows, `SELECT count(*) FROM parents`)).To(Succeed())
		Expect(rows).To(BeZero())
	}, SpecTimeout(time.Minute))

	It("is gone afterwards, with its template", func() {
		Expect(names(used)).To(BeEmpty())
	})
})
