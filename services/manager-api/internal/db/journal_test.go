package db_test

import (
	"errors"

	"github.com/jmoiron/sqlx"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

var _ = Describe("The journal", func() {
	It("keeps rows in the order in which they were written, as they were written", func() {
		d := newDB()
		by := db.WithActor(ctx(), db.Actor{Name: "alice", RequestID: "r-1"})
		Expect(d.Tx(by, func(tx *sqlx.Tx) error {
			return db.WriteJournal(by, tx, db.Entry{Subject: "x/1", Code: "cause", Inputs: map[string]int{"n": 1}},
				db.Entry{Subject: "x/2", Code: "effect"})
		})).To(Succeed())
		Expect(texts(`SELECT concat_ws(' ', actor, subject, code, inputs->>'n', request_id) FROM journal ORDER BY seq`)).
			To(Equal([]string{"alice x/1 cause 1 r-1", "alice x/2 effect r-1"}))
		_, err := database.Pool.Exec(`UPDATE journal SET message = 'x'`)
		Expect(err).To(MatchError(ContainSubstring("append-only")))
	})

	It("has no row of a change that did not happen", func() {
		lost := errors.New("lost")
		Expect(newDB().Tx(ctx(), func(tx *sqlx.Tx) error {
			if err := db.WriteJournal(ctx(), tx, db.Entry{Subject: "x/1", Code: "cause"}); err != nil {
				return err
			}
			return lost
		})).To(MatchError(lost))
		Expect(texts(`SELECT code FROM journal`)).To(BeEmpty())
	})
})
