//go:build systemd

package fleet_test

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/deploy/fleet"
	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/systemdtest"
)

// onSystemd is a cluster of one host with systemd. The host is the spec's own.
func onSystemd() runtime.Runtime {
	GinkgoHelper()
	unitd := systemdtest.Build("github.com/openaperture/openaperture/services/unitd", "v1")
	endpoint := systemdtest.Start().Unitd(unitd, "t0ken")
	c, err := fleet.New(endpoint, "t0ken")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(c.Close)
	Eventually(func() error { _, err := c.Machines(context.Background()); return err }).
		WithTimeout(20 * time.Second).Should(Succeed())
	return c
}

// The runtimes' own conformance suite runs on it as well.
func init() { runtimes["fleet before unitd on systemd"] = onSystemd }
