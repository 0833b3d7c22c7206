package deploy_test

import (
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.uber.org/goleak"
)

func TestDeploy(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(5 * time.Millisecond)
	RunSpecs(t, "deploy")
}

var _ = BeforeSuite(func() {
	before := goleak.IgnoreCurrent()
	DeferCleanup(func() { // engines leave nothing behind
		Eventually(func() error { return goleak.Find(before) }).Should(Succeed())
	})
})
