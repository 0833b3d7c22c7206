package api_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("GET /orders", func() {
	announced := func(h *harness) string {
		var text string
		Expect(h.db.Get(&text, `SELECT coalesce(string_agg(messaging_exchange_id || ' ' || hostname || ' ' || boot_id || ' '
			|| array_to_string(capabilities, ','), '; ' ORDER BY messaging_exchange_id), '') FROM executors`)).To(Succeed())
		return text
	}
	const query = "/orders?holder=host-1.deployer-1&boot_id=b1&service=deployer&capabilities="

	It("announces an executor in the exchange of its token (fault 20)", func() {
		h := start()
		h.exchanges()
		Expect(h.callAs("service", "GET", query+"instances%2Cresolve%2Cfly", "").body).To(MatchJSON(`{"items":[]}`))
		Expect(announced(h)).To(Equal("1 host-1.deployer-1 b1 instances,resolve"), "what nobody knows is left out")
		Expect(h.callAs("foreign-service", "GET", query+"resolve", "").status).To(Equal(200))
		Expect(announced(h)).To(Equal("1 host-1.deployer-1 b1 instances,resolve; 2 host-1.deployer-1 b1 resolve"))
		Expect(h.callAs("service", "GET", query, "").status).To(Equal(200))
		Expect(announced(h)).To(HavePrefix("1 host-1.deployer-1 b1 ;"), "it cannot do it any more")
	})

	DescribeTable("announces nobody",
		func(caller, path string, status int) {
			h := start()
			h.exchanges()
			Expect(h.callAs(caller, "GET", path, "").status).To(Equal(status))
			Expect(announced(h)).To(BeEmpty())
		},
		Entry("for an executor of the former release", "service", "/orders?holder=host-1.deployer-1", 200),
		Entry("for a module", "module", query+"resolve", 403),
		Entry("for an admin, who belongs to no exchange", "admin", query+"resolve", 200),
	)
})
