package api_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("/freeze", func() {
	It("says who froze what, why, and until when, in health too", func() {
		h := start()
		h.ok(201, "POST", "/messaging/exchanges", `{"name":"here"}`)
		h.ok(404, "GET", "/messaging/exchanges/1/freeze", "")
		h.ok(200, "PUT", "/messaging/exchanges/1/freeze", `{"reason":"the database moves","until":"2999-01-01T00:00:00Z"}`)
		Expect(h.ok(200, "GET", "/messaging/exchanges/1/freeze", "").object()).
			To(And(HaveKeyWithValue("created_by", "admin"), HaveKeyWithValue("reason", "the database moves"),
				HaveKeyWithValue("messaging_exchange_id", BeNumerically("==", 1)),
				HaveKeyWithValue("until", "2999-01-01T00:00:00Z")))
		Expect(h.ok(200, "GET", "/messaging/exchanges/1/health", "").object()).To(HaveKey("freeze"))
		h.ok(204, "DELETE", "/messaging/exchanges/1/freeze", "")
		h.ok(404, "DELETE", "/messaging/exchanges/1/freeze", "")
		Expect(h.ok(200, "GET", "/messaging/exchanges/1/health", "").object()).NotTo(HaveKey("freeze"))
	})

	It("of everything is for unbound tokens alone, and everybody may see it", func() {
		h := start()
		h.ok(201, "POST", "/messaging/exchanges", `{"name":"here"}`)
		h.ok(201, "POST", "/messaging/exchanges", `{"name":"there"}`)
		h.ok(200, "PUT", "/freeze", `{"reason":"stop"}`)
		Expect(h.call("PUT", "/freeze", `{"reason":"mine"}`, "Authorization", "Bearer "+tokenOf("foreign-operator")).status).
			To(Equal(403))
		Expect(h.call("DELETE", "/freeze", "", "Authorization", "Bearer "+tokenOf("foreign-operator")).status).To(Equal(403))
		Expect(h.call("GET", "/freeze", "", "Authorization", "Bearer "+tokenOf("foreign-operator")).status).To(Equal(200))
		Expect(h.call("PUT", "/messaging/exchanges/1/freeze", `{"reason":"not mine"}`,
			"Authorization", "Bearer "+tokenOf("foreign-operator")).status).To(Equal(404))
		Expect(h.ok(200, "GET", "/messaging/exchanges/2/health", "").object()).To(HaveKey("freeze"))
	})

	DescribeTable("refuses", func(body string, want int) {
		h := start()
		Expect(h.call("PUT", "/freeze", body).status).To(Equal(want))
		h.ok(404, "GET", "/freeze", "")
	},
		Entry("no reason", `{}`, 400),
		Entry("an end in the past", `{"reason":"r","until":"2001-01-01T00:00:00Z"}`, 400),
		Entry("an unknown field", `{"reason":"r","unti":"2999-01-01T00:00:00Z"}`, 400),
	)
})
