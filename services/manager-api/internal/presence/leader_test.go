package presence_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

var _ = Describe("Leadership", func() {
	It("C1 is one's at a time; a new process of the same host has a new term", func() {
		s := newSite()
		_, err := s.Lead(ctx(), s.exchange, managerapi.LeaseRequest{Holder: "overseer-2", TTLMS: 15_000})
		Expect(fault.CodeOf(err)).To(Equal(db.CodeHeld))
		again := s.lead(managerapi.LeaseRequest{Holder: "overseer-1"})
		Expect(again.Term).To(BeNumerically(">", s.term))
		Expect(again.Covering).To(BeFalse())
	})

	It("C2 cannot be renewed once it has expired", func() {
		s := newSite()
		s.exec(`UPDATE leases SET expires_at = now() - interval '1 second'`)
		_, err := s.Lead(ctx(), s.exchange, managerapi.LeaseRequest{Holder: "overseer-1", Term: s.term, TTLMS: 15_000})
		Expect(fault.CodeOf(err)).To(Equal(db.CodeStaleTerm))
		_, err = s.Leader(ctx(), s.exchange)
		Expect(fault.Is(err, fault.NotFound)).To(BeTrue())
	})
})
