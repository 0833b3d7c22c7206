package postgres_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/postgres"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func state(code string) error {
	return fmt.Errorf("save: %w", &pq.Error{Code: pqerror.Code(code), Message: "secret detail"})
}

var _ = Describe("Translate", func() {
	DescribeTable("gives an error its kind and shows no detail of it",
		func(err error, kind fault.Kind, code string) {
			translated := postgres.Translate(err)
			Expect(fault.KindOf(translated)).To(Equal(kind))
			Expect(fault.CodeOf(translated)).To(Equal(code))
			Expect(errors.Is(translated, err)).To(BeTrue())
			Expect(fault.Public(translated).Message).ToNot(ContainSubstring("secret detail"))
		},
		Entry("unique", state("23505"), fault.Conflict, postgres.CodeDuplicate),
		Entry("exclusion", state("23P01"), fault.Conflict, postgres.CodeDuplicate),
		Entry("foreign key", state("23503"), fault.Conflict, postgres.CodeReference),
		Entry("not null", state("23502"), fault.Invalid, postgres.CodeRequired),
		Entry("check", state("23514"), fault.Invalid, ""),
		Entry("too long", state("22001"), fault.Invalid, ""),
		Entry("nested too deeply", state("54001"), fault.Invalid, ""),
		Entry("a sequence that has ended says nothing about the input", state("2200H"), fault.Internal, ""),
		Entry("a division by zero is ours", state("22012"), fault.Internal, ""),
		Entry("no uuid", state("22P02"), fault.Invalid, ""),
		Entry("serialization", state("40001"), fault.Unavailable, postgres.CodeRetry),
		Entry("deadlock", state("40P01"), fault.Unavailable, postgres.CodeRetry),
		Entry("lock timeout", state("55P03"), fault.Unavailable, ""),
		Entry("statement timeout", state("57014"), fault.Unavailable, ""),
		Entry("server stops", state("57P01"), fault.Unavailable, ""),
		Entry("connection failure", state("08006"), fault.Unavailable, ""),
		Entry("too many connections", state("53300"), fault.Unavailable, ""),
		Entry("a standby after a failover", state("25006"), fault.Unavailable, ""),
		Entry("a wrong password", state("28P01"), fault.Unavailable, ""),
		Entry("a syntax error is ours", state("42601"), fault.Internal, ""),
		Entry("no rows", fmt.Errorf("get: %w", sql.ErrNoRows), fault.NotFound, ""),
		Entry("a deadline", context.DeadlineExceeded, fault.Unavailable, ""),
		Entry("a bad connection", driver.ErrBadConn, fault.Unavailable, ""),
		Entry("a connection that ended", io.EOF, fault.Unavailable, ""),
		Entry("a refused connection", &net.OpError{Op: "dial", Err: errors.New("refused")}, fault.Unavailable, ""),
		Entry("anything else is ours", errors.New("secret detail"), fault.Internal, ""),
	)

	It("leaves nil and errors with a kind alone", func() {
		Expect(postgres.Translate(nil)).To(Succeed())
		known := fmt.Errorf("save: %w", fault.Wrap(fault.Invalid, state("40001"), "x"))
		Expect(postgres.Translate(known)).To(BeIdenticalTo(known))
	})

	DescribeTable("tells constraints apart by name (PG8)",
		func(statement string, kind fault.Kind, constraint string) {
			db := testDB.Open(1)
			db.MustExec(`INSERT INTO owners VALUES (1); INSERT INTO things VALUES (1, 'a', 1, 1)`)
			_, err := db.Exec(statement)
			Expect(fault.KindOf(postgres.Translate(err))).To(Equal(kind))
			Expect(postgres.Constraint(postgres.Translate(err))).To(Equal(constraint))
		},
		Entry("the key", `INSERT INTO things VALUES (1, 'b', 1, 2)`, fault.Conflict, "things_pkey"),
		Entry("the slot", `INSERT INTO things VALUES (2, 'b', 1, 1)`, fault.Conflict, "things_one_per_slot"),
		Entry("an owner that does not exist", `INSERT INTO things VALUES (2, 'b', 9, 2)`, fault.Conflict,
			"things_owner_exists"),
		Entry("an owner in use", `DELETE FROM owners`, fault.Conflict, "things_owner_exists"),
		Entry("a name that is not allowed", `UPDATE things SET name = 'bad'`, fault.Invalid, "things_name_known"),
		Entry("a name that is missing", `UPDATE things SET name = NULL`, fault.Invalid, ""),
		Entry("a name that is too long", `UPDATE things SET name = 'far too long'`, fault.Invalid, ""),
	)

	It("knows no constraint of other errors", func() {
		Expect(postgres.Constraint(io.EOF)).To(BeEmpty())
	})
})
