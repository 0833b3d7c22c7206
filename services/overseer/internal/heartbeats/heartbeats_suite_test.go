package heartbeats_test

import (
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/rabbittest"
)

func TestHeartbeats(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(10 * time.Millisecond)
	RunSpecs(t, "heartbeats", Label("integration"))
}

var host *rabbittest.Host

var _ = BeforeSuite(func() { host = rabbittest.NewHost() })
