package postgres_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/postgres"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

const insertThing = `INSERT INTO things (id, name) VALUES ($1, 'a')`

func insert(id int) func(*sqlx.Tx) error {
	return func(tx *sqlx.Tx) error {
		_, err := tx.Exec(insertThing, id)
		return err
	}
}

var _ = Describe("InTx", func() {
	It("commits what the function did, or nothing of it", func(ctx SpecContext) {
		db := testDB.Open(1)
		Expect(db.InTx(ctx, insert(1))).To(Succeed())
		err := db.InTx(ctx, func(tx *sqlx.Tx) error {
			Expect(insert(2)(tx)).To(Succeed())
			return io.ErrUnexpectedEOF
		})
		Expect(err).To(MatchError(io.ErrUnexpectedEOF))
		Expect(countThings(db)).To(Equal(1))
	})

	It("rolls back when the function panics, and lets the panic through", func(ctx SpecContext) {
		db := testDB.Open(1)
		Expect(func() {
			_ = db.InTx(ctx, func(tx *sqlx.Tx) error { _ = insert(1)(tx); panic("defect") })
		}).To(PanicWith("defect"))
		Expect(countThings(db)).To(BeZero())
	})

	It("commits nothing once its context has ended", func() {
		db := testDB.Open(1)
		ctx, cancel := context.WithCancel(context.Background())
		err := db.InTx(ctx, func(tx *sqlx.Tx) error { defer cancel(); return insert(1)(tx) })
		Expect(fault.KindOf(err)).To(Equal(fault.Unavailable))
		Expect(errors.Is(err, postgres.ErrCommitUnknown)).To(BeFalse())
		Expect(countThings(db)).To(BeZero())
	})

	It("refuses to commit after a statement whose error was swallowed", func(ctx SpecContext) {
		db := testDB.Open(1)
		err := db.InTx(ctx, func(tx *sqlx.Tx) error { _, _ = tx.Exec(`SELECT 1/0`); return nil })
		Expect(err).To(HaveOccurred())
		Expect(errors.Is(err, postgres.ErrCommitUnknown)).To(BeFalse())
	})

	It("repeats both of two transactions that deadlock until both are done (B4, PG6)", func(ctx SpecContext) {
		db := testDB.Open(4)
		db.MustExec(`INSERT INTO things (id, name) VALUES (1, 'a'), (2, 'a')`)
		var calls atomic.Int32
		var both sync.WaitGroup
		first, second := rendezvous()
		update := func(a, b int, wait func()) func(*sqlx.Tx) error {
			return func(tx *sqlx.Tx) error {
				calls.Add(1)
				tx.MustExec(`SET LOCAL deadlock_timeout = '20ms'`)
				if _, err := tx.Exec(`UPDATE things SET name = 'b' WHERE id = $1`, a); err != nil {
					return err
				}
				wait()
				_, err := tx.Exec(`UPDATE things SET name = 'c' WHERE id = $1`, b)
				return err
			}
		}
		errs := make(chan error, 2)
		both.Go(func() { errs <- db.InTx(ctx, update(1, 2, first)) })
		both.Go(func() { errs <- db.InTx(ctx, update(2, 1, second)) })
		both.Wait()
		Expect(errs).To(Receive(BeNil()))
		Expect(errs).To(Receive(BeNil()))
		Expect(calls.Load()).To(BeNumerically(">=", 3))
	}, NodeTimeout(20*time.Second))

	It("gives up after five serialization failures", func(ctx SpecContext) {
		db, calls := testDB.Open(1), 0
		err := db.InTx(ctx, func(tx *sqlx.Tx) error {
			calls++
			_, err := tx.Exec(`DO $$ BEGIN RAISE SQLSTATE '40001'; END $$`)
			return postgres.Translate(err)
		})
		Expect(calls).To(Equal(5))
		Expect(fault.CodeOf(err)).To(Equal(postgres.CodeRetry))
	})

	It("does not repeat other errors, and reports a deferred constraint as what it is", func(ctx SpecContext) {
		db, calls := testDB.Open(1), 0
		err := db.InTx(ctx, func(tx *sqlx.Tx) error {
			calls++
			_, err := tx.Exec(`INSERT INTO things (id, name, slot) VALUES (1, 'a', 7), (2, 'a', 7)`)
			return err
		})
		Expect(calls).To(Equal(1))
		Expect(fault.CodeOf(err)).To(Equal(postgres.CodeDuplicate))
		Expect(postgres.Constraint(err)).To(Equal("things_one_per_slot"))
	})

	DescribeTable("never repeats a commit whose outcome is unknown (B3, PG7)",
		func(ctx SpecContext, misbehave func(*proxy), rows int) {
			p, url := newProxy(testDB.URL)
			db, calls := openAt(url), 0
			misbehave(p)
			err := db.InTx(ctx, func(tx *sqlx.Tx) error { calls++; return insert(1)(tx) })
			Expect(err).To(MatchError(postgres.ErrCommitUnknown))
			Expect(fault.KindOf(err)).To(Equal(fault.Unavailable))
			Expect(fault.CodeOf(err)).To(Equal(postgres.CodeCommitUnknown))
			Expect(calls).To(Equal(1))
			direct := testDB.Open(1)
			Eventually(func() int { return countThings(direct) }).Should(Equal(rows))
			Consistently(func() int { return countThings(direct) }, "100ms").Should(Equal(rows))
		},
		Entry("although it has happened", func(p *proxy) { p.cutAtCommit.Store(true) }, 1),
		Entry("although it has not", func(p *proxy) { p.loseAtCommit.Store(true) }, 0),
	)

	It("takes the word of a server that goes away during a commit for nothing", func(ctx SpecContext) {
		db, calls := testDB.Open(1), 0
		err := db.InTx(ctx, func(tx *sqlx.Tx) error {
			calls++
			_, err := tx.Exec(`INSERT INTO doomed VALUES (1)`)
			return err
		})
		Expect(err).To(MatchError(postgres.ErrCommitUnknown))
		Expect(calls).To(Equal(1))
	})
})

// rendezvous makes the first attempts of two transactions wait for each other;
// later attempts pass.
func rendezvous() (first, second func()) {
	var arrived sync.WaitGroup
	arrived.Add(2)
	side := func() func() {
		var once sync.Once
		return func() { once.Do(func() { arrived.Done(); arrived.Wait() }) }
	}
	return side(), side()
}

var _ = Describe("InReadTx", func() {
	It("sees one unchanging view", func(ctx SpecContext) {
		db, other := testDB.Open(1), testDB.Open(1)
		err := db.InReadTx(ctx, func(tx *sqlx.Tx) error {
			var before, after int
			Expect(tx.Get(&before, `SELECT count(*) FROM things`)).To(Succeed())
			other.MustExec(insertThing, 1)
			Expect(tx.Get(&after, `SELECT count(*) FROM things`)).To(Succeed())
			Expect(after).To(Equal(before))
			return nil
		})
		Expect(err).ToNot(HaveOccurred())
		Expect(countThings(db)).To(Equal(1))
	})

	It("refuses to write", func(ctx SpecContext) {
		db := testDB.Open(1)
		Expect(db.InReadTx(ctx, insert(1))).To(HaveOccurred())
		Expect(countThings(db)).To(BeZero())
	})
})
