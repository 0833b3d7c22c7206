// Package stacktest gives a suite a stack of its own, which goes with it.
package stacktest

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/times"
)

// Open describes a new stack, with profile fast, in a fresh directory whose name contains the suite's. It is taken down
// when the enclosing container ends, and must then have left nothing; with KEEP=1
// it stays if the suite has failed by then.
func Open(ctx context.Context, root, suite string, failed func() bool) *stack.Stack {
	ginkgo.GinkgoHelper()
	root, err := filepath.Abs(root)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	dir, err := os.MkdirTemp("/var/tmp", "openaperture-"+suite+"-")
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	gomega.Expect(os.Chmod(dir, 0o755)).To(gomega.Succeed()) //nolint:gosec // PostgreSQL's user passes through
	s, err := stack.Open(ctx, root, dir, times.Fast)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	//nolint:contextcheck // the framework gives the clean-up a context of its own
	ginkgo.DeferCleanup(func(ctx ginkgo.SpecContext) {
		if failed() && os.Getenv("KEEP") != "" {
			ginkgo.AddReportEntry("kept", "go run ./deploy/local down "+dir)
			return
		}
		gomega.Expect(s.Down(ctx, func(what string) { ginkgo.GinkgoWriter.Println(what) })).To(gomega.Succeed())
		gomega.Expect(dir).NotTo(gomega.BeADirectory())
	}, ginkgo.NodeTimeout(3*time.Minute))
	return s
}
