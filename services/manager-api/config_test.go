package main

import (
	"cmp"
	"os"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/services/manager-api/internal/api"
)

var _ = Describe("The configuration", func() {
	It("ships a sample that is valid", func() {
		path := filepath.Join(GinkgoT().TempDir(), "sample.yaml")
		Expect(os.WriteFile(path, sample, 0o600)).To(Succeed())
		_, err := boot.Load(defaultConfig(), path)
		Expect(err).To(MatchError(ContainSubstring("database_url: set it or database_url_file")),
			"secrets are nobody's default")
		GinkgoT().Setenv("OPENAPERTURE_DATABASE_URL_FILE", "/nowhere/d")
		GinkgoT().Setenv("OPENAPERTURE_AMQP_URL_FILE", "/nowhere/a")
		cfg, err := boot.Load(defaultConfig(), path)
		Expect(err).NotTo(HaveOccurred(), "who does not need them need not read them")
		Expect(cfg.CheckSecrets()).To(MatchError(ContainSubstring("read secret: open /nowhere/d")))
		Expect(cfg.HomeExchange).To(Equal("local"))
	})

	DescribeTable("names the key that is wrong, and quotes no secret", func(change func(*config), want string) {
		cfg := defaultConfig()
		cfg.DatabaseURL = "postgres://u:hunter2@127.0.0.1/db?sslmode=disable"
		cfg.AMQPURL, cfg.HomeExchange = "amqp://u:hunter2@127.0.0.1/", "local"
		check := func() error { return cmp.Or(cfg.Validate(), cfg.CheckSecrets()) }
		Expect(check()).To(Succeed())
		change(&cfg)
		err := check()
		Expect(err).To(MatchError(ContainSubstring(want)))
		Expect(err.Error()).NotTo(ContainSubstring("hunter2"))
	},
		Entry("no sslmode", func(c *config) { c.DatabaseURL = "postgres://u:hunter2@127.0.0.1/db" },
			"database_url: sslmode is missing"),
		Entry("no database", func(c *config) { c.DatabaseURL = "" }, "database_url: set it or database_url_file"),
		Entry("no broker", func(c *config) { c.AMQPURL = "" }, "amqp_url: set it or amqp_url_file"),
		Entry("no broker URL", func(c *config) { c.AMQPURL = "http://u:hunter2@x" }, "amqp_url: parse broker URL"),
		Entry("no home", func(c *config) { c.HomeExchange = "" }, "home_exchange"),
		Entry("a role that does not exist", func(c *config) { c.Tokens = []api.Token{{Name: "x", Role: "god"}} },
			`tokens: token "x": unknown role "god"`),
		Entry("no key file", func(c *config) { c.SealingKeyFile = "/nowhere/keys" }, "sealing_key_file"),
		Entry("an unknown profile", func(c *config) { c.Profile = "slow" }, `profile: unknown times profile "slow"`),
	)
})
