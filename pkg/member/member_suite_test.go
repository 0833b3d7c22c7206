package member_test

import (
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/rabbittest"
)

func TestMember(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(10 * time.Millisecond)
	RunSpecs(t, "member", Label("integration"))
}

var host *rabbittest.Host // one virtual host for the suite; every spec uses exchanges of its own

var _ = BeforeSuite(func() { host = rabbittest.NewHost() })
