package api_test

import (
	"encoding/json"
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/managerapi"
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

var _ = Describe("/messaging/exchanges", func() {
	It("computes key, root and ancestors, and again for all below when one above changes", func() {
		h := chained()
		e := h.exchange(3)
		Expect(e.RoutingKey).To(Equal("aws.us.east"))
		Expect(e.RootExchangeName).To(Equal("aws"))
		Expect(e.Ancestors).To(Equal([]managerapi.Ancestor{{Name: "us", RoutingKey: "aws.us"}, {Name: "aws", RoutingKey: "aws"}}))
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
		h.ok(204, "PUT", "/messaging/exchanges/3", `{"name":"east","parent_exchange_id":null,"failover_exchange_id":2}`)
		Expect(h.ok(200, "GET", "/messaging/exchanges/3", "").object()).To(And(HaveKeyWithValue("routing_key", "east"),
			HaveKeyWithValue("root_exchange_name", "east"), HaveKeyWithValue("failover_exchange_id", 2.0), HaveKeyWithValue("ancestors", BeEmpty())))
	})

	DescribeTable("refuses", func(method, path, body string, status int, want string) {
		h := chained()
		a := h.call(method, path, body)
		Expect(a.status).To(Equal(status), a.body)
		Expect(a.body).To(MatchJSON(want))
	},
		Entry("no name", "POST", "/messaging/exchanges", `{}`, 400, `{"errors":[{"message":"An invalid request was made for MessagingExchange"}]}`),
		Entry("a null name", "POST", "/messaging/exchanges", `{"name":null}`, 400, `{"errors":[{"message":"An invalid request was made for MessagingExchange"}]}`),
		Entry("a duplicate before other fields", "POST", "/messaging/exchanges", `{"name":"aws","parent_exchange_id":"x"}`, 409,
			`{"errors":[{"message":"A MessagingExchange already exists with that identifier"}]}`),
		Entry("other fields last", "POST", "/messaging/exchanges", `{"name":"n","parent_exchange_id":"x"}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingExchange were invalid"},{"parent_exchange_id":"is invalid"}]}`),
		Entry("an unknown parent", "POST", "/messaging/exchanges", `{"name":"n","parent_exchange_id":99}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingExchange were invalid"},{"parent_exchange_id":"Invalid MessagingExchange"}]}`),
		Entry("an unknown failover", "POST", "/messaging/exchanges", `{"name":"n","failover_exchange_id":99}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingExchange were invalid"},{"failover_exchange_id":"Invalid MessagingExchange"}]}`),
		Entry("a fragment with a dot", "POST", "/messaging/exchanges", `{"name":"n","routing_key_fragment":"a.b"}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingExchange were invalid"},{"routing_key_fragment":"has invalid format"}]}`),
		Entry("a name of the broker's own", "POST", "/messaging/exchanges", `{"name":"amq.topic"}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingExchange were invalid"},{"name":"is invalid"}]}`),
		Entry("an address that is taken", "POST", "/messaging/exchanges", `{"name":"n","routing_key_fragment":"us","parent_exchange_id":1}`, 409,
			`{"errors":[{"message":"another exchange has this root and routing key"}]}`),
		Entry("itself as parent (defect 22)", "PUT", "/messaging/exchanges/1", `{"name":"aws","parent_exchange_id":1}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingExchange were invalid"},{"parent_exchange_id":"makes a cycle"}]}`),
		Entry("a descendant as parent (defect 22)", "PUT", "/messaging/exchanges/1", `{"name":"aws","parent_exchange_id":3}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingExchange were invalid"},{"parent_exchange_id":"makes a cycle"}]}`),
		Entry("a PUT of nothing", "PUT", "/messaging/exchanges/99", `{}`, 404, `{"errors":[{"message":"MessagingExchange was not found"}]}`),
		Entry("a PUT without name", "PUT", "/messaging/exchanges/1", `{}`, 400,
			`{"errors":[{"message":"One or more fields for MessagingExchange were invalid"},{"name":"can't be blank"}]}`),
		Entry("another's name", "PUT", "/messaging/exchanges/1", `{"name":"us"}`, 409,
			`{"errors":[{"message":"A MessagingExchange already exists with that identifier"}]}`),
	)

	It("lets no two changes at once make a cycle together", func() {
		h := start()
		h.exchanges()
		next := make(chan int, 2)
		next <- 1
		next <- 2
		counts := atOnce(2, func() int {
			id := <-next
			return h.call("PUT", fmt.Sprintf("/messaging/exchanges/%d", id), fmt.Sprintf(`{"name":%q,"parent_exchange_id":%d}`, []string{"home", "away"}[id-1], 3-id)).status
		})
		Expect(counts).To(Equal(map[int]int{204: 1, 400: 1}))
		Expect(h.ok(200, "GET", "/messaging/exchanges", "").objects()).To(HaveLen(2))
	})

	It("is not moved under a running upgrade", func() {
		h := chained()
		h.ok(201, "POST", "/system_components", strings.ReplaceAll(aComponent, `_id":1`, `_id":3`))
		h.ok(204, "POST", "/system_components/1/upgrade", "")
		_, err := h.db.Exec(`UPDATE upgrades SET state = 'in_progress'`)
		Expect(err).NotTo(HaveOccurred())
		a := h.ok(409, "PUT", "/messaging/exchanges/1", `{"name":"aws","routing_key_fragment":"other"}`)
		Expect(a.object()["in_use_by"]).To(ConsistOf(HaveKeyWithValue("kind", "upgrade")))
		Expect(h.exchange(3).RoutingKey).To(Equal("aws.us.east"))
	})

	It("is not deleted while something depends on it, and says what (defect 18)", func() {
		h := chained()
		h.ok(201, "POST", "/messaging/brokers", `{"name":"b"}`)
		h.ok(201, "POST", "/messaging/exchanges/2/brokers", `{"messaging_broker_id":1}`)
		h.ok(201, "POST", "/system_components", strings.ReplaceAll(aComponent, `_id":1`, `_id":2`))
		h.ok(201, "POST", "/clusters", `{"etcd_token":"abc","messaging_exchange_id":2}`)
		h.ok(201, "POST", "/messaging/exchanges/2/modules", `{"hostname":"h","type":"overseer","status":"active","workload":[]}`)
		h.ok(204, "POST", "/system_components/1/upgrade", "")
		running := h.workflow(`{"deployment_repo":"git/d","deployment_repo_git_ref":"main","milestones":["config","deploy"]}`)
		h.ok(202, "POST", running+"/execute", `{"deploy_messaging_exchange_id":2}`)
		a := h.ok(409, "DELETE", "/messaging/exchanges/2", "")
		kinds := []any{}
		for _, use := range a.object()["in_use_by"].([]any) {
			kinds = append(kinds, use.(map[string]any)["kind"])
		}
		Expect(kinds).To(ConsistOf("messaging_exchange", "messaging_exchange_broker", "system_component", "cluster", "upgrade", "workflow"))

		h.ok(204, "DELETE", "/messaging/exchanges/2?cascade=true", "")
		Expect(h.exchange(3).RoutingKey).To(Equal("east"))
		Expect(h.exchange(3).ParentExchangeID).To(BeNil())
		h.ok(404, "GET", "/system_components/1", "")
		Expect(h.ok(200, "GET", running, "").object()).To(And(HaveKeyWithValue("workflow_completed", true), HaveKeyWithValue("workflow_error", true)))
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
		Entry("no parameter, even of nothing", "/messaging/exchanges/99/brokers", `{}`, 400, `{"errors":[{"message":"An invalid request was made for MessagingExchange"}]}`),
		Entry("a parameter that is no number", "/messaging/exchanges/1/brokers", `{"messaging_broker_id":"x"}`, 400, `{"errors":[{"message":"An invalid request was made for MessagingExchange"}]}`),
		Entry("an unknown exchange", "/messaging/exchanges/99/brokers", `{"messaging_broker_id":99}`, 404, `{"errors":[{"message":"MessagingExchange was not found"}]}`),
		Entry("an unknown broker", "/messaging/exchanges/1/brokers", `{"messaging_broker_id":99}`, 400, `{"errors":[{"message":"An invalid request was made for MessagingBroker"}]}`),
	)
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
		h.ok(201, "POST", "/system_components", strings.TrimSuffix(aComponent, "}")+`,"source_repo":"git/overseer","source_repo_git_ref":"v1"}`)
		h.ok(201, "POST", "/messaging/exchanges/1/modules", `{"hostname":"h1","type":"overseer","status":"active","workload":[],"source_repo":"git/overseer","source_repo_git_ref":"v1"}`)
		h.ok(201, "POST", "/messaging/exchanges/1/modules", `{"hostname":"h2","type":"stray","status":"active","workload":[]}`)
		entries := h.callAs("viewer", "GET", "/messaging/exchanges/1/health", "").object()["entries"]
		Expect(entries).To(HaveExactElements(
			And(HaveKeyWithValue("type", "overseer"), HaveKeyWithValue("verdict", "outdated"), HaveKeyWithValue("recorded", HaveKeyWithValue("source_repo_git_ref", "v1")),
				HaveKeyWithValue("desired", HaveKeyWithValue("source_repo_git_ref", "v2")), HaveKeyWithValue("running", ConsistOf(HaveKeyWithValue("hostname", "h1")))),
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
