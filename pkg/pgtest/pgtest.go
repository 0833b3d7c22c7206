// Package pgtest gives specs a real Postgres database of their own. It is for
// suites only.
//
//	var database *pgtest.Database
//	var _ = BeforeSuite(func() { database = pgtest.New(db.Migrate) })
//	var _ = BeforeEach(func() { database.Truncate() })
//
// The server is named by TEST_DATABASE_URL; without it specs fail, they do not
// skip. The template is migrated once per test run of a package, and every Ginkgo
// process works in its own copy. All of it is dropped at the end.
package pgtest

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/postgres"
)

// Database is the copy of one Ginkgo process.
type Database struct {
	// URL connects to it.
	URL string
	// Pool is for all specs of the suite. Its one connection finds code that needs two at once, which is a deadlock in
	// waiting.
	Pool    *postgres.DB
	cleaner *sql.DB
	empty   string // the statement that empties the database
}

// Migrate brings an empty database to its schema.
type Migrate func(ctx context.Context, c postgres.Config) error

// Statements is the Migrate of a suite whose schema is a few statements.
func Statements(sql string) Migrate {
	return func(ctx context.Context, c postgres.Config) error {
		db, err := postgres.Open(c)
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }()
		_, err = db.ExecContext(ctx, sql)
		return err
	}
}

// New makes the database: call it in BeforeSuite, or in a spec. Truncate spares
// the tables in kept, besides goose's own. It is dropped when the suite (or the
// spec) ends.
func New(migrate Migrate, kept ...string) *Database {
	ginkgo.GinkgoHelper()
	server := ServerURL()
	admin := open(server)
	defer func() { _ = admin.Close() }()
	// A run has one parent process and one package folder, whatever the number of
	// its Ginkgo processes.
	folder, err := os.Getwd()
	gomega.Expect(err).ToNot(gomega.HaveOccurred())
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %p", folder, os.Getppid(), migrate))
	template := "oatest_" + hex.EncodeToString(sum[:6])
	name := fmt.Sprintf("%s_%d", template, os.Getpid())
	d := &Database{URL: withDatabase(server, name), empty: emptying(append([]string{"goose_db_version"}, kept...))}

	locked(admin, template, func() {
		if !exists(admin, template) {
			exec(admin, "CREATE DATABASE "+template)
			err := migrate(context.Background(), config(withDatabase(server, template)))
			if err != nil {
				drop(admin, template)
			}
			gomega.Expect(err).ToNot(gomega.HaveOccurred(), "migrate the template")
		}
		drop(admin, name) // of an earlier New of this process
		exec(admin, fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s", name, template))
	})
	d.cleaner, d.Pool = open(d.URL), d.Open(1)
	ginkgo.DeferCleanup(func() {
		_ = d.cleaner.Close()
		admin := open(server)
		defer func() { _ = admin.Close() }()
		locked(admin, template, func() {
			drop(admin, name)
			drop(admin, template) // a process that still needs it makes it again
		})
	})
	return d
}

// Config connects to the database.
func (d *Database) Config() postgres.Config { return config(d.URL) }

func config(url string) postgres.Config {
	c := postgres.DefaultConfig("pgtest")
	c.URL = boot.Secret(url)
	return c
}

// Open opens another pool on the database and closes it when the spec ends.
func (d *Database) Open(maxOpen int) *postgres.DB {
	ginkgo.GinkgoHelper()
	c := d.Config()
	c.MaxOpen = maxOpen
	db, err := postgres.Open(c)
	gomega.Expect(err).ToNot(gomega.HaveOccurred())
	ginkgo.DeferCleanup(db.Close)
	return db
}

// Begin begins a transaction on a connection of its own and runs a statement in it, for example one that locks a row.
// In a deadlock this transaction is the one that gives up, after 20 ms. It is rolled back when the spec ends.
func (d *Database) Begin(statement string, args ...any) *sqlx.Tx {
	ginkgo.GinkgoHelper()
	tx, err := d.Open(1).Beginx()
	gomega.Expect(err).ToNot(gomega.HaveOccurred())
	ginkgo.DeferCleanup(func() { _ = tx.Rollback() })
	tx.MustExec(`SET LOCAL deadlock_timeout = '20ms'`)
	tx.MustExec(statement, args...)
	return tx
}

// Behind lets do run until it waits for a lock of tx, calls goOn, commits tx, and returns the error of do.
func (d *Database) Behind(tx *sqlx.Tx, do func() error, goOn func()) error {
	ginkgo.GinkgoHelper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	gomega.Eventually(func(g gomega.Gomega) {
		var waiting int
		row := d.cleaner.QueryRowContext(context.Background(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`)
		g.Expect(row.Scan(&waiting)).To(gomega.Succeed())
		g.Expect(waiting).To(gomega.Equal(1))
	}, "5s", "10ms").Should(gomega.Succeed())
	goOn()
	gomega.Expect(tx.Commit()).To(gomega.Succeed())
	var err error
	gomega.Eventually(done, "10s").Should(gomega.Receive(&err))
	return err
}

// Truncate empties every table of the public schema but the kept ones, and restarts their sequences. Call Truncate in
// BeforeEach. It waits until no transaction writes. All calls of a suite share one connection.
func (d *Database) Truncate() {
	ginkgo.GinkgoHelper()
	exec(d.cleaner, d.empty)
}

// large is from which size a table is truncated. To delete the rows of a smaller table is ten times as fast, because
// TRUNCATE makes new files for the table and for each of its indexes.
const large = 1 << 20

// emptying is the statement that empties the database. Triggers are off meanwhile, so that the order of the tables does
// not matter and an append-only table is emptied too. That needs a superuser.
func emptying(kept []string) string {
	quoted := make([]string, len(kept))
	for i, name := range kept {
		quoted[i] = pq.QuoteLiteral(name)
	}
	return fmt.Sprintf(`DO $$
		DECLARE
			kept text[] := ARRAY[%s];
			names text[];
			name text;
		BEGIN
			PERFORM set_config('session_replication_role', 'replica', true);
			SELECT array_agg(quote_ident(tablename)) INTO names FROM pg_tables
				WHERE schemaname = 'public' AND NOT tablename = ANY(kept);
			IF names IS NULL THEN
				RETURN;
			END IF;
			EXECUTE 'LOCK TABLE ' || array_to_string(names, ', ') || ' IN SHARE ROW EXCLUSIVE MODE';
			FOREACH name IN ARRAY names LOOP
				IF pg_relation_size(name::regclass) > %d THEN
					EXECUTE 'TRUNCATE ' || name || ' CASCADE';
				ELSE
					EXECUTE 'DELETE FROM ' || name;
				END IF;
			END LOOP;
			PERFORM setval(s.seqrelid, s.seqstart, false)
				FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
				WHERE c.relnamespace = 'public'::regnamespace AND NOT EXISTS (
					SELECT 1 FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid
					WHERE d.objid = s.seqrelid AND d.deptype IN ('a', 'i') AND t.relname = ANY(kept));
		END $$`, strings.Join(quoted, ", "), large)
}

// ServerURL is TEST_DATABASE_URL; the spec fails without it.
func ServerURL() string {
	ginkgo.GinkgoHelper()
	server := os.Getenv("TEST_DATABASE_URL")
	gomega.Expect(server).ToNot(gomega.BeEmpty(),
		"TEST_DATABASE_URL names the Postgres server for specs; 'make test' sets it")
	return server
}

func open(url string) *sql.DB {
	ginkgo.GinkgoHelper()
	connector, err := pq.NewConnector(url)
	gomega.Expect(err).ToNot(gomega.HaveOccurred())
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1) // the session that holds the lock is the one that works
	exec(db, "SET lock_timeout = '10s'")
	return db
}

// locked runs what other processes of the same run must not do at the same time.
func locked(db *sql.DB, key string, do func()) {
	ginkgo.GinkgoHelper()
	exec(db, "SELECT pg_advisory_lock(hashtext("+pq.QuoteLiteral(key)+"))")
	defer exec(db, "SELECT pg_advisory_unlock_all()")
	do()
}

func exists(db *sql.DB, name string) bool {
	ginkgo.GinkgoHelper()
	var found bool
	row := db.QueryRowContext(context.Background(), `SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)`, name)
	gomega.Expect(row.Scan(&found)).To(gomega.Succeed())
	return found
}

func drop(db *sql.DB, name string) {
	ginkgo.GinkgoHelper()
	exec(db, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
}

func exec(db *sql.DB, statement string) {
	ginkgo.GinkgoHelper()
	_, err := db.ExecContext(context.Background(), statement)
	gomega.Expect(err).ToNot(gomega.HaveOccurred(), strings.SplitN(statement, "(", 2)[0])
}

func withDatabase(server, name string) string {
	u, err := url.Parse(server)
	gomega.Expect(err).ToNot(gomega.HaveOccurred())
	u.Path = "/" + name
	return u.String()
}
