package api_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("/clusters", func() {
	It("creates, shows whatever the case, changes and deletes", func() {
		h := start()
		h.exchanges()
		a := h.ok(201, "POST", "/clusters", `{"etcd_token":"AbC","name":"n","messaging_exchange_id":1,
			"endpoint":"http://127.0.0.1:7002"}`)
		Expect(a.header.Get("Location")).To(Equal("/clusters/AbC"))
		Expect(a.body).To(Equal(`"Registered id 1"`))
		Expect(h.ok(200, "GET", "/clusters/aBc", "").object()).
			To(And(HaveKeyWithValue("etcd_token", "AbC"), HaveKeyWithValue("runtime", "fleet"),
				HaveKeyWithValue("endpoint", "http://127.0.0.1:7002"), HaveKeyWithValue("hosting_provider_id", BeNil())))
		b := h.ok(204, "PUT", "/clusters/abc", `{"runtime":"docker","endpoint":"unix:///var/run/docker.sock","name":null,
			"etcd_token":"other"}`)
		Expect(b.header.Get("Location")).To(Equal("/clusters/AbC"))
		Expect(h.ok(200, "GET", "/clusters/abc", "").object()).
			To(And(HaveKeyWithValue("runtime", "docker"), HaveKeyWithValue("name", BeNil()),
				HaveKeyWithValue("messaging_exchange_id", 1.0)))
		h.ok(204, "DELETE", "/clusters/ABC", "")
		h.ok(404, "GET", "/clusters/abc", "")
		Expect(h.journal("cluster/AbC")).To(Equal([]string{"cluster_created", "cluster_changed", "cluster_deleted"}))
	})

	It("filters builds by the literal true only", func() {
		h := start()
		h.ok(201, "POST", "/clusters", `{"etcd_token":"a","allow_docker_builds":"1"}`)
		h.ok(201, "POST", "/clusters", `{"etcd_token":"b"}`)
		Expect(h.ok(200, "GET", "/clusters?allow_docker_builds=true", "").objects()).To(HaveLen(1))
		Expect(h.ok(200, "GET", "/clusters?allow_docker_builds=1", "").objects()).To(HaveLen(2))
	})

	DescribeTable("refuses", func(method, path, body string, status int, want string) {
		h := start()
		h.ok(201, "POST", "/clusters", `{"etcd_token":"abc"}`)
		Expect(h.ok(status, method, path, body).body).To(MatchJSON(want))
	},
		Entry("no token", "POST", "/clusters", `{}`, 400,
			`{"errors":[{"message":"One or more fields for EtcdCluster were invalid"},{"etcd_token":"can't be blank"}]}`),
		Entry("a duplicate in another case (defect 14)", "POST", "/clusters", `{"etcd_token":"ABC"}`, 409,
			`{"errors":[{"message":"A EtcdCluster already exists with that identifier"}]}`),
		Entry("an unknown exchange", "POST", "/clusters", `{"etcd_token":"d","messaging_exchange_id":9}`, 400,
			`{"errors":[{"message":"One or more fields for EtcdCluster were invalid"},
				{"messaging_exchange_id":"Invalid MessagingExchange"}]}`),
		Entry("another runtime", "PUT", "/clusters/abc", `{"runtime":"swarm"}`, 400,
			`{"errors":[{"message":"One or more fields for EtcdCluster were invalid"},{"runtime":"is invalid"}]}`),
		Entry("an endpoint with credentials", "PUT", "/clusters/abc", `{"endpoint":"http://u:p@h"}`, 400,
			`{"errors":[{"message":"One or more fields for EtcdCluster were invalid"},
				{"endpoint":"is no URL without credentials"}]}`),
		Entry("a PUT of nothing", "PUT", "/clusters/none", `{}`, 404, `{"errors":[{"message":"EtcdCluster was not found"}]}`),
		Entry("a DELETE of nothing", "DELETE", "/clusters/none", ``, 404,
			`{"errors":[{"message":"EtcdCluster was not found"}]}`),
	)
})
