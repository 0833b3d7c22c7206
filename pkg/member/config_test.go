package member_test

import (
	"cmp"
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
	c := member.Config{ManagerURL: "http://127.0.0.1:8080", ManagerToken: "t0ken-of-service",
		AMQPURL: "amqp://u:s3cret-pw@127.0.0.1/", ExchangeID: 7}
	for _, change := range changes {
		change(&c)
	}
	return c
}

// holding is a file with a content.
func holding(content string) string {
	path := filepath.Join(GinkgoT().TempDir(), "secret")
	Expect(os.WriteFile(path, []byte(content), 0o600)).To(Succeed())
	return path
}

var _ = Describe("The configuration of a member", func() {
	DescribeTable("is refused in one line that names the key",
		func(change func(*member.Config), want string) {
			c := valid(change)
			err := cmp.Or(c.Validate(), c.CheckSecrets())
			Expect(err).To(MatchError(HavePrefix(want)))
			Expect(err.Error()).NotTo(Or(ContainSubstring("s3cret"), ContainSubstring("t0ken")))
		},
		Entry("no manager", func(c *member.Config) { c.ManagerURL = "" }, "manager_url:"),
		Entry("a manager without scheme", func(c *member.Config) { c.ManagerURL = "manager:8080" }, "manager_url:"),
		Entry("no token", func(c *member.Config) { c.ManagerToken = "" }, "manager_token:"),
		Entry("no broker", func(c *member.Config) { c.AMQPURL = "" }, "amqp_url:"),
		Entry("a broker URL that is none", func(c *member.Config) { c.AMQPURL = "http://u:s3cret-pw@x" }, "amqp_url:"),
		Entry("a wrong one among the broker's URLs",
			func(c *member.Config) { c.AMQPURL = "amqp://u:p@x/,amqp://u:s3cret-pw%zz@y" }, "amqp_url: address 2:"),
		Entry("a token and a file for it", func(c *member.Config) { c.ManagerTokenFile = holding("t0ken") },
			"manager_token: the value and the file"),
		Entry("a token file that is not there", func(c *member.Config) {
			c.ManagerToken, c.ManagerTokenFile = "",
				"/nowhere/t"
		}, "manager_token: read secret: open /nowhere/t"),
		Entry("an empty file with the broker's URL", func(c *member.Config) { c.AMQPURL, c.AMQPURLFile = "", holding("\n") },
			"amqp_url: read secret:"),
		Entry("a file with a broker URL that is none", func(c *member.Config) {
			c.AMQPURL, c.AMQPURLFile = "",
				holding("http://u:s3cret-pw@x\n")
		}, "amqp_url:"),
		Entry("no exchange", func(c *member.Config) { c.ExchangeID = 0 }, "exchange_id:"),
		Entry("an unknown profile", func(c *member.Config) { c.Profile = "slow" }, "profile:"),
		Entry("times that contradict each other",
			func(c *member.Config) { c.Times = times.Overrides{LiveWithin: new(time.Second)} }, "times:"),
		Entry("a lease that manager-api would refuse",
			func(c *member.Config) { c.Times = times.Overrides{Lease: new(2 * time.Minute)} }, "times: lease must be 1s to 1m"),
	)

	It("takes its secrets from files", func() {
		c := valid(func(c *member.Config) {
			c.ManagerToken, c.ManagerTokenFile, c.AMQPURL, c.AMQPURLFile = "", holding("t\n"), "", holding("amqp://127.0.0.1/\n")
		})
		Expect(c.Validate()).To(Succeed())
		Expect(c.CheckSecrets()).To(Succeed())
	})

	DescribeTable("takes the broker's address, or those of a cluster's nodes (T2)",
		func(value string) {
			path := filepath.Join(GinkgoT().TempDir(), "c.yaml")
			Expect(os.WriteFile(path, []byte(
				"manager_url: http://127.0.0.1:8080\nmanager_token: t\nexchange_id: 7\namqp_url: "+value),
				0o600)).To(Succeed())
			c, err := boot.Load(config{Base: boot.DefaultBase("127.0.0.1:0")}, path)
			Expect(err).NotTo(HaveOccurred())
			Expect(c.CheckSecrets()).To(Succeed())
			Expect(c.AMQPURL.Reveal()).To(HavePrefix("amqp://u:p@a/"))
		},
		Entry("one", "amqp://u:p@a/"),
		Entry("several, separated by commas", "amqp://u:p@a/,amqp://u:p@b/"),
		Entry("a list", "[\"amqp://u:p@a/\", \"amqp://u:p@b/\"]"),
	)

	It("is valid while its secrets cannot be read, for those who do not need them", func() {
		c := valid(func(c *member.Config) {
			c.ManagerToken, c.ManagerTokenFile, c.AMQPURL, c.AMQPURLFile = "", "/nowhere/t", "", "/nowhere/u"
		})
		Expect(c.Validate()).To(Succeed())
	})

	load := func(overrides string) (times.Times, error) {
		path := filepath.Join(GinkgoT().TempDir(), "c.yaml")
		Expect(os.WriteFile(path, []byte(`
manager_url: http://127.0.0.1:8080
manager_token: t
amqp_url: amqp://127.0.0.1/
exchange_id: 7
profile: fast
times: `+overrides), 0o600)).To(Succeed())
		c, err := boot.Load(config{Base: boot.DefaultBase("127.0.0.1:0")}, path)
		if err != nil {
			return times.Times{}, err
		}
		return c.Durations()
	}

	It("has times over a profile, from the file and the environment, zero among them", func() {
		GinkgoT().Setenv("OPENAPERTURE_TIMES_LEASE", "5s")
		durations, err := load("{sweep: 7s, min_healthy: 0s, settle: }")
		Expect(err).NotTo(HaveOccurred())
		want, err := times.Named(times.Fast)
		Expect(err).NotTo(HaveOccurred())
		want.Sweep, want.MinHealthy, want.Lease = 7*time.Second, 0, 5*time.Second
		Expect(durations).To(Equal(want))
	})

	It("refuses a time without a unit", func() {
		_, err := load("{sweep: 7}")
		Expect(err).To(MatchError(ContainSubstring("7 is no duration: write a unit")))
	})
})
