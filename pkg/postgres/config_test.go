package postgres_test

import (
	"os"
	"path/filepath"
	"time"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/postgres"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func withURL(url string) func(*postgres.Config) {
	return func(c *postgres.Config) { c.URL = boot.Secret(url) }
}

var _ = Describe("The configuration", func() {
	DescribeTable("is accepted",
		func(change func(*postgres.Config)) { Expect(config(change).Validate()).To(Succeed()) },
		Entry("as it is", nil),
		Entry("verify-full to anywhere", withURL("postgres://oa@db.example.com/oa?sslmode=verify-full")),
		Entry("no TLS to localhost", withURL("postgresql://oa@localhost:5433/oa?sslmode=disable")),
		Entry("no TLS to ::1", withURL("postgres://oa@[::1]:5433/oa?sslmode=disable")),
		Entry("no TLS to another loopback address", withURL("postgres://oa@127.0.0.2/oa?sslmode=require")),
		Entry("no TLS to a unix socket", withURL("postgres:///oa?host=/run/postgresql&sslmode=disable")),
	)

	DescribeTable("is refused with what to do, and without the password",
		func(change func(*postgres.Config), want string) {
			err := config(change).Validate()
			Expect(err).To(MatchError(ContainSubstring(want)))
			Expect(err.Error()).ToNot(ContainSubstring("hunter2"))
			_, err = postgres.Open(config(change))
			Expect(err).To(HaveOccurred())
		},
		Entry("no URL", withURL(""), "want postgres://"),
		Entry("another scheme", withURL("mysql://oa:hunter2@h/oa"), "want postgres://"),
		Entry("a URL that cannot be parsed", withURL("postgres://oa:hunter2@h:port/oa?sslmode=disable"), "want postgres://"),
		Entry("a parameter that is not understood", withURL("postgres://oa:hunter2@localhost/oa?sslmode=maybe"),
			"a parameter"),
		Entry("no sslmode (PG4)", withURL("postgres://oa:hunter2@localhost/oa"), "sslmode is missing"),
		Entry("no TLS to a network (PG4)", withURL("postgres://oa:hunter2@db.example.com/oa?sslmode=disable"),
			"sslmode disable to host db.example.com"),
		Entry("unverified TLS to a network", withURL("postgres://oa:hunter2@10.0.0.1/oa?sslmode=require"),
			"want verify-full"),
		Entry("unverified name", withURL("postgres://oa:hunter2@db/oa?sslmode=verify-ca"), "want verify-full"),
		Entry("a second host in a network", withURL("postgres://oa:hunter2@localhost,db/oa?sslmode=disable"), "to host db"),
		Entry("a host address in a network", withURL("postgres://oa:hunter2@localhost/oa?hostaddr=10.0.0.1&sslmode=disable"),
			"want verify-full"),
		Entry("no connections", func(c *postgres.Config) { c.MaxOpen = 0 }, "max_open 0"),
		Entry("an endless dial (PG3)", func(c *postgres.Config) { c.ConnectTimeout = 0 }, "connect_timeout 0s"),
		Entry("endless statements (PG3)", func(c *postgres.Config) { c.StatementTimeout = 0 }, "statement_timeout 0s"),
		Entry("locks that outwait statements", func(c *postgres.Config) { c.LockTimeout = time.Minute }, "lock_timeout 1m0s"),
		Entry("leases that outwait statements", func(c *postgres.Config) { c.LeaseTimeout = time.Minute },
			"lease_timeout 1m0s"),
		Entry("value and file", func(c *postgres.Config) { c.URLFile = "/run/secrets/url" }, "both set"),
	)

	It("reads the URL from a file", func() {
		path := filepath.Join(GinkgoT().TempDir(), "url")
		Expect(os.WriteFile(path, []byte(testDB.URL+"\n"), 0o600)).To(Succeed())
		db, err := postgres.Open(config(func(c *postgres.Config) { c.URL, c.URLFile = "", path }))
		Expect(err).ToNot(HaveOccurred())
		DeferCleanup(db.Close)
		Expect(db.Ping(GinkgoT().Context())).To(Succeed())
	})

	DescribeTable("sets the limits in every session (PG3)",
		func(open func(postgres.Config) (*postgres.DB, error), statement, lock string) {
			db, err := open(config(withURL(testDB.URL)))
			Expect(err).ToNot(HaveOccurred())
			DeferCleanup(db.Close)
			setting := func(name string) (value string) {
				Expect(db.Get(&value, `SELECT current_setting($1)`, name)).To(Succeed())
				return value
			}
			Expect(setting("statement_timeout")).To(Equal(statement))
			Expect(setting("lock_timeout")).To(Equal(lock))
			Expect(setting("idle_in_transaction_session_timeout")).To(Equal("1min"))
			Expect(setting("application_name")).To(Equal("spec"))
		},
		Entry("for requests", postgres.Open, "10s", "5s"),
		Entry("for leases", postgres.OpenForLeases, "2s", "2s"),
		Entry("for migrations", postgres.OpenForMigrations, "0", "5s"),
	)
})
