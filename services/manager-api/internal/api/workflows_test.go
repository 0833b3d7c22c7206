package api_test

import (
	"encoding/json"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// workflow makes a workflow and returns its path.
func (h *harness) workflow(body string) string {
	GinkgoHelper()
	place := h.ok(201, "POST", "/workflows", body).header.Get("Location")
	Expect(place).To(MatchRegexp(`^/workflows/[0-9a-f-]{36}$`))
	return place
}

var _ = Describe("/workflows", func() {
	It("trims repos, puts config first, makes its own id and begins as not completed", func() {
		h := start()
		place := h.workflow(`{"id":"11111111-1111-1111-1111-111111111111","deployment_repo":" git/d/\\ ",
			"source_repo":"git/s//","milestones":["deploy"]}`)
		Expect(place).NotTo(ContainSubstring("1111-1111-1111"))
		Expect(h.ok(200, "GET", place, "").object()).
			To(And(HaveKeyWithValue("deployment_repo", "git/d"), HaveKeyWithValue("source_repo", "git/s"),
				HaveKeyWithValue("milestones", HaveExactElements("config", "deploy")),
				HaveKeyWithValue("workflow_completed", false),
				HaveKeyWithValue("current_step", BeNil()), HaveKeyWithValue("workflow_error", BeNil())))
		Expect(h.ok(200, "GET", h.workflow(`{"milestones":["build","deploy"]}`), "").object()).
			To(HaveKeyWithValue("milestones", HaveExactElements("build", "deploy")))
		Expect(h.ok(200, "GET", h.workflow(`{}`), "").object()).To(HaveKeyWithValue("milestones", BeNil()))
	})

	It("keeps on a PUT what is absent, and a finished one stays finished (defect 17)", func() {
		h := start()
		place := h.workflow(`{"deployment_repo":"d","milestones":["deploy"]}`)
		a := h.ok(204, "PUT", place, `{"workflow_completed":true,"workflow_error":true,"event_log":["x"]}`)
		Expect(a.header.Get("Location")).To(Equal(place))
		h.ok(204, "PUT", place, `{"deployment_repo":" e/ "}`)
		Expect(h.ok(200, "GET", place, "").object()).
			To(And(HaveKeyWithValue("workflow_completed", true), HaveKeyWithValue("workflow_error", true),
				HaveKeyWithValue("deployment_repo", " e/ "), HaveKeyWithValue("event_log", HaveExactElements("x"))))
		h.ok(204, "PUT", place, `{"workflow_completed":false}`)
		Expect(h.ok(200, "GET", place, "").object()).To(HaveKeyWithValue("workflow_completed", true))
	})

	DescribeTable("honours the zone of scheduled_start_time (defect 28)", func(in, out string) {
		h := start()
		raw, err := json.Marshal(in)
		Expect(err).NotTo(HaveOccurred())
		if out == "" {
			Expect(h.ok(400, "POST", "/workflows", fmt.Sprintf(`{"scheduled_start_time":%s}`, raw)).body).
				To(MatchJSON(`{"scheduled_start_time":"is invalid"}`))
			return
		}
		Expect(h.ok(200, "GET", h.workflow(fmt.Sprintf(`{"scheduled_start_time":%s}`, raw)), "").object()).
			To(HaveKeyWithValue("scheduled_start_time", out))
	},
		Entry("UTC", "Tue, 23 Jun 2015 19:39:11 UTC", "Tue, 23 Jun 2015 19:39:11 UTC"),
		Entry("GMT", "Tue, 23 Jun 2015 19:39:11 GMT", "Tue, 23 Jun 2015 19:39:11 UTC"),
		Entry("a named zone", "Tue, 23 Jun 2015 19:39:11 PDT", "Wed, 24 Jun 2015 02:39:11 UTC"),
		Entry("a numeric zone", "Tue, 23 Jun 2015 19:39:11 +0200", "Tue, 23 Jun 2015 17:39:11 UTC"),
		Entry("one digit of a day", "Wed, 3 Jun 2015 19:39:11 UTC", "Wed, 03 Jun 2015 19:39:11 UTC"),
		Entry("RFC 3339", "2015-06-23T19:39:11Z", "Tue, 23 Jun 2015 19:39:11 UTC"),
		Entry("an unknown zone", "Tue, 23 Jun 2015 19:39:11 XYZ", ""),
		Entry("no time", "tomorrow", ""),
	)

	DescribeTable("refuses types in a flat map", func(body, want string) {
		h := start()
		Expect(h.ok(400, "POST", "/workflows", body).body).To(MatchJSON(want))
		Expect(h.ok(400, "PUT", h.workflow(`{}`), body).body).To(MatchJSON(want))
	},
		Entry("milestones that are no list", `{"milestones":"deploy"}`, `{"milestones":"is invalid"}`),
		Entry("milestones of numbers", `{"milestones":[1]}`, `{"milestones":"is invalid"}`),
		Entry("several", `{"workflow_error":"maybe","deployment_repo":7}`,
			`{"workflow_error":"is invalid","deployment_repo":"is invalid"}`),
		Entry("durations that are no object", `{"workflow_step_durations":[]}`, `{"workflow_step_durations":"is invalid"}`),
	)

	DescribeTable("is not found, without a body, under", func(id string) {
		h := start()
		for _, call := range [][2]string{{"GET", ""}, {"PUT", ""}, {"DELETE", ""}, {"POST", "/execute"}} {
			Expect(h.ok(404, call[0], "/workflows/"+id+call[1], "{}").body).To(BeEmpty())
		}
	},
		Entry("an unknown id", "0198a5a0-0000-7000-8000-000000000000"),
		Entry("what is no uuid (defect 24)", "abc"),
		Entry("a uuid in braces", "%7B0198a5a0-0000-7000-8000-000000000000%7D"),
	)

	It("lists by age and repository", func() {
		h := start()
		h.workflow(`{"deployment_repo":"x_docker"}`)
		h.workflow(`{"deployment_repo":"y"}`)
		h.workflow(`{"deployment_repo":"old"}`)
		_, err := h.db.Exec(`UPDATE workflows SET inserted_at = now() - interval '30 hours' WHERE deployment_repo = 'old'`)
		Expect(err).NotTo(HaveOccurred())
		for query, want := range map[string]int{"": 2, "?lookback=0": 3, "?lookback=-1": 3, "?lookback=48h": 3,
			"?lookback=1": 2, "?deployment_repo=y": 1,
			"?source_repo=x": 1, "?source_repo=x&deployment_repo=y": 1, "?lookback=24&deployment_repo=old": 0,
			"?lookback=0&limit=1": 1} {
			Expect(h.ok(200, "GET", "/workflows"+query, "").objects()).To(HaveLen(want), query)
		}
		h.ok(400, "GET", "/workflows?lookback=x", "") // the predecessor: 500 (defect 24)
	})

	It("executes once, whoever asks at once; \"\" is not started (defect 16)", func() {
		h := start()
		h.exchanges()
		place := h.workflow(`{"deployment_repo":"git/d","deployment_repo_git_ref":"main","milestones":["config","deploy"],
			"current_step":""}`)
		Expect(atOnce(10, func() int {
			return h.call("POST", place+"/execute", `{"force_build":true,"deploy_messaging_exchange_id":"2",
				"build_messaging_exchange_id":"x"}`).status
		})).
			To(Equal(map[int]int{202: 1, 409: 9}))
		again := h.ok(409, "POST", place+"/execute", "")
		Expect(again.body).To(Equal("Workflow has already been started"))
		Expect(again.header.Values("Content-Type")).To(BeEmpty())
		Expect(h.ok(200, "GET", place, "").object()).
			To(And(HaveKeyWithValue("messaging_exchange_id", 2.0), HaveKeyWithValue("current_step", "config")))
		h.ok(204, "PUT", place, `{"workflow_completed":true}`)
		Expect(h.ok(409, "POST", place+"/execute", "").body).To(Equal("Workflow has already completed"))
	})

	It("of a bound operator belong to its exchange, and run there alone", func() {
		h := start()
		h.exchanges()
		create := func(body string) string {
			a := h.callAs("foreign-operator", "POST", "/workflows", body)
			Expect(a.status).To(Equal(201), a.body)
			return a.header.Get("Location")
		}
		place := create(`{"deployment_repo":"git/d","deployment_repo_git_ref":"main","milestones":["config","deploy"]}`)
		Expect(h.callAs("foreign-operator", "GET", place, "").object()).To(HaveKeyWithValue("messaging_exchange_id", 2.0))
		Expect(h.callAs("service", "GET", place, "").status).To(Equal(404))
		Expect(h.callAs("foreign-operator", "PUT", place, `{"source_repo":"git/s"}`).status).To(Equal(204))
		Expect(h.callAs("foreign-operator", "POST", place+"/execute", "").status).To(Equal(202))
		Expect(h.ok(200, "GET", place, "").object()).
			To(And(HaveKeyWithValue("messaging_exchange_id", 2.0), HaveKeyWithValue("current_step", "config")))

		elsewhere := create(`{"milestones":["config","deploy"],"execute_options":{"deploy_messaging_exchange_id":1}}`)
		refused := h.callAs("foreign-operator", "POST", elsewhere+"/execute", "")
		Expect(refused.status).To(Equal(409))
		Expect(refused.body).To(ContainSubstring("belongs to exchange 2"))
		Expect(h.callAs("foreign-operator", "DELETE", elsewhere, "").status).To(Equal(204))
	})

	// executed makes a workflow that runs; its order is claimed.
	executed := func(h *harness) (place, order string) {
		h.exchanges()
		place = h.workflow(`{"deployment_repo":"git/d","deployment_repo_git_ref":"main","milestones":["config","deploy"]}`)
		h.ok(202, "POST", place+"/execute", "")
		Expect(h.db.Get(&order, `SELECT id FROM orders`)).To(Succeed())
		claim := `{"attempt":1,"hostname":"d1","boot_id":"b1"}`
		Expect(h.callAs("service", "POST", "/orders/"+order+"/claim", claim).status).To(Equal(200))
		return place, order
	}

	It("ends for its executor too when a PUT ends it", func() {
		h := start()
		place, order := executed(h)
		h.ok(204, "PUT", place, `{"elapsed_step_time":"x"}`)
		Expect(h.ok(200, "GET", "/orders/"+order, "").object()).To(HaveKeyWithValue("state", "claimed"))
		h.ok(204, "PUT", place, `{"workflow_completed":true}`)
		Expect(h.ok(200, "GET", "/orders/"+order, "").object()).To(HaveKeyWithValue("state", "closed"))
		var leases int
		Expect(h.db.Get(&leases, `SELECT count(*) FROM leases`)).To(Succeed())
		Expect(leases).To(Equal(0))
	})

	It("keeps its milestones and its step from its start on, whatever a PUT says", func() {
		h := start()
		place, _ := executed(h)
		a := h.ok(409, "PUT", place, `{"milestones":["config","party"]}`)
		Expect(a.body).To(ContainSubstring("already been started"))
		// a whole object that is a little old
		h.ok(204, "PUT", place, `{"milestones":["config","deploy"],"current_step":"deploy","workflow_duration":"long"}`)
		Expect(h.ok(200, "GET", place, "").object()).
			To(And(HaveKeyWithValue("milestones", HaveExactElements("config", "deploy")),
				HaveKeyWithValue("current_step", "config"), HaveKeyWithValue("workflow_duration", "long")))
	})

	It("deletes; one of an upgrade is left to manager-api", func() {
		h := start()
		h.exchanges()
		place := h.workflow(`{}`)
		h.ok(204, "DELETE", place, "")
		h.ok(404, "GET", place, "")
		h.ok(201, "POST", "/system_components", aComponent)
		h.ok(204, "POST", "/system_components/1/upgrade", "")
		owned := h.workflow(`{}`)
		_, err := h.db.Exec(`UPDATE workflows SET upgrade_id = (SELECT id FROM upgrades)`)
		Expect(err).NotTo(HaveOccurred())
		Expect(h.ok(409, "DELETE", owned, "").body).To(BeEmpty())
		Expect(h.ok(409, "PUT", owned, `{"workflow_completed":true}`).body).To(BeEmpty())
	})
})
