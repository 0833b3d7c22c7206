package messages_test

import (
	"os"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.yaml.in/yaml/v3"
)

// walk visits every object of a document.
func walk(v any, visit func(object)) {
	switch v := v.(type) {
	case object:
		visit(v)
		for _, sub := range v {
			walk(sub, visit)
		}
	case []any:
		for _, sub := range v {
			walk(sub, visit)
		}
	}
}

var _ = Describe("The AsyncAPI document", func() {
	document := func() object {
		GinkgoHelper()
		raw, err := os.ReadFile("asyncapi.yaml")
		Expect(err).NotTo(HaveOccurred())
		var d object
		Expect(yaml.Unmarshal(raw, &d)).To(Succeed())
		return d
	}
	// resolve follows a reference inside the document or to a file beside it.
	resolve := func(d object, ref string) any {
		GinkgoHelper()
		path, local := strings.CutPrefix(ref, "#/")
		if !local {
			return read(ref)
		}
		var at any = d
		for part := range strings.SplitSeq(path, "/") {
			o, ok := at.(object)
			Expect(ok).To(BeTrue(), ref)
			Expect(o).To(HaveKey(part), ref)
			at = o[part]
		}
		return at
	}

	It("is version 3.0 and refers to nothing that is not there", func() {
		d := document()
		Expect(d["asyncapi"]).To(Equal("3.0.0"))
		refs := 0
		walk(d, func(o object) {
			if ref, ok := o["$ref"].(string); ok {
				refs++
				Expect(resolve(d, ref)).NotTo(BeNil())
			}
		})
		Expect(refs).To(BeNumerically(">", 20))
	})

	It("describes every message, with its own schema and example", func() {
		d := document()
		described := map[string]bool{}
		for _, m := range resolve(d, "#/components/messages").(object) {
			o := m.(object)
			name := o["name"].(string)
			described[name] = true
			Expect(o["payload"]).To(Equal(object{"$ref": "./schemas/" + name + ".json"}))
			Expect(o["examples"]).To(Equal([]any{object{"payload": object{"$ref": "./examples/" + name + ".json"}}}))
			Expect(o["bindings"].(object)["amqp"].(object)["messageType"]).To(Equal(name))
			Expect(o["title"]).To(Equal(read("schemas/" + name + ".json")["title"]))
		}
		for _, c := range contracts {
			Expect(described).To(HaveKey(c.name))
		}
		Expect(described).To(HaveLen(len(contracts)))
	})

	It("has a channel per queue that carries messages of ours, and both ends of each", func() {
		d := document()
		carries := map[string][]string{
			"system_modules": {"module_status"}, "overseer": {"upgrade_request", "changed"},
			"workflow_orchestration": {"milestone_result"},
			"deployer":               {"milestone_order"}, "deploy_oa": {"milestone_order"}, "builder": {"milestone_order"},
		}
		channels := d["channels"].(object)
		Expect(channels).To(HaveLen(len(carries)))
		for queue, want := range carries {
			Expect(channels).To(HaveKey(queue))
			c := channels[queue].(object)
			Expect(c["address"]).To(Equal("{routingKey}." + queue))
			names := []string{}
			for _, m := range c["messages"].(object) {
				names = append(names, resolve(d, m.(object)["$ref"].(string)).(object)["name"].(string))
			}
			Expect(names).To(ConsistOf(want))
		}
		ends := map[string][]string{}
		for _, o := range d["operations"].(object) {
			ref := o.(object)["channel"].(object)["$ref"].(string)
			queue := strings.TrimPrefix(ref, "#/channels/")
			ends[queue] = append(ends[queue], o.(object)["action"].(string))
		}
		for queue := range carries {
			want := []string{"send", "receive"}
			if queue == "builder" {
				want = []string{"send"} // builders are run by others
			}
			Expect(ends[queue]).To(ConsistOf(want), queue)
		}
	})
})
