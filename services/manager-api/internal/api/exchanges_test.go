package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/member"
	"github.com/openaperture/openaperture/pkg/rabbit"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
	"github.com/openaperture/openaperture/services/manager-api/internal/registry"
)

// chained makes aws (1) > us (2) > east (3): keys "aws", "aws.us", "aws.us.east".
func chained() *harness {
	GinkgoHelper()
	h := start()
	h.ok(201, "POST", "/messaging/exchanges", `{"name":"aws","routing_key_fragment":"aws"}`)
	h.ok(201, "POST", "/messaging/exchanges", `{"name":"us","routing_key_fragment":"us","parent_exchange_id":1}`)
	h.ok(201, "POST", "/messaging/exchanges", `{"name":"east","routing_key_fragment":"east","parent_exchange_id":"2"}`)
	return h
}

func (h *harness) exchange(id int) managerapi.Exchange {
	GinkgoHelper()
	var e managerapi.Exchange
	Expect(json.Unmarshal([]byte(h.ok(200, "GET", fmt.Sprintf("/messaging/exchanges/%d", id), "").body), &e)).To(Succeed())
	return e
}

// upgradeInEast and workflowInEast are what runs in exchange 3, until endUpgrade and endWorkflow.
func upgradeInEast(h *harness) {
	GinkgoHelper()
	h.ok(201, "POST", "/system_components", strings.ReplaceAll(aComponent, `_id":1`, `_id":3`))
	h.ok(204, "POST", "/system_components/1/upgrade", "")
	_, err := h.db.Exec(`UPDATE upgrades SET state = 'in_progress'`)
	Expect(err).NotTo(HaveOccurred())
}

func workflowInEast(h *harness) {
	GinkgoHelper()
	running := h.workflow(`{"deployment_repo":"git/d","deployment_repo_git_ref":"main","milestones":["config","deploy"]}`)
	h.ok(202, "POST", running+"/execute", `{"deploy_messaging_exchange_id":3}`)
}

const (
	endUpgrade  = `UPDATE upgrades SET state = 'completed'`
	endWorkflow = `UPDATE workflows SET workflow_completed = true`
)

var _ = Describe("/messaging/exchanges", func() {
	It("computes key, root and ancestors, and again for all below when one above changes", func() {
		h := chained()
		e := h.exchange(3)
		Expect(e.RoutingKey).To(Equal("aws.us.east"))
		Expect(e.RootExchangeName).To(Equal("aws"))
		Expect(e.Ancestors).To(Equal([]managerapi.Ancestor{{Name: "us", RoutingKey: "aws.us"},
			{Name: "aws", RoutingKey: "aws"}}))
		a := h.ok(204, "PUT", "/messaging/exchanges/1", `{"name":"cloud","routing_key_fragment":"c"}`)
		Expect(a.header.Get("Location")).To(Equal("/messaging/exchanges/1"))
		e = h.exchange(3)
		Expect(e.RoutingKey).To(Equal("c.us.east"))
		Expect(e.RootExchangeName).To(Equal("cloud"))
		Expect(h.journal("exchange/1")).To(Equal([]string{"exchange_created", "exchange_changed"}))
	})

	It("adds no dot for an empty fragment (defect 22)", func() {
		h := start()
		h.ok(201, "POST", "/messaging/exchanges", `{"name":"root"}`)
		h.ok(201, "POST", "/messaging/exchanges", `{"name":"child","routing_key_fragment":"b","parent_exchange_id":1}`)
		Expect(h.exchange(1).RoutingKey).To(Equal(""))
		Expect(h.exchange(2).RoutingKey).To(Equal("b"))
	})

	It("keeps on a PUT what is absent and clears what is null", func() {
		h := chained()
		h.ok(204, "PUT", "/messaging/exchanges/3", `{"name":"east"}`)
		Expect(h.exchange(3).RoutingKey).To(Equal("aws.us.east"))
		h.ok(204, "PUT", "/messaging/exchanges/3", `{"name":"east","parent_exchange_id":null}`)
		Expect(h.ok(200, "GET", "/messaging/exchanges/3", "").object()).To(And(HaveKeyWithValue("routing_key", "east"),
			HaveKeyWithValue("root_exchange_name", "east"), HaveKeyWithValue("ancestors", BeEmpty())))
	})

	It("refuses a failover exchange, which would have no effect, and shows one that was stored before (fault 12)", func() {
		h := chained()
		for _, call := range [][2]string{{"POST", "/messaging/exchanges"}, {"PUT", "/messaging/exchanges/3"}} {
			a := h.ok(400, call[0], call[1], `{"name":"n","failover_exchange_id":2}`)
			Expect(a.body).To(MatchJSON(`{"errors":[{"message":"One or more fields for MessagingExchange were invalid"},
				{"failover_exchange_id":"is not supported: set the failover_broker_id of the broker that the exchange is ` +
				`restricted to"}]}`))
		}
		_, err := h.db.Exec(`UPDATE messaging_exchanges SET failover_exchange_id = 2 WHERE id = 3`)
		Expect(err).NotTo(HaveOccurred())
		h.ok(204, "PUT", "/messaging/exchanges/3", `{"name":"renamed","failover_exchange_id":2}`) // as it was read
		h.ok(204, "PUT", "/messaging/exchanges/3", `{"name":"east"}`)
		shown := func() map[string]any { return h.ok(200, "GET", "/messaging/exchanges/3", "").object() }
		Expect(shown()).To(HaveKeyWithValue("failover_exchange_id", 2.0))
		h.ok(400, "PUT", "/messaging/exchanges/3", `{"name":"east","failover_exchange_id":1}`)
		h.ok(204, "PUT", "/messaging/exchanges/3", `{"name":"east","failover_exchange_id":null}`)
		Expect(shown()).To(HaveKeyWithValue("failover_exchange_id", BeNil()))
	})

	It("shows its members the failover of the broker that serves it (fault 12)", func() {
		h := rooted()
		failover := func(id int) any {
			return h.ok(200, "GET", fmt.Sprintf("/messaging/exchanges/%d", id), "").object()["failover_broker_id"]
		}
		Expect(failover(3)).To(BeNil(), "it is on manager-api's own broker")
		h.ok(201, "POST", "/messaging/exchanges/3/brokers", `{"messaging_broker_id":3}`)
		h.ok(201, "POST", "/messaging/exchanges/3/brokers", `{"messaging_broker_id":1}`) // a second one is not used
		Expect(failover(3)).To(Equal(2.0))
		h.ok(201, "POST", "/messaging/exchanges/1/brokers", `{"messaging_broker_id":1}`)
		Expect(failover(1)).To(BeNil(), "its broker has none")
		h.ok(201, "POST", "/messaging/exchanges", `{"name":"home","routing_key_fragment":"home"}`)
		h.ok(201, "POST", "/messaging/exchanges/4/brokers", `{"messaging_broker_id":3}`)
		Expect(failover(4)).To(BeNil(), "the home exchange is always on manager-api's own broker")
	})

	DescribeTable("refuses", func(method, path, body string, status int, want string) {
		h := chained()
		a := h.call(method, path, body)
		Expect(a.status).To(Equal(status), a.body)
		Expect(a.body).To(MatchJSON(want))
	},
		Entry("no name", "POST", "/messaging/exchanges", `{}`, 400,
			`{"errors":[{"message":"An invalid request was made for MessagingExchange"}]}`),
		Entry("a null name", "POST", "/messaging/exchanges", `{"name":null}`, 400,
			`{"errors":[{"message":"An invalid request was made for MessagingExchange"}]}`),
		Entry("a duplicate before other fields", "POST", "/messaging/exchanges", `{"name":"aws","parent_exchange_id":"x"}`,
			409,
			`{"errors":[{"message":"A MessagingExchange already exists with that identifier"}]}`),
		Entry("other fields last", "POST", "/messaging/exchanges", `{"name":"n","parent_exchange_id":"x"}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingExchange were invalid"},
				{"parent_exchange_id":"is invalid"}]}`),
		Entry("an unknown parent", "POST", "/messaging/exchanges", `{"name":"n","parent_exchange_id":99}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingExchange were invalid"},
				{"parent_exchange_id":"Invalid MessagingExchange"}]}`),
		Entry("a fragment with a dot", "POST", "/messaging/exchanges", `{"name":"n","routing_key_fragment":"a.b"}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingExchange were invalid"},
				{"routing_key_fragment":"has invalid format"}]}`),
		Entry("a name of the broker's own", "POST", "/messaging/exchanges", `{"name":"amq.topic"}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingExchange were invalid"},
				{"name":"is or begins with amq., which RabbitMQ keeps for itself"}]}`),
		Entry("a name that makes queue names of the broker's own", "POST", "/messaging/exchanges", `{"name":"amq"}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingExchange were invalid"},
				{"name":"is or begins with amq., which RabbitMQ keeps for itself"}]}`),
		Entry("a fragment that makes queue names of the broker's own", "POST", "/messaging/exchanges",
			`{"name":"n","routing_key_fragment":"amq"}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingExchange were invalid"},
				{"routing_key_fragment":"makes queue names of MessagingExchange n`+
				` begin with amq., which RabbitMQ keeps for itself"}]}`),
		Entry("an address that is taken", "POST", "/messaging/exchanges",
			`{"name":"n","routing_key_fragment":"us","parent_exchange_id":1}`, 409,
			`{"errors":[{"message":"another exchange has this root and routing key"}]}`),
		Entry("itself as parent (defect 22)", "PUT", "/messaging/exchanges/1", `{"name":"aws","parent_exchange_id":1}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingExchange were invalid"},
				{"parent_exchange_id":"makes a cycle"}]}`),
		Entry("a descendant as parent (defect 22)", "PUT", "/messaging/exchanges/1", `{"name":"aws","parent_exchange_id":3}`,
			400,
			`{"errors":[{"message":"One or more fields for MessagingExchange were invalid"},
				{"parent_exchange_id":"makes a cycle"}]}`),
		Entry("a PUT of nothing", "PUT", "/messaging/exchanges/99", `{}`, 404,
			`{"errors":[{"message":"MessagingExchange was not found"}]}`),
		Entry("a PUT without name", "PUT", "/messaging/exchanges/1", `{}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingExchange were invalid"},{"name":"can't be blank"}]}`),
		Entry("another's name", "PUT", "/messaging/exchanges/1", `{"name":"us"}`, 409,
			`{"errors":[{"message":"A MessagingExchange already exists with that identifier"}]}`),
	)

	It("takes amq where no name on the broker begins with it", func() {
		h := chained()
		h.ok(201, "POST", "/messaging/exchanges", `{"name":"amqp","routing_key_fragment":"amqp"}`)
		h.ok(201, "POST", "/messaging/exchanges", `{"name":"n","routing_key_fragment":"amq","parent_exchange_id":1}`)
		h.ok(400, "PUT", "/messaging/exchanges/5", `{"name":"n","parent_exchange_id":null}`)
	})

	It("makes no name longer than the 255 bytes that a broker takes", func() {
		h := start()
		full := strings.Repeat("f", 64)
		h.ok(201, "POST", "/messaging/exchanges", fmt.Sprintf(`{"name":%q}`, strings.Repeat("n", 200)))
		for i := 1; i <= 3; i++ {
			h.ok(201, "POST", "/messaging/exchanges", fmt.Sprintf(`{"name":"%d","routing_key_fragment":%q,
				"parent_exchange_id":%d}`, i, full, i))
		}
		h.ok(400, "POST", "/messaging/exchanges", `{"name":"over","routing_key_fragment":"123456","parent_exchange_id":4}`)
		h.ok(201, "POST", "/messaging/exchanges", `{"name":"limit","routing_key_fragment":"12345","parent_exchange_id":4}`)
		limit := h.exchange(6) // the refused one has used up an id
		Expect(limit.RoutingKey).To(HaveLen(200))
		for _, x := range []managerapi.Exchange{h.exchange(1), limit} {
			t := member.Topology(x)
			for _, q := range t.Queues {
				Expect(len(rabbit.DeadLetterName(q.Name))).To(BeNumerically("<=", 255), q.Name)
				Expect(len(q.BindKey)).To(BeNumerically("<=", 255), q.BindKey)
			}
			for _, e := range t.Exchanges {
				Expect(len(e.Name)).To(BeNumerically("<=", 255))
				Expect(len(e.BindKey)).To(BeNumerically("<=", 255))
			}
		}
	})

	It("lets no two changes at once make a cycle together", func() {
		h := start()
		h.exchanges()
		next := make(chan int, 2)
		next <- 1
		next <- 2
		counts := atOnce(2, func() int {
			id := <-next
			return h.call("PUT", fmt.Sprintf("/messaging/exchanges/%d", id),
				fmt.Sprintf(`{"name":%q,"parent_exchange_id":%d}`, []string{"home", "away"}[id-1], 3-id)).status
		})
		Expect(counts).To(Equal(map[int]int{204: 1, 400: 1}))
		Expect(h.ok(200, "GET", "/messaging/exchanges", "").objects()).To(HaveLen(2))
	})

	DescribeTable("keeps its address while", func(run func(h *harness), end, method, path, body string) {
		h := chained()
		run(h)
		a := h.ok(409, method, path, body)
		Expect(a.body).To(And(ContainSubstring("runs in MessagingExchange 3"), ContainSubstring("wait until it has ended")))
		Expect(h.exchange(3).RoutingKey).To(Equal("aws.us.east"))
		_, err := h.db.Exec(end)
		Expect(err).NotTo(HaveOccurred())
		h.ok(204, method, path, body)
	},
		Entry("an upgrade runs, which one above it would change", upgradeInEast, endUpgrade, "PUT", "/messaging/exchanges/1",
			`{"name":"aws","routing_key_fragment":"other"}`),
		Entry("an upgrade runs, which the loss of its parent would change", upgradeInEast, endUpgrade, "DELETE",
			"/messaging/exchanges/2?cascade=true", ""),
		Entry("a workflow runs that is no upgrade's", workflowInEast, endWorkflow, "PUT", "/messaging/exchanges/3",
			`{"name":"east","routing_key_fragment":"other"}`),
		Entry("such a workflow runs, and its parent goes", workflowInEast, endWorkflow, "DELETE",
			"/messaging/exchanges/2?cascade=true", ""),
		Entry("such a workflow runs, and one above it would get another name", workflowInEast, endWorkflow, "PUT",
			"/messaging/exchanges/2", `{"name":"usa"}`),
	)

	It("is not deleted while something depends on it, and says what (defect 18, F15)", func() {
		h := chained()
		h.ok(201, "POST", "/messaging/brokers", `{"name":"b"}`)
		h.ok(201, "POST", "/messaging/exchanges/2/brokers", `{"messaging_broker_id":1}`)
		h.ok(201, "POST", "/system_components", strings.ReplaceAll(aComponent, `_id":1`, `_id":2`))
		h.ok(201, "POST", "/clusters", `{"etcd_token":"abc","messaging_exchange_id":2}`)
		h.ok(201, "POST", "/messaging/exchanges/2/modules", `{"hostname":"h","type":"overseer","status":"active",
			"workload":[]}`)
		h.ok(204, "POST", "/system_components/1/upgrade", "")
		running := h.workflow(`{"deployment_repo":"git/d","deployment_repo_git_ref":"main","milestones":["config","deploy"]}`)
		h.ok(202, "POST", running+"/execute", `{"deploy_messaging_exchange_id":2}`)
		a := h.ok(409, "DELETE", "/messaging/exchanges/2", "")
		kinds := []any{}
		for _, use := range a.object()["in_use_by"].([]any) {
			kinds = append(kinds, use.(map[string]any)["kind"])
		}
		Expect(kinds).To(ConsistOf("messaging_exchange", "messaging_exchange_broker", "system_component", "cluster",
			"upgrade", "workflow"))

		h.ok(204, "DELETE", "/messaging/exchanges/2?cascade=true", "")
		Expect(h.exchange(3).RoutingKey).To(Equal("east"))
		Expect(h.exchange(3).ParentExchangeID).To(BeNil())
		h.ok(404, "GET", "/system_components/1", "")
		Expect(h.ok(200, "GET", running, "").object()).
			To(And(HaveKeyWithValue("workflow_completed", true), HaveKeyWithValue("workflow_error", true)))
		Expect(h.ok(200, "GET", "/clusters/abc", "").object()).To(HaveKeyWithValue("messaging_exchange_id", BeNil()))
		h.ok(204, "DELETE", "/messaging/exchanges/3", "")
	})
})

var _ = Describe("/messaging/exchanges/:id/brokers", func() {
	It("restricts, with the exchange's own id in Location (defect 20)", func() {
		h := chained()
		h.ok(201, "POST", "/messaging/brokers", `{"name":"b"}`)
		a := h.ok(201, "POST", "/messaging/exchanges/3/brokers", `{"messaging_broker_id":"1"}`)
		Expect(a.header.Get("Location")).To(Equal("/messaging/exchanges/3/brokers"))
		Expect(h.ok(200, "GET", "/messaging/exchanges/3/brokers", "").objects()).To(ConsistOf(And(HaveKeyWithValue("id", 1.0),
			HaveKeyWithValue("messaging_exchange_id", 3.0), HaveKeyWithValue("messaging_broker_id", 1.0))))
		again := h.ok(409, "POST", "/messaging/exchanges/3/brokers", `{"messaging_broker_id":1}`)
		Expect(again.body).To(BeEmpty())
		h.ok(204, "DELETE", "/messaging/exchanges/3/brokers", "")
		h.ok(204, "DELETE", "/messaging/exchanges/3/brokers", "")
		Expect(h.ok(200, "GET", "/messaging/exchanges/3/brokers", "").body).To(Equal("[]"))
	})

	DescribeTable("refuses, in the predecessor's order", func(path, body string, status int, want string) {
		h := chained()
		a := h.ok(status, "POST", path, body)
		Expect(a.body).To(MatchJSON(want))
	},
		Entry("no parameter, even of nothing", "/messaging/exchanges/99/brokers", `{}`, 400,
			`{"errors":[{"message":"An invalid request was made for MessagingExchange"}]}`),
		Entry("a parameter that is no number", "/messaging/exchanges/1/brokers", `{"messaging_broker_id":"x"}`, 400,
			`{"errors":[{"message":"An invalid request was made for MessagingExchange"}]}`),
		Entry("an unknown exchange", "/messaging/exchanges/99/brokers", `{"messaging_broker_id":99}`, 404,
			`{"errors":[{"message":"MessagingExchange was not found"}]}`),
		Entry("an unknown broker", "/messaging/exchanges/1/brokers", `{"messaging_broker_id":99}`, 400,
			`{"errors":[{"message":"An invalid request was made for MessagingBroker"}]}`),
	)
})

// rooted makes the roots prod (1) and staging (2) without fragments, east (3, key "us-east-1") below prod, and the
// brokers b (1), c (2) and d (3), of which d fails over to c.
func rooted() *harness {
	GinkgoHelper()
	h := start()
	h.ok(201, "POST", "/messaging/exchanges", `{"name":"prod"}`)
	h.ok(201, "POST", "/messaging/exchanges", `{"name":"staging"}`)
	h.ok(201, "POST", "/messaging/exchanges", `{"name":"east","routing_key_fragment":"us-east-1","parent_exchange_id":1}`)
	for _, body := range []string{`{"name":"b"}`, `{"name":"c"}`, `{"name":"d","failover_broker_id":2}`} {
		h.ok(201, "POST", "/messaging/brokers", body)
	}
	return h
}

// apart is rooted with west (4, key "us-west") below staging, where the table wants it: at the same key as east, each
// on brokers of its own, and nothing on manager-api's.
func apart(east, west string) func() *harness {
	return func() *harness {
		GinkgoHelper()
		h := rooted()
		h.ok(201, "POST", "/messaging/exchanges", `{"name":"west","routing_key_fragment":"us-west","parent_exchange_id":2}`)
		h.ok(201, "POST", "/messaging/exchanges/3/brokers", fmt.Sprintf(`{"messaging_broker_id":%s}`, east))
		h.ok(201, "POST", "/messaging/exchanges/4/brokers", fmt.Sprintf(`{"messaging_broker_id":%s}`, west))
		h.ok(204, "PUT", "/messaging/exchanges/4", `{"name":"west","routing_key_fragment":"us-east-1"}`)
		return h
	}
}

const theSame = `{"name":"copy","routing_key_fragment":"us-east-1","parent_exchange_id":2}`

var _ = Describe("The queues of an exchange", func() {
	DescribeTable("are shared with no other exchange on one broker",
		func(prepare func() *harness, method, path, body, prefix, broker string) {
			h := prepare()
			a := h.ok(409, method, path, body)
			Expect(a.body).To(And(ContainSubstring("MessagingExchange 3 (east)"),
				ContainSubstring("would share the queues "+prefix+".* on "+broker),
				ContainSubstring("routing_key_fragment"), ContainSubstring("restrict")))
			Expect(h.ok(200, "GET", "/messaging/exchanges", "").body).NotTo(ContainSubstring("copy"))
		},
		Entry("when it is registered", rooted, "POST", "/messaging/exchanges", theSame, "us-east-1",
			"manager-api's own broker"),
		Entry("when its name alone makes them", rooted, "POST", "/messaging/exchanges", `{"name":"us-east-1"}`, "us-east-1",
			"manager-api's own broker"),
		Entry("when it is changed", func() *harness {
			h := rooted()
			h.ok(201, "POST", "/messaging/exchanges", `{"name":"west","routing_key_fragment":"us-west","parent_exchange_id":2}`)
			return h
		}, "PUT", "/messaging/exchanges/4", `{"name":"west","routing_key_fragment":"us-east-1"}`, "us-east-1",
			"manager-api's own broker"),
		Entry("when one above it is changed", func() *harness {
			h := rooted()
			h.ok(204, "PUT", "/messaging/exchanges/2", `{"name":"staging","routing_key_fragment":"s"}`)
			h.ok(201, "POST", "/messaging/exchanges", `{"name":"west","routing_key_fragment":"us-east-1",
				"parent_exchange_id":2}`)
			return h
		}, "PUT", "/messaging/exchanges/2", `{"name":"staging","routing_key_fragment":null}`, "us-east-1",
			"manager-api's own broker"),
		Entry("when one above it is deleted", func() *harness {
			h := rooted()
			h.ok(204, "PUT", "/messaging/exchanges/2", `{"name":"staging","routing_key_fragment":"s"}`)
			h.ok(201, "POST", "/messaging/exchanges", `{"name":"west","routing_key_fragment":"us-east-1",
				"parent_exchange_id":2}`)
			return h
		}, "DELETE", "/messaging/exchanges/2?cascade=true", "", "us-east-1", "manager-api's own broker"),
		Entry("when it is restricted to the other's broker", apart("1", "2"), "POST", "/messaging/exchanges/4/brokers",
			`{"messaging_broker_id":1}`, "us-east-1", "broker 1"),
		Entry("when it is restricted to a broker that fails over to the other's", apart("2", "1"), "POST",
			"/messaging/exchanges/4/brokers",
			`{"messaging_broker_id":3}`, "us-east-1", "broker 2"),
		Entry("when its broker gets the other's as failover", apart("2", "1"), "PUT", "/messaging/brokers/1",
			`{"name":"b","failover_broker_id":2}`, "us-east-1", "broker 2"),
		Entry("when its restrictions are lifted", func() *harness {
			h := rooted()
			h.ok(201, "POST", "/messaging/exchanges", `{"name":"west","routing_key_fragment":"us-west","parent_exchange_id":2}`)
			h.ok(201, "POST", "/messaging/exchanges/4/brokers", `{"messaging_broker_id":1}`)
			h.ok(204, "PUT", "/messaging/exchanges/4", `{"name":"west","routing_key_fragment":"us-east-1"}`)
			return h
		}, "DELETE", "/messaging/exchanges/4/brokers", "", "us-east-1", "manager-api's own broker"),
		Entry("when the broker that it is restricted to is deleted", func() *harness {
			h := rooted()
			h.ok(201, "POST", "/messaging/exchanges", `{"name":"west","routing_key_fragment":"us-west","parent_exchange_id":2}`)
			h.ok(201, "POST", "/messaging/exchanges/4/brokers", `{"messaging_broker_id":1}`)
			h.ok(204, "PUT", "/messaging/exchanges/4", `{"name":"west","routing_key_fragment":"us-east-1"}`)
			return h
		}, "DELETE", "/messaging/brokers/1?cascade=true", "", "us-east-1", "manager-api's own broker"),
		Entry("on the home exchange's broker, whatever that is restricted to", func() *harness {
			h := rooted()
			h.ok(201, "POST", "/messaging/exchanges", `{"name":"home","routing_key_fragment":"h","parent_exchange_id":1}`)
			h.ok(201, "POST", "/messaging/exchanges/4/brokers", `{"messaging_broker_id":1}`)
			return h
		}, "PUT", "/messaging/exchanges/4", `{"name":"home","routing_key_fragment":"us-east-1","parent_exchange_id":2}`,
			"us-east-1", "manager-api's own broker"),
	)

	It("stay on their broker while a workflow runs that is no upgrade's", func() {
		h := rooted()
		h.workflow(`{"deployment_repo":"git/d","deployment_repo_git_ref":"main","milestones":["config","deploy"]}`)
		_, err := h.db.Exec(`UPDATE workflows SET messaging_exchange_id = 1, began_at = now()`)
		Expect(err).NotTo(HaveOccurred())
		Expect(h.ok(409, "POST", "/messaging/exchanges/1/brokers", `{"messaging_broker_id":1}`).body).
			To(ContainSubstring("wait until it has ended"))
		_, err = h.db.Exec(`UPDATE workflows SET workflow_completed = true`)
		Expect(err).NotTo(HaveOccurred())
		h.ok(201, "POST", "/messaging/exchanges/1/brokers", `{"messaging_broker_id":1}`)
	})

	DescribeTable("stay on their broker while an upgrade runs", func(exchange int, method, path, body string, want int) {
		h := rooted()
		h.ok(201, "POST", "/messaging/exchanges/3/brokers", `{"messaging_broker_id":3}`)
		h.ok(201, "POST", "/messaging/exchanges/2/brokers", `{"messaging_broker_id":1}`)
		h.ok(201, "POST", "/system_components", strings.ReplaceAll(aComponent, `_id":1`, fmt.Sprintf(`_id":%d`, exchange)))
		h.ok(204, "POST", "/system_components/1/upgrade", "")
		_, err := h.db.Exec(`UPDATE upgrades SET state = 'verifying'`)
		Expect(err).NotTo(HaveOccurred())
		a := h.ok(want, method, path, body)
		if want == 409 {
			Expect(a.body).To(And(ContainSubstring(fmt.Sprintf("runs in MessagingExchange %d", exchange)),
				ContainSubstring("wait until it has ended")))
			_, err := h.db.Exec(`UPDATE upgrades SET state = 'completed'`)
			Expect(err).NotTo(HaveOccurred())
			Expect(h.call(method, path, body).status).To(Or(Equal(201), Equal(204)))
		}
	},
		Entry("when it gets a first broker of its own", 1, "POST", "/messaging/exchanges/1/brokers",
			`{"messaging_broker_id":1}`, 409),
		Entry("when it loses its own", 3, "DELETE", "/messaging/exchanges/3/brokers", "", 409),
		Entry("when that is deleted", 3, "DELETE", "/messaging/brokers/3?cascade=true", "", 409),
		Entry("when its failover is deleted", 3, "DELETE", "/messaging/brokers/2?cascade=true", "", 409),
		Entry("when its failover is another", 3, "PUT", "/messaging/brokers/3", `{"name":"d","failover_broker_id":1}`, 409),
		Entry("but may get a second broker, which is not used", 3, "POST", "/messaging/exchanges/3/brokers",
			`{"messaging_broker_id":1}`, 201),
		Entry("or a first failover", 2, "PUT", "/messaging/brokers/1", `{"name":"b","failover_broker_id":2}`, 204),
		Entry("and others may change theirs", 2, "DELETE", "/messaging/exchanges/3/brokers", "", 204),
		Entry("and the exchange may be deleted", 3, "DELETE", "/messaging/exchanges/3?cascade=true", "", 204),
	)

	It("may have the same names on different brokers", func() {
		h := apart("1", "2")()
		Expect(h.exchange(3).RoutingKey).To(Equal(h.exchange(4).RoutingKey))
	})

	It("stay as they are where they are shared already, and can be parted", func() {
		h := rooted()
		_, err := h.db.Exec(`INSERT INTO messaging_exchanges (name, routing_key_fragment, parent_exchange_id, routing_key,
			root_exchange_name)
			VALUES ('old', 'us-east-1', 2, 'us-east-1', 'staging')`)
		Expect(err).NotTo(HaveOccurred())
		h.ok(204, "PUT", "/messaging/exchanges/4", `{"name":"older"}`)
		h.ok(201, "POST", "/messaging/exchanges", `{"name":"other","routing_key_fragment":"other"}`)
		a := h.ok(409, "POST", "/messaging/exchanges", `{"name":"us-east-1"}`)
		Expect(a.body).To(ContainSubstring("MessagingExchange 3 (east)"))
		h.ok(204, "PUT", "/messaging/exchanges/2", `{"name":"staging","routing_key_fragment":"s"}`)
		h.ok(409, "PUT", "/messaging/exchanges/2", `{"name":"staging","routing_key_fragment":null}`)
	})

	It("are shared by no two that are registered at once", func() {
		start()
		d := db.New(db.Config{Pool: database.Open(4)})
		registrar := registry.New(d, engine.New(engine.Config{DB: d}), "home")
		next := make(chan string, 4)
		for _, name := range []string{"a", "b", "c", "d"} {
			next <- name
		}
		same := "same"
		counts := atOnce(4, func() int {
			_, err := registrar.CreateExchange(context.Background(), registry.ExchangeSpec{Name: <-next, Fragment: &same})
			if err == nil {
				return 201
			}
			return fault.HTTPStatus(fault.KindOf(err))
		})
		Expect(counts).To(Equal(map[int]int{201: 1, 409: 3}))
	})
})

var _ = Describe("/messaging/exchanges/:id/clusters", func() {
	It("filters by any boolean, and refuses others", func() {
		h := start()
		h.exchanges()
		h.ok(201, "POST", "/clusters", `{"etcd_token":"a","messaging_exchange_id":1,"allow_docker_builds":true}`)
		h.ok(201, "POST", "/clusters", `{"etcd_token":"b","messaging_exchange_id":1,"allow_docker_builds":false}`)
		h.ok(201, "POST", "/clusters", `{"etcd_token":"c","messaging_exchange_id":1}`)
		for query, want := range map[string]int{"": 3, "?allow_docker_builds=true": 1, "?allow_docker_builds=0": 1} {
			Expect(h.ok(200, "GET", "/messaging/exchanges/1/clusters"+query, "").objects()).To(HaveLen(want), query)
		}
		h.ok(400, "GET", "/messaging/exchanges/1/clusters?allow_docker_builds=maybe", "")
	})
})

var _ = Describe("GET /messaging/exchanges/:id/health", func() {
	It("compares what should run with what runs", func() {
		h := start()
		h.exchanges()
		h.ok(201, "POST", "/system_component_refs", aRef)
		h.ok(201, "POST", "/system_components", strings.TrimSuffix(aComponent,
			"}")+`,"source_repo":"git/overseer","source_repo_git_ref":"v1"}`)
		h.ok(201, "POST", "/messaging/exchanges/1/modules", `{"hostname":"h1","type":"overseer","status":"active",
			"workload":[],"source_repo":"git/overseer","source_repo_git_ref":"v1"}`)
		h.ok(201, "POST", "/messaging/exchanges/1/modules", `{"hostname":"h2","type":"stray","status":"active",
			"workload":[]}`)
		entries := h.callAs("viewer", "GET", "/messaging/exchanges/1/health", "").object()["entries"]
		Expect(entries).To(HaveExactElements(
			And(HaveKeyWithValue("type", "overseer"), HaveKeyWithValue("verdict", "outdated"),
				HaveKeyWithValue("recorded", HaveKeyWithValue("source_repo_git_ref", "v1")),
				HaveKeyWithValue("desired", HaveKeyWithValue("source_repo_git_ref", "v2")),
				HaveKeyWithValue("running", ConsistOf(HaveKeyWithValue("hostname", "h1")))),
			And(HaveKeyWithValue("type", "stray"), HaveKeyWithValue("verdict", "unexpected"), HaveKeyWithValue("action", "stop"),
				HaveKeyWithValue("running", ConsistOf(HaveKeyWithValue("hostname", "h2"))))))
	})

	It("is empty for an empty exchange and a problem for none", func() {
		h := start()
		h.exchanges()
		Expect(h.ok(200, "GET", "/messaging/exchanges/2/health", "").object()).To(HaveKeyWithValue("entries", BeEmpty()))
		a := h.ok(404, "GET", "/messaging/exchanges/99/health", "")
		Expect(a.header.Get("Content-Type")).To(Equal("application/problem+json"))
		Expect(a.object()).To(HaveKeyWithValue("status", 404.0))
	})
})
