package main

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/boot"
)

var _ = Describe("The sample configuration", func() {
	It("is valid once its secrets are filled in, and says the defaults where it has nothing to fill in", func() {
		GinkgoT().Setenv("OPENAPERTURE_MANAGER_TOKEN", "change-me")
		GinkgoT().Setenv("OPENAPERTURE_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
		want := executor().DefaultConfig()
		want.ManagerURL, want.ManagerToken = "http://127.0.0.1:8080", "change-me"
		want.AMQPURL, want.ExchangeID = "amqp://guest:guest@127.0.0.1:5672/", 1
		want.GitHosts = []string{}
		got, err := boot.Load(executor().DefaultConfig(), "sample.yaml")
		Expect(err).NotTo(HaveOccurred())
		Expect(got).To(Equal(want))
	})
})
