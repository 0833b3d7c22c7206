package postgres_test

import (
	"errors"
	"net/url"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/postgres"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// The server of a connection becomes a standby: the connection stays, and takes no writes any more.
const demote = `SET default_transaction_read_only = on`

var _ = Describe("A server that has become a standby", func() {
	for what, statement := range map[string]string{
		"alone":                     `INSERT INTO owners VALUES (1)`,
		"that returns rows":         `INSERT INTO owners VALUES (1) RETURNING id`,
		"that only locks":           `SELECT id FROM owners FOR UPDATE`,
		"that draws from a counter": `SELECT nextval('steps')`,
	} {
		It("refuses a statement "+what+" once: the next one has another connection", func(ctx SpecContext) {
			db := openAt(testDB.URL)
			db.SetMaxOpenConns(1)
			_, err := db.ExecContext(ctx, `CREATE SEQUENCE IF NOT EXISTS steps; `+demote)
			Expect(err).NotTo(HaveOccurred())
			run := func() error {
				rows, err := db.QueryContext(ctx, statement)
				if err != nil {
					return postgres.Translate(err)
				}
				return errors.Join(rows.Close(), rows.Err())
			}
			err = run()
			Expect(fault.KindOf(err)).To(Equal(fault.Unavailable))
			Expect(fault.Public(err).Message).To(ContainSubstring("the database takes no writes"))
			Expect(run()).To(Succeed())
		})
	}

	It("is told by Ping, which leaves the connection", func(ctx SpecContext) {
		db := openAt(testDB.URL)
		db.SetMaxOpenConns(1)
		Expect(db.Ping(ctx)).To(Succeed())
		_, err := db.ExecContext(ctx, demote)
		Expect(err).NotTo(HaveOccurred())
		err = db.Ping(ctx)
		Expect(fault.KindOf(err)).To(Equal(fault.Unavailable))
		Expect(fault.Public(err).Message).To(ContainSubstring("takes no writes: the server is a standby"))
		Expect(db.Ping(ctx)).To(Succeed())
	})

	It("is passed over where the URL names the primary too", func(ctx SpecContext) {
		u, err := url.Parse(testDB.URL)
		Expect(err).NotTo(HaveOccurred())
		q := u.Query()
		q.Set("default_transaction_read_only", "on")
		u.RawQuery = q.Encode()
		Expect(openAt(u.String()).Ping(ctx)).To(MatchError(ContainSubstring("takes no writes")))
		u.Host += "," + u.Host
		err = openAt(u.String()).Ping(ctx)
		Expect(fault.KindOf(err)).To(Equal(fault.Unavailable))
		Expect(fault.Public(err).Message).To(Equal("there is no connection to the database"))
		Expect(err).To(MatchError(ContainSubstring("session is read-only")))
	})
})
