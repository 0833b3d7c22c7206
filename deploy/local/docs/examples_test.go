package docs_test

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/unit"
)

var _ = Describe("deploy/examples", func() {
	DescribeTable("has a deployment repository that an executor can deploy",
		func(repository, service string, instances int) {
			dir := filepath.Join("deploy", "examples", repository)
			options, err := unit.Parse(strings.ReplaceAll(read(filepath.Join(dir, service+"@.service.tmpl")), "{{.source_ref}}",
				"v7"))
			Expect(err).NotTo(HaveOccurred())
			Expect(unit.Validate(options)).To(Succeed())
			Expect(unit.Value(options, "Service", "Type")).To(Equal("notify"))
			Expect(unit.Value(options, "Service", "ExecStart")).
				To(Equal("/opt/openaperture/v7/" + service + " --config /etc/openaperture/" + service + ".yaml"))
			var cluster struct{ Token string }
			Expect(json.Unmarshal([]byte(read(filepath.Join(dir, "etcd.json"))), &cluster)).To(Succeed())
			Expect(cluster.Token).NotTo(BeEmpty())
			var count struct {
				Instances int `json:"instance_cnt"`
			}
			Expect(json.Unmarshal([]byte(read(filepath.Join(dir, "fleet.json"))), &count)).To(Succeed())
			Expect(count.Instances).To(Equal(instances))
			Expect(read("docs/self-upgrade.md")).
				To(MatchRegexp("`%s.git` \\| `%s@.service.tmpl` \\| %d ", repository, service, instances))
		},
		Entry(nil, "manager", "manager-api", 1), Entry(nil, "overseer", "overseer", 2),
		Entry(nil, "deployer", "deployer", 1), Entry(nil, "deployer_oa", "deployer-oa", 1),
	)

	It("has what the pages show", func() {
		Expect(read("deploy/examples/deployer/deployer@.service.tmpl")).
			To(Equal(marked(read("docs/self-upgrade.md"), "unit")))
		shown := regexp.MustCompile("(?s)/etc/systemd/system/unitd.service`:\n\n```ini\n(.*?)```").
			FindStringSubmatch(read("docs/install.md"))
		Expect(shown).NotTo(BeNil())
		Expect(read("deploy/examples/unitd.service")).To(Equal(shown[1]))
	})
})
