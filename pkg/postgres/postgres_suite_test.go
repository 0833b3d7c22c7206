package postgres_test

import (
	"testing"
	"time"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/pgtest"
	"github.com/openaperture/openaperture/pkg/postgres"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func TestPostgres(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "postgres", Label("integration"))
}

const schema = `
CREATE TABLE owners (id int PRIMARY KEY);
CREATE TABLE things (
	id int PRIMARY KEY,
	name varchar(8) NOT NULL CONSTRAINT things_name_known CHECK (name <> 'bad'),
	owner int CONSTRAINT things_owner_exists REFERENCES owners,
	slot int CONSTRAINT things_one_per_slot UNIQUE DEFERRABLE INITIALLY DEFERRED
);
-- A commit during which the server goes away.
CREATE TABLE doomed (id int);
CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER doomed_dies AFTER INSERT ON doomed
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die();`

var testDB *pgtest.Database

var _ = BeforeSuite(func() { testDB = pgtest.New(pgtest.Statements(schema)) })

var _ = BeforeEach(func() { testDB.Truncate() })

// config is valid; specs change one thing of it.
func config(change func(*postgres.Config)) postgres.Config {
	c := postgres.DefaultConfig("spec")
	c.URL = "postgres://oa:hunter2@127.0.0.1/oa?sslmode=disable"
	if change != nil {
		change(&c)
	}
	return c
}

// openAt opens a pool with short limits and closes it when the spec ends.
func openAt(url string) *postgres.DB {
	GinkgoHelper()
	db, err := postgres.Open(config(func(c *postgres.Config) {
		c.URL, c.ConnectTimeout = boot.Secret(url), time.Second
		c.StatementTimeout, c.LockTimeout, c.LeaseTimeout = 500*time.Millisecond, 500*time.Millisecond, 300*time.Millisecond
	}))
	Expect(err).ToNot(HaveOccurred())
	DeferCleanup(db.Close)
	return db
}

func countThings(db *postgres.DB) (n int) {
	GinkgoHelper()
	Expect(db.Get(&n, `SELECT count(*) FROM things`)).To(Succeed())
	return n
}
