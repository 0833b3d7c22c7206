package main

import (
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"

	"github.com/openaperture/openaperture/pkg/rabbittest"
)

func TestProcess(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(30 * time.Second)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	RunSpecs(t, "overseer process", Label("integration"))
}

var (
	host   *rabbittest.Host
	binary string
)

var _ = BeforeSuite(func() {
	host = rabbittest.NewHost()
	var err error
	binary, err = gexec.Build("github.com/openaperture/openaperture/services/overseer", "-race")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(gexec.CleanupBuildArtifacts)
})
