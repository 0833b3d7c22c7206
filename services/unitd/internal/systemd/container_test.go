//go:build systemd

package systemd_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/systemdtest"
)

// The specs of services/unitd are the conformance suite of the backends. Their compiled form runs in the container.
var _ = Describe("unitd's own specs", Label("systemd"), func() {
	It("hold on systemd too", func(ctx context.Context) {
		dir := GinkgoT().TempDir()
		program, specs := filepath.Join(dir, "unitd"), filepath.Join(dir, "unitd.test")
		for _, args := range [][]string{
			{"build", "-race", "-o", program, "../.."},
			{"test", "-race", "-tags", "systemd", "-c", "-o", specs, "../.."},
		} {
			out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput()
			Expect(err).NotTo(HaveOccurred(), string(out))
		}
		box := systemdtest.Start()
		box.Copy(program, "/spec")
		box.Copy(specs, "/spec")
		command := box.Command(ctx, "env", "UNITD_SPEC_BACKEND=systemd", "UNITD_SPEC_PROGRAM=/spec/unitd",
			"/spec/unitd.test", "-ginkgo.label-filter=!direct", "-ginkgo.no-color")
		var out strings.Builder
		command.Stdout, command.Stderr = &out, &out
		err := command.Run()
		if err != nil {
			_, _ = GinkgoWriter.Write([]byte(out.String()))
		}
		Expect(err).NotTo(HaveOccurred())
		Expect(out.String()).To(MatchRegexp(`Ran \d{2,} of \d+ Specs`))
		AddReportEntry(out.String()[strings.LastIndex(out.String(), "Ran "):])
	})
})
