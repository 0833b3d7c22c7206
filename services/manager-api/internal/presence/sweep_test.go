package presence_test

import (
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
)

var _ = Describe("Silence", func() {
	// silent makes a module that was last heard so long before the end of an hour of covered time.
	silent := func(s *site, host string, since time.Duration) {
		GinkgoHelper()
		s.exec(`UPDATE coverage SET covered_since = covered_until - interval '1 hour'`)
		s.exec(`INSERT INTO messaging_exchange_modules (messaging_exchange_id, hostname, type, status, updated_at)
			SELECT $1, $2, 'builder', 'active', covered_until - $3 * interval '1 second'
			FROM coverage`, s.exchange, host, since.Seconds())
	}
	sweep := func(s *site) managerapi.ExpiryResult {
		GinkgoHelper()
		r, err := s.Expire(ctx(), s.exchange, managerapi.Expiry{Term: s.term})
		Expect(err).NotTo(HaveOccurred())
		return r
	}

	DescribeTable("E5 counts to the second", func(since time.Duration, inactivated, deleted int) {
		s := newSite()
		silent(s, "h", since)
		r := sweep(s)
		Expect([]int{len(r.Inactivated), len(r.Deleted)}).To(Equal([]int{inactivated, deleted}))
		Expect(s.value(`SELECT count(*) FROM system_events WHERE messaging_exchange_id IS NOT NULL`)).
			To(Equal(fmt.Sprint(inactivated + deleted)))
	},
		Entry("9:59 nothing", 599*time.Second, 0, 0),
		Entry("exactly 10 minutes are not yet over", 600*time.Second, 0, 0),
		Entry("10:01 inactive", 601*time.Second, 1, 0),
		Entry("19:59 inactive", 1199*time.Second, 1, 0),
		Entry("exactly 20 minutes are not yet over", 1200*time.Second, 1, 0),
		Entry("20:01 deleted", 1201*time.Second, 0, 1),
	)

	It("E2 E3 counts only over covered time: our own blindness expires nobody", func() {
		s := newSite()
		silent(s, "h", 30*time.Minute)
		s.exec(`UPDATE coverage SET covered_since = covered_until - interval '9 minutes'`)
		Expect(sweep(s)).To(Equal(managerapi.ExpiryResult{Inactivated: []string{}, Deleted: []string{}}))
		l, err := s.Lead(ctx(), s.exchange, managerapi.LeaseRequest{Holder: "overseer-1", Term: s.term, TTLMS: 60_000,
			Covered: false})
		Expect(err).NotTo(HaveOccurred())
		Expect([]any{l.Covering, l.CoveredSince == nil}).To(Equal([]any{false, true}))
		Expect(sweep(s).Deleted).To(BeEmpty())
		Expect(s.lead(managerapi.LeaseRequest{Holder: "overseer-1", Term: s.term, Covered: true}).CoveredSince).NotTo(BeNil())
	})

	DescribeTable("takes modules in the order of batches, by hostname, and meets none in a deadlock",
		func(since time.Duration) {
			s := newSite()
			silent(s, "b", since)
			silent(s, "a", since)
			s.exec(`ANALYZE messaging_exchange_modules`) // so few are scanned as they lie
			tx := database.Begin(`SELECT id FROM messaging_exchange_modules WHERE hostname = 'a' FOR UPDATE`)
			var r managerapi.ExpiryResult
			Expect(database.Behind(tx, func() (err error) {
				r, err = s.Expire(ctx(), s.exchange, managerapi.Expiry{Term: s.term})
				return err
			}, func() {
				_, err := tx.Exec(`UPDATE messaging_exchange_modules SET updated_at = now() + interval '1 hour'
					WHERE hostname = 'b'`)
				Expect(err).NotTo(HaveOccurred())
			})).To(Succeed())
			Expect(append(r.Inactivated, r.Deleted...)).To(Equal([]string{"a"}), "b was heard meanwhile")
		},
		Entry("inactive", 15*time.Minute),
		Entry("deleted", 25*time.Minute),
	)

	It("deletes one that has said inactive, too, and takes none away that was heard after the covered time", func() {
		s := newSite()
		silent(s, "gone", 1201*time.Second)
		silent(s, "ahead", -time.Hour)
		s.exec(`UPDATE messaging_exchange_modules SET status = 'inactive' WHERE hostname = 'gone'`)
		Expect(sweep(s)).To(Equal(managerapi.ExpiryResult{Inactivated: []string{}, Deleted: []string{"gone"}}))
	})

	DescribeTable("E4 of many at once is not believed", func(total, dead int, since time.Duration, held bool) {
		s := newSite()
		for i := range total {
			silence := time.Second
			if i < dead {
				silence = since
			}
			silent(s, fmt.Sprint("m", i), silence)
		}
		Expect(sweep(s).Held).To(Equal(held))
	},
		Entry("six of ten", 10, 6, 10*time.Minute, true),
		Entry("five of ten is not more than half", 10, 5, 21*time.Minute, false),
		Entry("four of four are too few", 4, 4, 21*time.Minute, false),
		Entry("five of five", 5, 5, 21*time.Minute, true),
		Entry("six of ten, but only just silent", 10, 6, 10*time.Minute-time.Second, false),
		Entry("nobody", 0, 0, time.Duration(0), false),
	)

	It("R9 E6 spares a module whose beat came, and the inactive one comes back with its first beat", func() {
		s := newSite()
		silent(s, "h", 15*time.Minute)
		Expect(sweep(s).Inactivated).To(Equal([]string{"h"}))
		Expect(sweep(s).Inactivated).To(BeEmpty(), "once is enough")
		s.exec(`UPDATE messaging_exchange_modules SET updated_at = now() - interval '25 minutes'`)
		s.heard("h")
		Expect(sweep(s).Deleted).To(BeEmpty())
		Expect(s.value(`SELECT status FROM messaging_exchange_modules`)).To(Equal("active"))
	})

	It("E4 of most of an exchange holds deletions until an operator releases them", func() {
		s := newSite()
		for i := range 6 {
			silent(s, fmt.Sprint("gone-", i), 25*time.Minute)
		}
		for i := range 4 {
			silent(s, fmt.Sprint("here-", i), time.Minute)
		}
		held := sweep(s)
		Expect([]any{held.Held, len(held.Deleted), len(held.Inactivated)}).To(Equal([]any{true, 0, 6}))
		Expect(sweep(s).Held).To(BeTrue())
		Expect(s.events()).To(Equal([]string{"module_deletion_held error", "module_inactive warning"}))
		Expect(s.value(`SELECT message FROM system_events ORDER BY id`)).
			To(Equal("6 of 10 modules are silent: they are kept for 30m0s of covered time, " +
				"so look at their hosts and broker, or let them go by DELETE /messaging/exchanges/1/deletion_hold"))
		Expect(s.ReleaseHold(ctx(), s.exchange)).To(Succeed())
		Expect(sweep(s).Deleted).To(HaveLen(6))
		sweep(s)
		Expect(fault.Is(s.ReleaseHold(ctx(), s.exchange), fault.NotFound)).To(BeTrue(), "the hold went with its cause")
	})

	It("E4 the hold ends by itself after 30 covered minutes", func() {
		s := newSite()
		for i := range 6 {
			silent(s, fmt.Sprint("gone-", i), 25*time.Minute)
		}
		Expect(sweep(s).Held).To(BeTrue())
		s.exec(`UPDATE coverage SET covered_until = covered_until + interval '29 minutes 59 seconds'`)
		Expect(sweep(s).Held).To(BeTrue())
		s.exec(`UPDATE coverage SET covered_until = covered_until + interval '2 seconds'`)
		r := sweep(s)
		Expect([]any{r.Held, len(r.Deleted)}).To(Equal([]any{false, 6}))
	})
})
