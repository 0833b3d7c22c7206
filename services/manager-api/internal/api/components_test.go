package api_test

import (
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("/system_components", func() {
	It("creates, shows, changes and deletes", func() {
		h := start()
		h.exchanges()
		a := h.ok(201, "POST", "/system_components", aComponent)
		Expect(a.header.Get("Location")).To(Equal("/system_components/1"))
		shown := h.ok(200, "GET", "/system_components/1", "").object()
		Expect(shown).To(And(
			HaveKeyWithValue("messaging_exchange_id", 1.0), HaveKeyWithValue("source_repo", ""),
			HaveKeyWithValue("status", BeNil()),
			HaveKeyWithValue("upgrade_status", BeNil()), HaveKeyWithValue("proof", "modules"),
			HaveKeyWithValue("last_check", BeNil()),
			HaveKeyWithValue("inserted_at", MatchRegexp(stamped))))
		h.ok(204, "PUT", "/system_components/1", strings.ReplaceAll(aComponent, "manual", "hourly"))
		Expect(h.ok(200, "GET", "/system_components/1", "").object()).To(HaveKeyWithValue("upgrade_strategy", "hourly"))
		d := h.ok(204, "DELETE", "/system_components/1", "")
		Expect(d.header).To(HaveKeyWithValue("Location", []string{""}))
		h.ok(404, "GET", "/system_components/1", "")
		Expect(h.journal("component/1")).To(Equal([]string{"component_created", "component_changed", "component_deleted"}))
	})

	It("takes a stated version at creation as what runs already, and never from a PUT", func() {
		h := start()
		h.exchanges()
		h.ok(201, "POST", "/system_components", strings.TrimSuffix(aComponent,
			"}")+`,"source_repo":"git/o","source_repo_git_ref":"v1"}`)
		_, err := h.db.Exec(`UPDATE system_components SET status = 'upgrade_in_progress',
			upgrade_status = '{"current_workflow":"w"}'`)
		Expect(err).NotTo(HaveOccurred())
		whole := h.ok(200, "GET", "/system_components/1", "").body
		for _, change := range [][2]string{{`"v1"`, `"v9"`}, {`"git/o"`, `"evil"`}, {`"upgrade_in_progress"`, `null`},
			{`{"current_workflow":"w"}`, `null`}, {`"id":1`, `"id":7`}} {
			changed := strings.ReplaceAll(strings.ReplaceAll(whole, `{"current_workflow": "w"}`, `{"current_workflow":"w"}`),
				change[0], change[1])
			h.ok(204, "PUT", "/system_components/1", changed)
		}
		h.ok(204, "PUT", "/system_components/1", aComponent) // without upgrade_status: the predecessor erased it (defect 2)
		Expect(h.ok(200, "GET", "/system_components/1", "").object()).To(And(HaveKeyWithValue("source_repo", "git/o"),
			HaveKeyWithValue("source_repo_git_ref", "v1"), HaveKeyWithValue("status", "upgrade_in_progress"),
			HaveKeyWithValue("upgrade_status", HaveKeyWithValue("current_workflow", "w"))))
	})

	It("shows the commits of the recorded version, and keeps whether the deployment repository is followed (fault 20)",
		func() {
			h := start()
			h.exchanges()
			h.ok(201, "POST", "/system_components", strings.TrimSuffix(aComponent,
				"}")+`,"source_repo":"git/o","source_repo_git_ref":"v1"}`)
			shown := func() map[string]any { return h.ok(200, "GET", "/system_components/1", "").object() }
			Expect(shown()).To(And(HaveKeyWithValue("source_commit_hash", ""), HaveKeyWithValue("deployment_commit_hash", ""),
				HaveKeyWithValue("follow_deployment", false)))
			h.ok(201, "POST", "/system_components/1/releases", `{"source_repo":"git/o","source_repo_git_ref":"v1",
			"source_commit_hash":"s1","deployment_commit_hash":"d1","etcd_token":"t","units":[{"name":"o@.service"}]}`)
			h.ok(204, "PUT", "/system_components/1", strings.TrimSuffix(aComponent, "}")+`,"follow_deployment":true}`)
			Expect(shown()).To(And(HaveKeyWithValue("source_commit_hash", "s1"),
				HaveKeyWithValue("deployment_commit_hash", "d1"),
				HaveKeyWithValue("follow_deployment", true)))
			h.ok(204, "PUT", "/system_components/1", strings.ReplaceAll(aComponent, "manual", "hourly"))
			Expect(shown()).To(HaveKeyWithValue("follow_deployment", true), "a client that does not know the field")
			Expect(h.ok(200, "GET", "/system_components", "").objects()[0]).To(HaveKeyWithValue("source_commit_hash", "s1"))
			Expect(h.call("PUT", "/system_components/1", strings.TrimSuffix(aComponent, "}")+`,"follow_deployment":2}`).status).
				To(Equal(400))
		})

	It("filters by type, also by the empty one", func() {
		h := start()
		h.exchanges()
		h.ok(201, "POST", "/system_components", aComponent)
		h.ok(201, "POST", "/system_components", strings.ReplaceAll(aComponent, "overseer", "web"))
		Expect(h.ok(200, "GET", "/system_components?type=web", "").objects()).
			To(ConsistOf(And(HaveKeyWithValue("type", "web"), HaveKeyWithValue("proof", "units"))))
		Expect(h.ok(200, "GET", "/system_components?type=", "").objects()).To(BeEmpty())
		Expect(h.ok(200, "GET", "/messaging/exchanges/1/system_components", "").objects()).To(HaveLen(2))
		Expect(h.ok(200, "GET", "/messaging/exchanges/2/system_components", "").objects()).To(BeEmpty())
		Expect(h.ok(404, "GET", "/messaging/exchanges/9/system_components", "").body).
			To(MatchJSON(`{"errors":[{"message":"MessagingExchange 9 was not found"}]}`))
	})

	DescribeTable("refuses", func(method, path, body string, status int, want string) {
		h := start()
		h.exchanges()
		h.ok(201, "POST", "/system_components", aComponent)
		h.ok(201, "POST", "/system_components", strings.ReplaceAll(aComponent, `"type":"overseer"`, `"type":"builder"`))
		a := h.call(method, path, body)
		Expect(a.status).To(Equal(status), a.body)
		Expect(a.body).To(MatchJSON(want))
	},
		Entry("nothing", "POST", "/system_components", `{}`, 400,
			`{"errors":[{"message":"One or more fields for SystemComponent were invalid"},
			{"messaging_exchange_id":"Missing MessagingExchange"},{"type":"can't be blank"},
			{"messaging_exchange_id":"can't be blank"},
			{"deployment_repo":"can't be blank"},{"deployment_repo_git_ref":"can't be blank"},
			{"upgrade_strategy":"can't be blank"}]}`),
		Entry("fields before a duplicate", "POST", "/system_components",
			strings.ReplaceAll(aComponent, "manual", "sometimes"), 400,
			`{"errors":[{"message":"One or more fields for SystemComponent were invalid"},{"upgrade_strategy":"is invalid"}]}`),
		Entry("an unknown exchange", "POST", "/system_components", strings.ReplaceAll(aComponent, `_id":1`, `_id":99`), 400,
			`{"errors":[{"message":"One or more fields for SystemComponent were invalid"},
				{"messaging_exchange_id":"Invalid MessagingExchange"}]}`),
		Entry("an exchange that is no number", "POST", "/system_components",
			strings.ReplaceAll(aComponent, `_id":1`, `_id":"x"`), 400,
			`{"errors":[{"message":"One or more fields for SystemComponent were invalid"},
				{"messaging_exchange_id":"is invalid"}]}`),
		Entry("another proof", "POST", "/system_components", strings.TrimSuffix(aComponent, "}")+`,"proof":"hope"}`, 400,
			`{"errors":[{"message":"One or more fields for SystemComponent were invalid"},{"proof":"is invalid"}]}`),
		Entry("a proof that shows too little", "POST", "/system_components",
			strings.TrimSuffix(aComponent, "}")+`,"proof":"units"}`, 400,
			`{"errors":[{"message":"One or more fields for SystemComponent were invalid"},
				{"proof":"can't be units for the type overseer`+
				`: that it is ready does not show that it hears; use modules, or leave it out"}]}`),
		Entry("a PUT of such a proof", "PUT", "/system_components/1", strings.TrimSuffix(aComponent, "}")+`,"proof":"units"}`,
			400,
			`{"errors":[{"message":"One or more fields for SystemComponent 1 were invalid"},
				{"proof":"can't be units for the type overseer`+
				`: that it is ready does not show that it hears; use modules, or leave it out"}]}`),
		Entry("a duplicate", "POST", "/system_components", aComponent, 409,
			`{"errors":[{"message":"A SystemComponent \"overseer\" already exists with that identifier"}]}`),
		Entry("a PUT: 404 before 400", "PUT", "/system_components/99", `{}`, 404,
			`{"errors":[{"message":"SystemComponent 99 was not found"}]}`),
		Entry("a PUT: 400 before 409", "PUT", "/system_components/2",
			`{"type":"overseer","messaging_exchange_id":"1","deployment_repo":"x","deployment_repo_git_ref":"y",
				"upgrade_strategy":""}`, 400,
			`{"errors":[{"message":"One or more fields for SystemComponent 2 were invalid"},
				{"upgrade_strategy":"is invalid"}]}`),
		Entry("a PUT: 409 last", "PUT", "/system_components/2", aComponent, 409,
			`{"errors":[{"message":"A SystemComponent \"overseer\" already exists with that identifier"}]}`),
		Entry("a DELETE of nothing", "DELETE", "/system_components/99", ``, 404,
			`{"errors":[{"message":"SystemComponent 99 was not found"}]}`),
		Entry("an upgrade of nothing", "POST", "/system_components/99/upgrade", ``, 404,
			`{"errors":[{"message":"SystemComponent 99 was not found"}]}`),
	)

	It("keeps the proof that a PUT does not state, as long as it is one for the type", func() {
		h := start()
		h.exchanges()
		web := strings.ReplaceAll(aComponent, "overseer", "web")
		h.ok(201, "POST", "/system_components", web)
		proof := func() any { return h.ok(200, "GET", "/system_components/1", "").object()["proof"] }
		h.ok(204, "PUT", "/system_components/1", web)
		Expect(proof()).To(Equal("units"))
		h.ok(204, "PUT", "/system_components/1", aComponent)
		Expect(proof()).To(Equal("modules"))
		h.ok(204, "PUT", "/system_components/1", web)
		Expect(proof()).To(Equal("modules"))
	})

	DescribeTable("keeps the recorded version as long as the component stays what and where it is",
		func(from, to, want string) {
			h := start()
			h.exchanges()
			h.ok(201, "POST", "/system_components", strings.TrimSuffix(aComponent,
				"}")+`,"source_repo":"git/o","source_repo_git_ref":"v1"}`)
			_, err := h.db.Exec(`UPDATE system_components SET status = 'upgrade_completed', next_check_at = now(),
				last_verdict = 'already_latest';
			INSERT INTO releases (id, component_id, source_repo, source_repo_git_ref, deployment_repo, deployment_repo_git_ref,
			etcd_token, units, proven_at)
			VALUES (gen_random_uuid(), 1, 'git/o', 'v1', 'd', 'main', 'tok', '[]', now())`)
			Expect(err).NotTo(HaveOccurred())
			h.ok(204, "PUT", "/system_components/1", strings.ReplaceAll(aComponent, from, to))
			var kept string
			Expect(h.db.Get(&kept, `SELECT concat_ws(' ', c.source_repo, c.source_repo_git_ref, c.status, c.last_verdict,
				c.next_check_at IS NOT NULL, (SELECT count(*) FROM releases))
			FROM system_components c`)).To(Succeed())
			Expect(kept).To(Equal(want))
		},
		Entry("another deployment repository", `"deployment_repo":"`, `"deployment_repo":"x`,
			"git/o v1 upgrade_completed already_latest t 1"),
		Entry("another exchange, where nothing of it runs", `_id":1`, `_id":2`, "   f 0"),
		Entry("another type", "overseer", "builder", "   f 0"),
	)

	It("takes numbers as strings", func() {
		h := start()
		h.exchanges()
		h.ok(201, "POST", "/system_components", strings.ReplaceAll(aComponent, `_id":1`, `_id":"1"`))
	})

	It("makes one of twenty at once (defect 9)", func() {
		h := start()
		h.exchanges()
		Expect(atOnce(20, func() int { return h.call("POST", "/system_components", aComponent).status })).
			To(Equal(map[int]int{201: 1, 409: 19}))
	})
})

var _ = Describe("POST /system_components/:id/upgrade", func() {
	ready := func() *harness {
		h := start()
		h.exchanges()
		h.ok(201, "POST", "/system_component_refs", aRef)
		h.ok(201, "POST", "/system_components", aComponent)
		return h
	}

	It("answers 204 with the place of the upgrade, and the same to a repeat", func() {
		h := ready()
		first := h.call("POST", "/system_components/1/upgrade", "", "Content-Type", "")
		Expect(first.status).To(Equal(204), first.body)
		Expect(first.body).To(BeEmpty())
		Expect(first.header.Get("Location")).To(MatchRegexp(`^/upgrades/[0-9a-f-]{36}$`))
		again := h.ok(204, "POST", "/system_components/1/upgrade", `{}`)
		Expect(again.header.Get("Location")).To(Equal(first.header.Get("Location")))
	})

	It("shows the upgrade to who prefers a representation", func() {
		h := ready()
		header, value := as("operator")
		a := h.call("POST", "/system_components/1/upgrade", `{"force":true,"reason":"because"}`, "Prefer",
			"respond-async, return=representation", header, value)
		Expect(a.status).To(Equal(202), a.body)
		Expect(a.header.Get("Location")).To(HavePrefix("/upgrades/"))
		Expect(a.object()).To(And(HaveKeyWithValue("component_id", 1.0), HaveKeyWithValue("state", "requested"),
			HaveKeyWithValue("trigger", "request"),
			HaveKeyWithValue("requested_by", "operator"), HaveKeyWithValue("force", true),
			HaveKeyWithValue("reason", "because")))
	})

	It("finds one upgrade for twenty at once", func() {
		h := ready()
		Expect(atOnce(20, func() int { return h.call("POST", "/system_components/1/upgrade", "").status })).
			To(Equal(map[int]int{204: 20}))
		var n int
		Expect(h.db.Get(&n, `SELECT count(*) FROM upgrades`)).To(Succeed())
		Expect(n).To(Equal(1))
	})

	It("keeps its component from being deleted or moved, and says why", func() {
		h := ready()
		place := h.ok(204, "POST", "/system_components/1/upgrade", "").header.Get("Location")
		a := h.ok(409, "DELETE", "/system_components/1", "")
		Expect(a.object()["in_use_by"]).To(ConsistOf(HaveKeyWithValue("id", strings.TrimPrefix(place, "/upgrades/"))))
		h.ok(409, "PUT", "/system_components/1", strings.ReplaceAll(aComponent, "overseer", "builder"))
		h.ok(204, "PUT", "/system_components/1", strings.ReplaceAll(aComponent, "manual", "hourly"))
	})

	It("refuses a force that is no boolean", func() {
		h := ready()
		Expect(h.ok(400, "POST", "/system_components/1/upgrade", `{"force":"maybe"}`).body).
			To(ContainSubstring(`{"force":"is invalid"}`))
	})
})
