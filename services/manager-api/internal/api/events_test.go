package api_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

const anEvent = `{"type":"t","severity":"error","message":"m","data":{"a":[1]},"unique":true}`

var _ = Describe("/system_events", func() {
	It("raises, and tells its place (defect 26)", func() {
		h := start()
		Expect(h.ok(201, "POST", "/system_events", anEvent).header.Get("Location")).To(Equal("/system_events/1"))
		Expect(h.ok(200, "GET", "/system_events/1", "").object()).
			To(And(HaveKeyWithValue("data", HaveKey("a")), HaveKeyWithValue("dismissed_at", BeNil()),
				HaveKeyWithValue("inserted_at", MatchRegexp(stamped))))
	})

	DescribeTable("a unique one, after the same, is", func(between, body string, want int) {
		h := start()
		h.ok(201, "POST", "/system_events", anEvent)
		if between != "" {
			_, err := h.db.Exec(between)
			Expect(err).NotTo(HaveOccurred())
		}
		h.ok(want, "POST", "/system_events", body)
	},
		Entry("refused", "", anEvent, 409),
		Entry("raised if it does not ask to be unique", "", `{"type":"t","severity":"error","message":"m","data":{"a":[1]},
			"unique":"true"}`, 201),
		Entry("raised with other data", "", `{"type":"t","severity":"error","message":"m","data":{"a":[2]},"unique":true}`,
			201),
		Entry("raised without data (defect 15)", "", `{"type":"t","severity":"error","message":"m","unique":true}`, 201),
		Entry("raised with another severity (defect 15)", "", `{"type":"t","severity":"info","message":"m","data":{"a":[1]},
			"unique":true}`, 201),
		Entry("raised after an hour", `UPDATE system_events SET inserted_at = now() - interval '61 minutes'`, anEvent, 201),
		Entry("raised after the first was dismissed (defect 15)", `UPDATE system_events SET dismissed_at = now()`, anEvent,
			201),
	)

	It("is raised once by twenty at once (defect 15)", func() {
		h := start()
		Expect(atOnce(20, func() int { return h.call("POST", "/system_events", anEvent).status })).
			To(Equal(map[int]int{201: 1, 409: 19}))
	})

	It("is assigned and dismissed, with the predecessor's refusals", func() {
		h := start()
		h.ok(201, "POST", "/system_events", anEvent)
		Expect(h.ok(201, "POST", "/users", `{"first_name":"A","last_name":"B","email":"a@b.example"}`).body).
			To(Equal(`"Created user 1"`))
		Expect(h.ok(404, "POST", "/system_events/9/assign", `{}`).body).
			To(MatchJSON(`{"errors":[{"message":"SystemEvent 9 was not found"}]}`))
		Expect(h.ok(400, "POST", "/system_events/1/assign", `{"assignee_id":7}`).body).
			To(MatchJSON(`{"errors":[{"message":"One or more fields for User 7 were invalid"}]}`))
		h.ok(400, "POST", "/system_events/1/assign", `{}`)
		Expect(h.ok(204, "POST", "/system_events/1/assign", `{"assignee_id":"1"}`).header.Get("Location")).
			To(Equal("/system_events/1"))
		Expect(h.ok(400, "POST", "/system_events/1/dismiss", `{"dismissed_by_id":7}`).body).To(ContainSubstring("User 7"))
		h.ok(204, "POST", "/system_events/1/dismiss", `{"dismissed_by_id":1,"dismissed_reason":"done"}`)
		Expect(h.ok(200, "GET", "/system_events/1", "").object()).
			To(And(HaveKeyWithValue("assignee_id", 1.0), HaveKeyWithValue("assigned_at", MatchRegexp(stamped)),
				HaveKeyWithValue("dismissed_by_id", 1.0), HaveKeyWithValue("dismissed_reason", "done"),
				HaveKeyWithValue("dismissed_at", MatchRegexp(stamped))))
		Expect(h.journal("system_event/1")).To(Equal([]string{"event_raised", "event_assigned", "event_dismissed"}))
	})

	It("lists the last day, or all of an assignee, or both", func() {
		h := start()
		h.ok(201, "POST", "/system_events", `{"type":"new","severity":"info"}`)
		h.ok(201, "POST", "/system_events", `{"type":"old","severity":"info"}`)
		h.ok(201, "POST", "/users", `{"first_name":"A","last_name":"B","email":"a@b.example"}`)
		h.ok(204, "POST", "/system_events/2/assign", `{"assignee_id":1}`)
		_, err := h.db.Exec(`UPDATE system_events SET inserted_at = now() - interval '30 hours' WHERE id = 2`)
		Expect(err).NotTo(HaveOccurred())
		for query, want := range map[string]int{"": 1, "?lookback=0": 2, "?lookback=48": 2, "?assignee_id=1": 1,
			"?assignee_id=1&lookback=24": 0} {
			Expect(h.ok(200, "GET", "/system_events"+query, "").objects()).To(HaveLen(want), query)
		}
		h.ok(400, "GET", "/system_events?lookback=x", "") // the predecessor: 500 (defect 24)
		h.ok(400, "GET", "/system_events?assignee_id=x", "")
	})

	It("are a bound caller's if they are about its exchange", func() {
		h := start()
		h.exchanges()
		h.ok(201, "POST", "/system_events", anEvent)                                        // 1: of the whole platform
		Expect(h.callAs("module", "POST", "/system_events", anEvent).status).To(Equal(201)) // 2: of another exchange
		Expect(h.callAs("foreign-module", "POST", "/system_events", anEvent).status).To(Equal(201))
		Expect(h.callAs("foreign-module", "POST", "/system_events", anEvent).status).To(Equal(409))
		Expect(h.ok(200, "GET", "/system_events", "").objects()).
			To(HaveExactElements(HaveKeyWithValue("messaging_exchange_id", BeNil()),
				HaveKeyWithValue("messaging_exchange_id", 1.0), HaveKeyWithValue("messaging_exchange_id", 2.0)))
		Expect(h.callAs("foreign-operator", "GET", "/system_events", "").objects()).
			To(HaveExactElements(HaveKeyWithValue("id", 3.0)))
		for id, want := range map[string][3]int{"1": {404, 404, 404}, "2": {404, 404, 404}, "3": {200, 400, 204}} {
			Expect(h.callAs("foreign-operator", "GET", "/system_events/"+id, "").status).To(Equal(want[0]), id)
			Expect(h.callAs("foreign-operator", "POST", "/system_events/"+id+"/assign", `{}`).status).To(Equal(want[1]), id)
			Expect(h.callAs("foreign-operator", "POST", "/system_events/"+id+"/dismiss", `{}`).status).To(Equal(want[2]), id)
		}
	})

	It("refuses missing fields", func() {
		h := start()
		Expect(h.ok(400, "POST", "/system_events", `{"message":7}`).body).To(MatchJSON(
			`{"errors":[{"message":"One or more fields for SystemEvent were invalid"},{"message":"is invalid"},
				{"type":"can't be blank"},{"severity":"can't be blank"}]}`))
	})
})

var _ = Describe("/users", func() {
	It("answers me for a static token", func() {
		h := start()
		Expect(h.callAs("service", "GET", "/users/me", "").object()).
			To(And(HaveKeyWithValue("first_name", "service"), HaveKeyWithValue("role", "service"),
				HaveKeyWithValue("messaging_exchange_id", 1.0), HaveKeyWithValue("id", BeNil())))
	})

	It("creates and shows users, refuses a duplicate and an address that is none", func() {
		h := start()
		h.ok(201, "POST", "/users", `{"first_name":"A","last_name":"B","email":"a@b.museum"}`)
		Expect(h.ok(200, "GET", "/users/1", "").object()).To(HaveKeyWithValue("email", "a@b.museum"))
		h.ok(409, "POST", "/users", `{"first_name":"A","last_name":"B","email":"a@b.museum"}`)
		h.ok(400, "POST", "/users", `{"first_name":"A","last_name":"B","email":"nobody"}`)
		Expect(h.ok(404, "GET", "/users/9", "").body).To(Equal(`"No user with such ID found"`))
		Expect(h.ok(404, "GET", "/users/x", "").body).To(Equal(`"No user with such ID found"`))
		Expect(h.ok(200, "GET", "/users", "").objects()).To(HaveLen(1))
	})
})
