package lease_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/lease"
	"github.com/openaperture/openaperture/pkg/postgres"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

const (
	name = "leader/7"
	ttl  = time.Minute
)

// held takes the lease for a holder who must get it.
func held(ctx context.Context, db *postgres.DB, holder string) lease.Lease {
	GinkgoHelper()
	l, won, err := lease.Acquire(ctx, db, name, holder, ttl)
	Expect(err).ToNot(HaveOccurred())
	Expect(won).To(BeTrue())
	return l
}

// expire lets the lease run out, by the only clock that counts.
func expire(db *postgres.DB) {
	db.MustExec(`UPDATE leases SET expires_at = clock_timestamp() - interval '1 millisecond'`)
}

func release(db *postgres.DB) {
	GinkgoHelper()
	l, err := lease.Get(context.Background(), db, name)
	Expect(err).ToNot(HaveOccurred())
	Expect(lease.Release(context.Background(), db, name, l.Token)).To(BeTrue())
}

func beSuperseded() OmegaMatcher {
	return SatisfyAll(WithTransform(fault.KindOf, Equal(fault.Conflict)),
		WithTransform(fault.CodeOf, Equal(lease.CodeSuperseded)))
}

var _ = Describe("Acquire", func() {
	DescribeTable("decides by holder and expiry",
		func(ctx SpecContext, before func(*postgres.DB), holder string, wins, newToken bool) {
			db := testDB.Open(1)
			first := held(ctx, db, "a")
			_, err := lease.Renew(ctx, db, name, first.Token, ttl, json.RawMessage(`{"term":1}`))
			Expect(err).ToNot(HaveOccurred())
			before(db)
			l, won, err := lease.Acquire(ctx, db, name, holder, ttl)
			Expect(err).ToNot(HaveOccurred())
			Expect(won).To(Equal(wins))
			if !wins {
				Expect(l.Holder).To(Equal("a"))
				Expect(l.Token).To(Equal(first.Token))
				return
			}
			Expect(l.Holder).To(Equal(holder))
			Expect(l.Token > first.Token).To(Equal(newToken))
			Expect(l.Remaining()).To(BeNumerically("~", ttl, time.Second))
			want := `{"term":1}`
			if newToken {
				want = `{}` // a new hold begins without the old one's data
			}
			Expect(l.Data).To(MatchJSON(want))
		},
		Entry("another's lease is refused", func(*postgres.DB) {}, "b", false, false),
		Entry("one's own goes on under its token", func(*postgres.DB) {}, "a", true, false),
		Entry("another's expired one is taken", expire, "b", true, true),
		Entry("one's own expired one starts anew", expire, "a", true, true),
		Entry("a released one is taken", release, "b", true, true),
		Entry("one's own released one starts anew", release, "a", true, true),
	)

	It("lets exactly one of twenty win, round after round", func(ctx SpecContext) {
		db := testDB.Open(10)
		last := int64(0)
		for range 5 {
			var winners atomic.Int32
			var token atomic.Int64
			var all sync.WaitGroup
			for i := range 20 {
				all.Go(func() {
					defer GinkgoRecover()
					l, won, err := lease.Acquire(ctx, db, name, fmt.Sprintf("holder-%d", i), ttl)
					Expect(err).ToNot(HaveOccurred())
					if won {
						winners.Add(1)
						token.Store(l.Token)
					}
				})
			}
			all.Wait()
			Expect(winners.Load()).To(Equal(int32(1)))
			Expect(token.Load()).To(BeNumerically(">", last))
			last = token.Load()
			expire(db)
		}
	}, NodeTimeout(30*time.Second))

	It("gives rising tokens across all names", func(ctx SpecContext) {
		db, last := testDB.Open(1), int64(0)
		for i := range 5 {
			l, _, err := lease.Acquire(ctx, db, fmt.Sprintf("claim/%d", i), "a", ttl)
			Expect(err).ToNot(HaveOccurred())
			Expect(l.Token).To(BeNumerically(">", last))
			last = l.Token
		}
	})

	It("expires by itself", func(ctx SpecContext) {
		db := testDB.Open(1)
		_, won, err := lease.Acquire(ctx, db, name, "a", 50*time.Millisecond)
		Expect(err).ToNot(HaveOccurred())
		Expect(won).To(BeTrue())
		Eventually(func() bool { _, won, _ := lease.Acquire(ctx, db, name, "b", ttl); return won }).Should(BeTrue())
	})

	It("judges the expiry at the moment of the statement, not at the start of its transaction", func(ctx SpecContext) {
		db, other := testDB.Open(1), testDB.Open(1)
		err := db.InTx(ctx, func(tx *sqlx.Tx) error {
			tx.MustExec(`SELECT now()`)
			_, won, err := lease.Acquire(ctx, other, name, "a", time.Millisecond)
			Expect(err).ToNot(HaveOccurred())
			Expect(won).To(BeTrue())
			Eventually(func() bool { l, _ := lease.Get(ctx, other, name); return l.Expired() }).Should(BeTrue())
			_, won, err = lease.Acquire(ctx, tx, name, "b", ttl)
			Expect(won).To(BeTrue())
			return err
		})
		Expect(err).ToNot(HaveOccurred())
	})

	DescribeTable("refuses what is no lease",
		func(ctx SpecContext, name, holder string, ttl time.Duration) {
			_, won, err := lease.Acquire(ctx, testDB.Open(1), name, holder, ttl)
			Expect(err).To(HaveOccurred())
			Expect(won).To(BeFalse())
		},
		Entry("without a name", "", "a", ttl),
		Entry("without a holder", name, "", ttl),
		Entry("without a duration", name, "a", time.Duration(0)),
	)
})

var _ = Describe("A holder", func() {
	type row struct {
		before func(context.Context, *postgres.DB)
		renews bool
		valid  bool
	}
	takenOver := func(ctx context.Context, db *postgres.DB) { expire(db); held(ctx, db, "b") }
	DescribeTable("renews and writes only under the token that the row has",
		func(ctx SpecContext, r row) {
			db := testDB.Open(1)
			l := held(ctx, db, "a")
			r.before(ctx, db)
			if err := lease.Valid(ctx, db, name, l.Token); r.valid {
				Expect(err).ToNot(HaveOccurred())
			} else {
				Expect(err).To(beSuperseded())
			}
			renewed, err := lease.Renew(ctx, db, name, l.Token, ttl, nil)
			if !r.renews {
				Expect(err).To(beSuperseded())
				return
			}
			Expect(err).ToNot(HaveOccurred())
			Expect(renewed.Token).To(Equal(l.Token))
			Expect(lease.Valid(ctx, db, name, l.Token)).To(Succeed())
		},
		Entry("while it holds", row{func(context.Context, *postgres.DB) {}, true, true}),
		Entry("expired, but nobody took over", row{func(_ context.Context, db *postgres.DB) { expire(db) }, true, false}),
		Entry("somebody took over", row{takenOver, false, false}),
		Entry("somebody took over and released", row{func(ctx context.Context, db *postgres.DB) {
			takenOver(ctx, db)
			release(db)
		}, false, false}),
		Entry("it was released meanwhile", row{func(_ context.Context, db *postgres.DB) { release(db) }, false, false}),
		Entry("its row is gone", row{func(_ context.Context, db *postgres.DB) {
			db.MustExec(`DELETE FROM leases`)
		}, false, false}),
		Entry("it expired and came back under a new token", row{
			func(ctx context.Context, db *postgres.DB) {
				expire(db)
				held(ctx, db, "a")
			}, false, false}),
	)

	It("keeps its data when a renewal brings none", func(ctx SpecContext) {
		db := testDB.Open(1)
		l := held(ctx, db, "a")
		_, err := lease.Renew(ctx, db, name, l.Token, ttl, json.RawMessage(`{"covered":true}`))
		Expect(err).ToNot(HaveOccurred())
		_, err = lease.Renew(ctx, db, name, l.Token, ttl, nil)
		Expect(err).ToNot(HaveOccurred())
		got, err := lease.Get(ctx, db, name)
		Expect(err).ToNot(HaveOccurred())
		Expect(got.Data).To(MatchJSON(`{"covered":true}`))
	})

	It("releases its own lease, once, and never another's", func(ctx SpecContext) {
		db := testDB.Open(1)
		old := held(ctx, db, "a")
		expire(db)
		l := held(ctx, db, "b")
		released, err := lease.Release(ctx, db, name, old.Token)
		Expect(err).ToNot(HaveOccurred())
		Expect(released).To(BeFalse())
		released, err = lease.Release(ctx, db, name, l.Token)
		Expect(err).ToNot(HaveOccurred())
		Expect(released).To(BeTrue())
		_, err = lease.Get(ctx, db, name)
		Expect(fault.KindOf(err)).To(Equal(fault.NotFound))
	})

	It("keeps the lease until the transaction in which it was checked has ended", func(ctx SpecContext) {
		db, other := testDB.Open(1), testDB.Open(1)
		l := held(ctx, db, "a")
		taken := make(chan bool, 1)
		err := db.InTx(ctx, func(tx *sqlx.Tx) error {
			Expect(lease.Valid(ctx, tx, name, l.Token)).To(Succeed())
			go func() {
				defer GinkgoRecover()
				other.MustExec(`UPDATE leases SET holder = 'b', token = nextval('lease_tokens')`)
				taken <- true
			}()
			Consistently(taken, "200ms").ShouldNot(Receive())
			return nil
		})
		Expect(err).ToNot(HaveOccurred())
		Eventually(taken).Should(Receive())
		Expect(lease.Valid(ctx, db, name, l.Token)).To(beSuperseded())
	})
})

var _ = Describe("A database that fails", func() {
	It("decides nothing", func() {
		db := testDB.Open(1)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, won, err := lease.Acquire(ctx, db, name, "a", ttl)
		Expect(won).To(BeFalse())
		_, renewErr := lease.Renew(ctx, db, name, 1, ttl, nil)
		_, releaseErr := lease.Release(ctx, db, name, 1)
		_, getErr := lease.Get(ctx, db, name)
		for _, err := range []error{err, renewErr, releaseErr, getErr, lease.Valid(ctx, db, name, 1)} {
			Expect(fault.KindOf(err)).To(Equal(fault.Unavailable))
		}
	})
})

var _ = Describe("A renewal", func() {
	DescribeTable("is missed (E11)",
		func(left time.Duration, want bool) {
			l := lease.Lease{ExpiresAt: time.Unix(1000, 0).Add(left), Now: time.Unix(1000, 0)}
			Expect(l.MissedRenewal(30 * time.Second)).To(Equal(want))
		},
		Entry("not at first", 30*time.Second, false),
		Entry("not when it is due", 20*time.Second, false),
		Entry("not before two fifths of the time", 18*time.Second+1, false),
		Entry("then it is", 18*time.Second, true),
		Entry("and after the lease has expired", -time.Second, true),
	)
})
