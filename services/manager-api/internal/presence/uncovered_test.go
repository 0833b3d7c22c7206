package presence_test

import (
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/managerapi"
)

var _ = Describe("An exchange that nobody covers (fault 7)", func() {
	events := func(s *site) []string {
		GinkgoHelper()
		Expect(s.TellCoverage(ctx())).To(Succeed())
		return s.list(`SELECT type || ' ' || severity || ' ' || messaging_exchange_id FROM system_events ORDER BY id`)
	}
	last := func(s *site) string {
		GinkgoHelper()
		all := s.list(`SELECT message FROM system_events ORDER BY id`)
		return strings.Join(all[max(0, len(all)-1):], "")
	}
	needed := func(s *site) {
		GinkgoHelper()
		s.exec(`INSERT INTO system_components (messaging_exchange_id, type, deployment_repo, deployment_repo_git_ref,
			upgrade_strategy, proof, inserted_at)
			VALUES ($1, 'builder', 'd', 'main', 'hourly', 'modules', now() - interval '1 day')`, s.exchange)
	}
	// manager-api has been there for a day
	there := func(s *site) {
		GinkgoHelper()
		s.exec(`INSERT INTO ticks (name, ticked_at, present_since) VALUES ('sweeper', now(), now() - interval '1 day')`)
	}
	uncovered := func(s *site, since string) {
		GinkgoHelper()
		s.lead(managerapi.LeaseRequest{Holder: "overseer-1", Term: s.term})
		s.exec(`UPDATE coverage SET last_covered = now() - $1::interval`, since)
	}
	const told, ended = "exchange_uncovered error 1", "exchange_covered info 1"

	It("raises one SystemEvent, which names the deaf leader, and one when it is covered again", func() {
		s := newSite()
		needed(s)
		there(s)
		Expect(events(s)).To(BeEmpty(), "it is covered")
		uncovered(s, "9 minutes 59 seconds")
		Expect(events(s)).To(BeEmpty())
		uncovered(s, "10 minutes 1 second")
		Expect(events(s)).To(Equal([]string{told}))
		Expect(last(s)).To(Equal("no overseer has heard the exchange for 10m0s at least, though overseer-1 leads: nothing " +
			"is proven or expired there; look at the overseers' logs and at the exchange's broker"))
		uncovered(s, "3 hours")
		Expect(events(s)).To(Equal([]string{told}), "once")
		s.lead(managerapi.LeaseRequest{Holder: "overseer-1", Term: s.term, Covered: true})
		Expect(events(s)).To(Equal([]string{told, ended}))
		Expect(events(s)).To(Equal([]string{told, ended}), "once")
		Expect(s.list(`SELECT code FROM journal WHERE subject = 'exchange/1' AND code LIKE 'exchange%' ORDER BY seq`)).
			To(Equal([]string{"exchange_uncovered", "exchange_covered"}))
		uncovered(s, "1 hour")
		Expect(events(s)).To(Equal([]string{told, ended, told}), "a new spell")
	})

	It("says so where nobody leads, or ever did", func() {
		s := newSite()
		needed(s)
		there(s)
		Expect(s.Resign(ctx(), s.exchange, s.term)).To(Succeed())
		s.exec(`DELETE FROM coverage`)
		Expect(events(s)).To(Equal([]string{told}))
		Expect(last(s)).To(HavePrefix("no overseer leads the exchange, for 10m0s at least: nothing is checked"))
	})

	It("is none without components, nor before their overseer has had the time to come", func() {
		s := newSite()
		there(s)
		uncovered(s, "1 hour")
		Expect(events(s)).To(BeEmpty())
		needed(s)
		s.exec(`UPDATE system_components SET inserted_at = now() - interval '9 minutes'`)
		Expect(events(s)).To(BeEmpty())
		s.exec(`UPDATE system_components SET inserted_at = now() - interval '11 minutes'`)
		Expect(events(s)).To(Equal([]string{told}))
		s.exec(`DELETE FROM system_components`)
		Expect(events(s)).To(Equal([]string{told, ended}))
	})

	It("does not count time in which manager-api was away", func() {
		s := newSite()
		needed(s)
		there(s)
		uncovered(s, "1 hour")
		s.exec(`UPDATE ticks SET present_since = now() - interval '9 minutes'`)
		Expect(events(s)).To(BeEmpty())
		s.exec(`UPDATE ticks SET present_since = now() - interval '11 minutes'`)
		Expect(events(s)).To(Equal([]string{told}))
	})

	It("leaves a row that somebody keeps locked to the next pass", func() {
		s := newSite()
		needed(s)
		there(s)
		uncovered(s, "1 hour")
		tx, err := database.Open(1).Beginx()
		Expect(err).NotTo(HaveOccurred())
		tx.MustExec(`SELECT 1 FROM coverage FOR UPDATE`)
		Expect(events(s)).To(BeEmpty())
		Expect(tx.Rollback()).To(Succeed())
		Expect(events(s)).To(Equal([]string{told}))
	})
})
