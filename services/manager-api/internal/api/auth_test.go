package api_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/services/manager-api/internal/api"
)

var _ = Describe("Authentication", func() {
	DescribeTable("accepts the one header", func(value func(token string) string) {
		h := start()
		a := h.call("GET", "/users/me", "", "Authorization", value(tokenOf("viewer")))
		Expect(a.status).To(Equal(200), a.body)
		Expect(a.object()).To(HaveKeyWithValue("first_name", "viewer"))
	},
		Entry("Bearer t", func(t string) string { return "Bearer " + t }),
		Entry("bearer t, whatever the case", func(t string) string { return "bEARER " + t }),
		Entry("Bearer access_token=t, of the predecessor's client",
			func(t string) string { return "Bearer access_token=" + t }),
		Entry("OAuth Bearer t, of its documentation", func(t string) string { return "OAuth Bearer " + t }),
		Entry("Bearer without a blank", func(t string) string { return "Bearer" + t }),
		Entry("a bare t", func(t string) string { return t }),
		Entry("with blanks around", func(t string) string { return "  Bearer   " + t + "  " }),
	)

	DescribeTable("refuses", func(value string) {
		h := start()
		a := h.call("GET", "/users/me", "", "Authorization", value)
		Expect(a.status).To(Equal(401))
		Expect(a.body).To(Equal("Unauthorized"))
		Expect(a.header.Get("WWW-Authenticate")).To(Equal("Bearer"))
		Expect(a.header.Values("Content-Type")).To(BeEmpty())
	},
		Entry("no header", ""),
		Entry("no token", "Bearer "),
		Entry("an unknown token", "Bearer nobody"),
		Entry("a basic one", "Basic "+tokenOf("admin")),
		Entry("a token of 1 more than the limit", "Bearer "+strings.Repeat("x", 8193)),
		Entry("the hash instead of the token", "Bearer "+tokens()[0].Hash),
	)

	It("refuses two headers", func() {
		h := start()
		req, err := http.NewRequest("GET", h.url+"/users/me", nil)
		Expect(err).NotTo(HaveOccurred())
		req.Header.Add("Authorization", "Bearer "+tokenOf("admin"))
		req.Header.Add("Authorization", "Bearer "+tokenOf("viewer"))
		res, err := http.DefaultClient.Do(req)
		Expect(err).NotTo(HaveOccurred())
		defer func() { _ = res.Body.Close() }()
		Expect(res.StatusCode).To(Equal(401))
	})

	It("is never open: without tokens in the configuration every request is refused", func() {
		h := start(func(c *api.Config) { c.Tokens = nil })
		for _, rt := range h.server.Routes() {
			method, path, _ := strings.Cut(rt.Pattern, " ")
			a := h.call(method, pathOf(path), "{}")
			if rt.Access&api.Public != 0 {
				Expect(a.status).To(Equal(200), rt.Pattern)
				continue
			}
			Expect(a.status).To(Equal(401), rt.Pattern)
		}
		Expect(h.call("GET", "/no/such/route", "").status).To(Equal(401))
	})

	DescribeTable("refuses a configuration", func(change func(t *api.Token), says string) {
		t := token("name", api.RoleService, 1)
		change(&t)
		_, err := api.New(api.Config{Tokens: []api.Token{t}})
		Expect(err).To(MatchError(ContainSubstring(says)))
	},
		Entry("without a name", func(t *api.Token) { t.Name = "" }, "has no name"),
		Entry("of an unknown role", func(t *api.Token) { t.Role = "root" }, `unknown role "root"`),
		Entry("of a service without exchange", func(t *api.Token) { t.ExchangeID = 0 }, "needs an exchange_id"),
		Entry("of an admin of one exchange", func(t *api.Token) { t.Role = api.RoleAdmin }, "leave its exchange_id out"),
		Entry("with a token in the clear", func(t *api.Token) { t.Hash = "secret" }, "hash must be"),
		Entry("with half a hash", func(t *api.Token) { t.Hash = "sha256:abcd" }, "hash must be"),
	)
})

var wildcard = regexp.MustCompile(`\{[a-z_]+\}`)

// pathOf fills the wildcards of a pattern with a number, which every family reads as an id that may exist.
func pathOf(pattern string) string { return wildcard.ReplaceAllString(pattern, "1") }

var _ = Describe("The role × route table", func() {
	It("lets through exactly the roles of each route", func() {
		h := start()
		for _, rt := range h.server.Routes() {
			method, path, _ := strings.Cut(rt.Pattern, " ")
			for _, name := range []string{"admin", "operator", "viewer", "service", "module"} {
				a := h.callAs(name, method, pathOf(path), `{}`)
				told := fmt.Sprintf("%s as %s: %d %s", rt.Pattern, name, a.status, a.body)
				if rt.Access&api.Public != 0 || rt.Access.Allows(api.Role(name)) {
					Expect(a.status).NotTo(BeElementOf(401, 403), told)
					Expect(a.status).To(BeNumerically("<", 500), told)
				} else {
					Expect(a.status).To(Equal(403), told)
				}
			}
		}
	})

	It("answers every route without a token with 401, and only /status openly", func() {
		h := start()
		open := []string{}
		for _, rt := range h.server.Routes() {
			method, path, _ := strings.Cut(rt.Pattern, " ")
			if h.call(method, pathOf(path), "{}", "Authorization", "").status != 401 {
				open = append(open, rt.Pattern)
			}
		}
		Expect(open).To(ConsistOf("GET /status"))
	})

	DescribeTable("hides what belongs to another exchange", func(method, path, body string, allowed string) {
		h := start()
		h.exchanges()
		h.ok(201, "POST", "/system_components", aComponent)
		h.ok(201, "POST", "/clusters", `{"etcd_token":"abc","messaging_exchange_id":1}`)
		h.ok(201, "POST", "/messaging/brokers", `{"name":"b"}`)
		h.ok(201, "POST", "/messaging/exchanges/1/brokers", `{"messaging_broker_id":1}`)
		h.ok(201, "POST", "/messaging/exchanges/1/modules", `{"hostname":"h","type":"overseer","status":"active",
			"workload":[]}`)
		a := h.callAs("foreign-"+allowed, method, path, body)
		Expect(a.status).To(Equal(404), a.body)
	},
		Entry("an exchange", "GET", "/messaging/exchanges/1", "", "service"),
		Entry("its brokers", "GET", "/messaging/exchanges/1/brokers", "", "module"),
		Entry("its clusters", "GET", "/messaging/exchanges/1/clusters", "", "service"),
		Entry("its components", "GET", "/messaging/exchanges/1/system_components", "", "service"),
		Entry("its modules", "GET", "/messaging/exchanges/1/modules", "", "service"),
		Entry("one of its modules", "GET", "/messaging/exchanges/1/modules/h", "", "service"),
		Entry("its heartbeats", "POST", "/messaging/exchanges/1/modules",
			`{"hostname":"h","type":"overseer","status":"active","workload":[]}`, "module"),
		Entry("its health", "GET", "/messaging/exchanges/1/health", "", "service"),
		Entry("a component", "GET", "/system_components/1", "", "service"),
		Entry("a change of a component", "PUT", "/system_components/1", aComponent, "operator"),
		Entry("a deletion of a component", "DELETE", "/system_components/1", "", "operator"),
		Entry("an upgrade of a component", "POST", "/system_components/1/upgrade", "", "operator"),
		Entry("a cluster", "GET", "/clusters/abc", "", "service"),
		Entry("a broker", "GET", "/messaging/brokers/1", "", "module"),
		Entry("the connections of a broker", "GET", "/messaging/brokers/1/connections", "", "module"),
	)

	It("lists for a bound caller only what its exchange has", func() {
		h := start()
		h.exchanges()
		h.ok(201, "POST", "/system_components", aComponent)
		h.ok(201, "POST", "/clusters", `{"etcd_token":"abc","messaging_exchange_id":1}`)
		h.ok(201, "POST", "/messaging/brokers", `{"name":"b"}`)
		h.ok(201, "POST", "/messaging/exchanges/1/brokers", `{"messaging_broker_id":1}`)
		h.ok(201, "POST", "/messaging/brokers", `{"name":"general"}`)
		h.ok(201, "POST", "/messaging/exchanges/2/brokers", `{"messaging_broker_id":2}`)
		for path, count := range map[string][2]int{"/system_components": {1, 0}, "/clusters": {1, 0},
			"/messaging/exchanges": {1, 1}, "/messaging/brokers": {1, 1}} {
			Expect(h.callAs("service", "GET", path, "").objects()).To(HaveLen(count[0]), path)
			Expect(h.callAs("foreign-service", "GET", path, "").objects()).To(HaveLen(count[1]), path)
		}
		Expect(h.callAs("foreign-service", "GET", "/messaging/brokers", "").objects()[0]).
			To(HaveKeyWithValue("name", "general"))
	})

	It("does not let a bound operator make a component elsewhere", func() {
		h := start()
		h.exchanges()
		a := h.callAs("foreign-operator", "POST", "/system_components", aComponent)
		Expect(a.status).To(Equal(400))
		Expect(a.body).To(ContainSubstring(`{"messaging_exchange_id":"Invalid MessagingExchange"}`))
	})
})
