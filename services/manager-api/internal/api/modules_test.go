package api_test

import (
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

const aModule = `{"hostname":"h1","type":"overseer","status":"active","workload":[{"description":"x"}],
	"source_repo":"git/o","source_repo_git_ref":"v1"}`

var _ = Describe("/messaging/exchanges/:id/modules", func() {
	It("registers, and updates in place (defect 10)", func() {
		h := start()
		h.exchanges()
		a := h.callAs("module", "POST", "/messaging/exchanges/1/modules", aModule)
		Expect(a.status).To(Equal(201), a.body)
		Expect(a.header.Get("Location")).To(Equal("/messaging/exchanges/1/modules/h1"))
		first := h.ok(200, "GET", "/messaging/exchanges/1/modules/h1", "").object()
		Expect(first).To(And(HaveKeyWithValue("workload", ConsistOf(HaveKeyWithValue("description", "x"))),
			HaveKeyWithValue("source_repo_git_ref", "v1"),
			HaveKeyWithValue("deployment_repo", BeNil()), HaveKeyWithValue("updated_at", MatchRegexp(stamped))))
		_, err := h.db.Exec(`UPDATE messaging_exchange_modules SET inserted_at = now() - interval '1 day',
			updated_at = now() - interval '1 hour'`)
		Expect(err).NotTo(HaveOccurred())
		before := h.ok(200, "GET", "/messaging/exchanges/1/modules/h1", "").object()

		h.ok(201, "POST", "/messaging/exchanges/1/modules", `{"hostname":"h1","type":"overseer","status":"inactive",
			"workload":[]}`)
		after := h.ok(200, "GET", "/messaging/exchanges/1/modules", "").objects()
		Expect(after).To(ConsistOf(And(HaveKeyWithValue("id", before["id"]),
			HaveKeyWithValue("inserted_at", before["inserted_at"]),
			HaveKeyWithValue("status", "inactive"), HaveKeyWithValue("workload", BeEmpty()),
			HaveKeyWithValue("source_repo_git_ref", "v1"), HaveKeyWithValue("updated_at", Not(Equal(before["updated_at"]))))))
	})

	It("keeps one module for twenty first beats at once", func() {
		h := start()
		h.exchanges()
		Expect(atOnce(20, func() int { return h.call("POST", "/messaging/exchanges/1/modules", aModule).status })).
			To(Equal(map[int]int{201: 20}))
		Expect(h.ok(200, "GET", "/messaging/exchanges/1/modules", "").objects()).To(HaveLen(1))
	})

	It("forgets a module, whose next beat registers it again", func() {
		h := start()
		h.exchanges()
		h.ok(201, "POST", "/messaging/exchanges/1/modules", aModule)
		h.ok(204, "DELETE", "/messaging/exchanges/1/modules/h1", "")
		h.ok(404, "GET", "/messaging/exchanges/1/modules/h1", "")
		h.ok(201, "POST", "/messaging/exchanges/1/modules", aModule)
		h.ok(200, "GET", "/messaging/exchanges/1/modules/h1", "")
	})

	DescribeTable("refuses", func(method, path, body string, status int, want string) {
		h := start()
		h.exchanges()
		a := h.ok(status, method, path, body)
		if want == "" {
			Expect(a.body).To(BeEmpty())
			return
		}
		Expect(a.body).To(MatchJSON(want))
	},
		Entry("a list of nothing", "GET", "/messaging/exchanges/9/modules", ``, 404,
			`{"errors":[{"message":"MessagingExchangeModule was not found"}]}`),
		Entry("an unknown hostname", "GET", "/messaging/exchanges/1/modules/h9", ``, 404,
			`{"errors":[{"message":"MessagingExchangeModuleDB was not found"}]}`),
		Entry("a beat into nothing, before its fields", "POST", "/messaging/exchanges/9/modules", `{}`, 404,
			`{"errors":[{"message":"MessagingExchange was not found"}]}`),
		Entry("a beat without fields", "POST", "/messaging/exchanges/1/modules", `{}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingExchangeModule were invalid"},{"hostname":"can't be blank"},
				{"type":"can't be blank"},{"status":"can't be blank"},{"workload":"can't be blank"}]}`),
		Entry("a hostname with a slash", "POST", "/messaging/exchanges/1/modules",
			`{"hostname":"a/b","type":"t","status":"active","workload":[]}`, 400,
			`{"errors":[{"message":"An invalid request was made for MessagingExchangeModule"}]}`),
		Entry("a deletion in nothing", "DELETE", "/messaging/exchanges/9/modules/h1", ``, 404, ""),
		Entry("a deletion of nothing", "DELETE", "/messaging/exchanges/1/modules/h1", ``, 404,
			`{"errors":[{"message":"MessagingExchangeModuleDB was not found"}]}`),
	)

	It("takes a batch from a newer overseer: fields it does not know are ignored, beats it cannot use are left out",
		func() {
			h := start()
			h.exchanges()
			batch := `{"version":2,"modules":[
			{"event_type":"status","hostname":"h1","type":"overseer","status":"active","source_repo_git_ref":"v1","boot_id":"b",
			"seq":1,"mood":{"good":true},"workload":[{"a":1,"a":2}]},
			{"event_type":"status","hostname":"","type":"overseer","status":"active"},
			{"event_type":"status","hostname":"h2","type":"overseer","status":"active"}]}`
			a := h.ok(200, "POST", "/messaging/exchanges/1/modules/batch", batch)
			Expect(a.body).To(MatchJSON(`{"accepted":2}`))
			Expect(h.ok(200, "GET", "/messaging/exchanges/1/modules", "").objects()).
				To(ConsistOf(HaveKeyWithValue("hostname", "h1"), HaveKeyWithValue("hostname", "h2")))
		})

	It("stores nothing of a batch that is malformed, too large or for nobody", func() {
		h := start()
		h.exchanges()
		h.ok(400, "POST", "/messaging/exchanges/1/modules/batch", `{"modules":[{"hostname":"h1"`)
		h.ok(400, "POST", "/messaging/exchanges/1/modules/batch", `{"modules":[{"hostname":7}]}`)
		h.ok(413, "POST", "/messaging/exchanges/1/modules/batch", `{"modules":[`+strings.Repeat("{},", 5000)+`{}]}`)
		h.ok(404, "POST", "/messaging/exchanges/9/modules/batch", `{"modules":[{"event_type":"status","hostname":"h1",
			"type":"overseer","status":"active"}]}`)
		Expect(h.ok(200, "GET", "/messaging/exchanges/1/modules", "").objects()).To(BeEmpty())
	})
})
