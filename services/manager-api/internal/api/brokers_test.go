package api_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/services/manager-api/internal/api"
	"github.com/openaperture/openaperture/services/manager-api/internal/seal"
)

const canary = "canary-pässword-4711"

const aConnection = `{"username":"u","password":"` + canary + `","host":"mq","virtual_host":"/","port":5672}`

// connected makes a broker (1) with one connection, to which the exchange here is restricted.
func connected() *harness {
	GinkgoHelper()
	h := start()
	h.exchanges()
	h.ok(201, "POST", "/messaging/brokers", `{"name":"b"}`)
	h.ok(201, "POST", "/messaging/exchanges/1/brokers", `{"messaging_broker_id":1}`)
	a := h.ok(201, "POST", "/messaging/brokers/1/connections", aConnection)
	Expect(a.header.Get("Location")).To(Equal("/messaging/brokers/1/connections"))
	return h
}

var _ = Describe("/messaging/brokers", func() {
	It("creates, shows, changes and deletes", func() {
		h := start()
		Expect(h.ok(201, "POST", "/messaging/brokers", `{"name":"a"}`).header.Get("Location")).
			To(Equal("/messaging/brokers/1"))
		h.ok(201, "POST", "/messaging/brokers", `{"name":"b","failover_broker_id":1}`)
		Expect(h.ok(200, "GET", "/messaging/brokers/2", "").object()).
			To(And(HaveKeyWithValue("name", "b"), HaveKeyWithValue("failover_broker_id", 1.0),
				HaveKeyWithValue("inserted_at", MatchRegexp(stamped))))
		Expect(h.ok(200, "GET", "/messaging/brokers", "").objects()).To(HaveLen(2))
		h.ok(204, "PUT", "/messaging/brokers/1", `{"name":"a","failover_broker_id":2}`) // an unchanged name (defect 19)
		Expect(h.ok(200, "GET", "/messaging/brokers/1", "").object()).To(HaveKeyWithValue("failover_broker_id", 2.0))
	})

	DescribeTable("refuses", func(method, path, body string, status int, want string) {
		h := start()
		h.ok(201, "POST", "/messaging/brokers", `{"name":"a"}`)
		h.ok(201, "POST", "/messaging/brokers", `{"name":"b"}`)
		Expect(h.ok(status, method, path, body).body).To(MatchJSON(want))
	},
		Entry("no name", "POST", "/messaging/brokers", `{"name":""}`, 400,
			`{"errors":[{"message":"An invalid request was made for MessagingBroker"}]}`),
		Entry("a duplicate before other fields", "POST", "/messaging/brokers", `{"name":"a","failover_broker_id":"x"}`, 409,
			`{"errors":[{"message":"A MessagingBroker already exists with that identifier"}]}`),
		Entry("an unknown failover", "POST", "/messaging/brokers", `{"name":"c","failover_broker_id":9}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingBroker were invalid"},
				{"failover_broker_id":"Invalid MessagingBroker"}]}`),
		Entry("itself as failover", "PUT", "/messaging/brokers/1", `{"name":"a","failover_broker_id":1}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingBroker were invalid"},
				{"failover_broker_id":"Invalid MessagingBroker"}]}`),
		Entry("another's name", "PUT", "/messaging/brokers/1", `{"name":"b"}`, 409,
			`{"errors":[{"message":"A MessagingBroker already exists with that identifier"}]}`),
		Entry("a PUT of nothing", "PUT", "/messaging/brokers/9", `{}`, 404,
			`{"errors":[{"message":"MessagingBroker was not found"}]}`),
		Entry("a PUT without name", "PUT", "/messaging/brokers/1", `{}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingBroker were invalid"},{"name":"can't be blank"}]}`),
		Entry("connections of nothing", "GET", "/messaging/brokers/9/connections", ``, 404,
			`{"errors":[{"message":"MessagingBroker was not found"}]}`),
		Entry("a connection without fields", "POST", "/messaging/brokers/1/connections", `{}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingBroker were invalid"},{"username":"can't be blank"},
				{"password":"can't be blank"},{"host":"can't be blank"},{"virtual_host":"can't be blank"}]}`),
	)

	It("is not deleted while in use, and says by what; cascade frees the users (F15)", func() {
		h := connected()
		h.ok(201, "POST", "/messaging/brokers", `{"name":"c","failover_broker_id":1}`)
		a := h.ok(409, "DELETE", "/messaging/brokers/1", "")
		Expect(a.object()["in_use_by"]).To(ConsistOf(
			And(HaveKeyWithValue("kind", "messaging_exchange"), HaveKeyWithValue("name", "home")),
			And(HaveKeyWithValue("kind", "messaging_broker"), HaveKeyWithValue("name", "c"))))
		h.ok(204, "DELETE", "/messaging/brokers/1?cascade=true", "")
		Expect(h.ok(200, "GET", "/messaging/brokers/2", "").object()).To(HaveKeyWithValue("failover_broker_id", BeNil()))
		Expect(h.ok(200, "GET", "/messaging/exchanges/1/brokers", "").body).To(Equal("[]"))
	})
})

var _ = Describe("Broker passwords", func() {
	It("are sealed in the database, and open only in their row (G9)", func() {
		h := connected()
		var sealed []byte
		Expect(h.db.Get(&sealed, `SELECT password_sealed FROM messaging_broker_connections`)).To(Succeed())
		Expect(string(sealed)).NotTo(ContainSubstring("canary"))
		h.ok(201, "POST", "/messaging/brokers/1/connections", strings.ReplaceAll(aConnection, canary, "other"))
		_, err := h.db.Exec(`UPDATE messaging_broker_connections SET password_sealed = $1 WHERE id = 2`, sealed)
		Expect(err).NotTo(HaveOccurred())
		Expect(h.callAs("service", "GET", "/messaging/brokers/1/connections", "").status).To(Equal(500))
	})

	DescribeTable("are write-only for people (F11)", func(name string) {
		h := connected()
		a := h.callAs(name, "GET", "/messaging/brokers/1/connections", "")
		Expect(a.status).To(Equal(200))
		Expect(a.objects()).To(ConsistOf(And(HaveKeyWithValue("username", "u"), HaveKeyWithValue("port", 5672.0),
			HaveKeyWithValue("password", BeNil()))))
		Expect(h.journal("broker/1")).NotTo(ContainElement("passwords_read"))
	}, Entry(nil, "admin"), Entry(nil, "operator"), Entry(nil, "viewer"))

	DescribeTable("are read by whose exchange may use the broker, and each read is audited", func(name string) {
		h := connected()
		a := h.callAs(name, "GET", "/messaging/brokers/1/connections", "")
		Expect(a.status).To(Equal(200))
		Expect(a.objects()).To(ConsistOf(HaveKeyWithValue("password", canary)))
		h.callAs(name, "GET", "/messaging/brokers/1/connections", "")
		var readers []string
		Expect(h.db.Select(&readers, `SELECT actor FROM journal WHERE code = 'passwords_read'`)).To(Succeed())
		Expect(readers).To(Equal([]string{name, name}))
	}, Entry(nil, "service"), Entry(nil, "module"))

	DescribeTable("reach", func(prepare func(h *harness), name string, want int) {
		h := connected()
		prepare(h)
		Expect(h.callAs(name, "GET", "/messaging/brokers/1/connections", "").status).To(Equal(want))
	},
		Entry("not an exchange that is restricted to nothing", func(*harness) {}, "foreign-service", 404),
		Entry("not an exchange that is restricted to another broker", func(h *harness) {
			h.ok(201, "POST", "/messaging/brokers", `{"name":"c"}`)
			h.ok(201, "POST", "/messaging/exchanges/2/brokers", `{"messaging_broker_id":2}`)
		}, "foreign-module", 404),
		Entry("an exchange whose broker fails over to this one", func(h *harness) {
			h.ok(201, "POST", "/messaging/brokers", `{"name":"c","failover_broker_id":1}`)
			h.ok(201, "POST", "/messaging/exchanges/2/brokers", `{"messaging_broker_id":2}`)
		}, "foreign-module", 200),
		Entry("not an exchange that is restricted to nothing, even if no exchange is restricted to the broker",
			func(h *harness) {
				h.ok(204, "DELETE", "/messaging/exchanges/1/brokers", "")
			}, "foreign-service", 404),
		Entry("not an exchange that is restricted to nothing, if the broker is another exchange's failover",
			func(h *harness) {
				h.ok(201, "POST", "/messaging/brokers", `{"name":"c","failover_broker_id":1}`)
				h.ok(204, "DELETE", "/messaging/exchanges/1/brokers", "")
				h.ok(201, "POST", "/messaging/exchanges/1/brokers", `{"messaging_broker_id":2}`)
				Expect(h.callAs("module", "GET", "/messaging/brokers/1/connections", "").objects()).
					To(ConsistOf(HaveKeyWithValue("password", canary)))
				Expect(h.callAs("foreign-service", "GET", "/messaging/brokers", "").objects()).To(BeEmpty())
			}, "foreign-service", 404),
	)

	It("are nowhere else: not in answers, logs or the journal, whatever goes wrong (F11, G10)", func() {
		h := connected()
		seen := strings.Builder{}
		for _, rt := range h.server.Routes() {
			method, path, _ := strings.Cut(rt.Pattern, " ")
			if method != "GET" {
				continue
			}
			for _, name := range []string{"admin", "operator", "viewer"} {
				seen.WriteString(h.callAs(name, method, pathOf(path), "").body)
			}
		}
		for _, broken := range []string{aConnection + "x", strings.ReplaceAll(aConnection, `"u"`, "7"),
			strings.ReplaceAll(aConnection, "5672", "99999")} {
			seen.WriteString(h.ok(400, "POST", "/messaging/brokers/1/connections", broken).body)
		}
		seen.WriteString(h.ok(404, "PUT", "/messaging/brokers/1/connections/99", aConnection).body)
		seen.WriteString(h.ok(204, "PUT", "/messaging/brokers/1/connections/1", aConnection).body)
		var journal []string
		Expect(h.db.Select(&journal, `SELECT concat_ws(' ', subject, code, message, inputs::text)
			FROM journal`)).To(Succeed())
		seen.WriteString(strings.Join(journal, "\n"))
		_, err := h.db.Exec(`ALTER TABLE messaging_broker_connections RENAME TO gone`)
		Expect(err).NotTo(HaveOccurred())
		broken := h.call("POST", "/messaging/brokers/1/connections", aConnection)
		_, err = h.db.Exec(`ALTER TABLE gone RENAME TO messaging_broker_connections`)
		Expect(err).NotTo(HaveOccurred())
		Expect(broken.status).To(Equal(500))
		seen.WriteString(broken.body)
		for _, entry := range h.logs.All() {
			_, _ = fmt.Fprintf(&seen, "%s %v\n", entry.Message, entry.ContextMap())
		}
		Expect(seen.String()).NotTo(ContainSubstring("canary"))
		Expect(h.logs.FilterMessage("request did not succeed").All()).NotTo(BeEmpty(),
			"the specs look at a log that is written")
	})

	It("change by themselves, and stay where they are not given", func() {
		h := connected()
		h.ok(204, "PUT", "/messaging/brokers/1/connections/1", `{"host":"other","port":null}`)
		Expect(h.callAs("service", "GET", "/messaging/brokers/1/connections", "").objects()).To(ConsistOf(And(
			HaveKeyWithValue("host", "other"), HaveKeyWithValue("port", BeNil()), HaveKeyWithValue("username", "u"),
			HaveKeyWithValue("password", canary))))
		h.ok(204, "PUT", "/messaging/brokers/1/connections/1", `{"password":"new"}`)
		Expect(h.callAs("service", "GET", "/messaging/brokers/1/connections", "").objects()).
			To(ConsistOf(HaveKeyWithValue("password", "new")))
		h.ok(400, "PUT", "/messaging/brokers/1/connections/1", `{"password":""}`)
		h.ok(400, "PUT", "/messaging/brokers/1/connections/1", `{"port":0}`)
		h.ok(204, "DELETE", "/messaging/brokers/1/connections/1", "")
		h.ok(404, "DELETE", "/messaging/brokers/1/connections/1", "")
		h.ok(204, "DELETE", "/messaging/brokers/1/connections", "")
	})

	It("are sealed anew under a new key, after which the old one is not needed", func() {
		h := connected()
		oldKey := "k1 " + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("k"), 32))
		newKey := "k2 " + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("n"), 32))
		both, err := seal.Parse([]byte(newKey + "\n" + oldKey))
		Expect(err).NotTo(HaveOccurred())
		Expect(h.registry.Reseal(context.Background(), both)).To(Equal(1))
		Expect(h.registry.Reseal(context.Background(), both)).To(Equal(0))
		alone, err := seal.Parse([]byte(newKey))
		Expect(err).NotTo(HaveOccurred())
		rows, err := h.registry.OpenConnections(context.Background(), 1, alone)
		Expect(err).NotTo(HaveOccurred())
		Expect(rows).To(HaveLen(1))
		Expect(rows[0].Password.Reveal()).To(Equal(canary))
		Expect(h.journal("broker/1")).To(ContainElement("password_resealed"))
	})

	It("cannot be stored without a key", func() {
		h := start(func(c *api.Config) { c.Keys = nil })
		h.ok(201, "POST", "/messaging/brokers", `{"name":"b"}`)
		a := h.ok(503, "POST", "/messaging/brokers/1/connections", aConnection)
		Expect(a.body).To(ContainSubstring("no seal key"))
	})
})
