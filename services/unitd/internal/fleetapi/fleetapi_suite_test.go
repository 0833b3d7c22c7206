package fleetapi_test

import (
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"
)

// program is the real binary: units run under its shims. Built without -race,
// whose runtime lingers for a second at every exit of a shim.
var program string

func TestFleetAPI(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "Fleet API Suite")
}

var _ = SynchronizedBeforeSuite(func() []byte {
	path, err := gexec.Build("github.com/openaperture/openaperture/services/unitd")
	Expect(err).NotTo(HaveOccurred())
	return []byte(path)
}, func(path []byte) { program = string(path) })

var _ = SynchronizedAfterSuite(func() {}, gexec.CleanupBuildArtifacts)
