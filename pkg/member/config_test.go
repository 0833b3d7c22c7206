package member_test

import (
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/member"
	"github.com/openaperture/openaperture/pkg/times"
)

type config struct {
	boot.Base     `mapstructure:",squash"`
	member.Config `mapstructure:",squash"`
}

func (c config) Validate() error { return c.Config.Validate() }

func valid(changes ...func(*member.Config)) member.Config {
	c := member.Config{ManagerURL: "http://127.0.0.1:8080", ManagerToken: "t0ken-of-service", AMQPURL: "amqp://u:s3cret-pw@127.0.0.1/", ExchangeID: 7}
	for _, change := range changes {
		change(&c)
	}
	return c
}

var _ = Describe("The configuration of a member", func() {
	DescribeTable("is refused in one line that names the key",
		func(change func(*member.Config), want string) {
			err := valid(change).Validate()
			Expect(err).To(MatchError(HavePrefix(want)))
			Expect(err.Error()).NotTo(Or(ContainSubstring("s3cret"), ContainSubstring("t0ken")))
		},
		Entry("no manager", func(c *member.Config) { c.ManagerURL = "" }, "manager_url:"),
		Entry("a manager without scheme", func(c *member.Config) { c.ManagerURL = "manager:8080" }, "manager_url:"),
		Entry("no token", func(c *member.Config) { c.ManagerToken = "" }, "manager_token:"),
		Entry("no broker", func(c *member.Config) { c.AMQPURL = "" }, "amqp_url:"),
		Entry("a broker URL that is none", func(c *member.Config) { c.AMQPURL = "http://u:s3cret-pw@x" }, "amqp_url:"),
		Entry("no exchange", func(c *member.Config) { c.ExchangeID = 0 }, "exchange_id:"),
		Entry("an unknown profile", func(c *member.Config) { c.Profile = "slow" }, "profile:"),
		Entry("times that contradict each other", func(c *member.Config) { c.Times = times.Times{LiveWithin: time.Second} }, "times:"),
	)

	It("is read from a file, with times over a profile", func() {
		path := filepath.Join(GinkgoT().TempDir(), "c.yaml")
		Expect(os.WriteFile(path, []byte(`
manager_url: http://127.0.0.1:8080
manager_token: t
amqp_url: amqp://127.0.0.1/
exchange_id: 7
profile: fast
times:
  sweep: 7s
`), 0o600)).To(Succeed())
		c, err := boot.Load(config{Base: boot.DefaultBase("127.0.0.1:0")}, path)
		Expect(err).NotTo(HaveOccurred())
		durations, err := c.Durations()
		Expect(err).NotTo(HaveOccurred())
		fast, err := times.Named(times.Fast)
		Expect(err).NotTo(HaveOccurred())
		fast.Sweep = 7 * time.Second
		Expect(durations).To(Equal(fast))
	})
})
