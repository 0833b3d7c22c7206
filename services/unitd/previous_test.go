package main_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/previoustest"
)

// The owner of a host upgrades unitd, and may put the version before back. Executors meet both versions meanwhile.
// Label("direct"): the container with systemd has nothing to build with.
var _ = Describe("unitd of the previous release (H5)", Label("direct"), func() {
	sleeper := []string{"ExecStart=/bin/sleep 3600", "Restart=always", "RestartSec=10ms", "X-OpenAperture.Version=v1"}

	DescribeTable("and this one take the units of the other over without touching them",
		func(first, second func() string) {
			u := startUnitd()
			u.program = first()
			u.restart()
			u.put("runs.service", "launched", sleeper...)
			lines, open := u.gate("gate")
			u.put("starts.service", "launched", lines...)
			u.put("ended.service", "launched", `ExecStart=/bin/sh -c "exit 7"`)
			u.put("down.service", "loaded", sleeper...)
			before := u.becomes("runs.service", "active/running")
			u.becomes("ended.service", "failed/failed")
			Eventually(func() int { return u.state("starts.service").MainPID }).WithTimeout(patience).ShouldNot(BeZero())
			starting := u.state("starts.service").MainPID
			units := u.do("GET", "/fleet/v1/units", "").body

			u.program = second()
			u.restart()
			Expect(u.becomes("runs.service", "active/running")).To(Equal(before))
			Expect(u.becomes("ended.service", "failed/failed").Result).To(Equal("exit-code 7"))
			Expect(u.do("GET", "/fleet/v1/units", "").body).To(Equal(units))
			open()
			Expect(u.becomes("starts.service", "active/running").MainPID).To(Equal(starting))

			By("supervising them")
			Expect(syscall.Kill(before.MainPID, syscall.SIGKILL)).To(Succeed())
			Eventually(func() state { return u.state("runs.service") }).WithTimeout(patience).
				Should(And(HaveField("Active", "active"), HaveField("Restarts", 1)))
			again := u.becomes("runs.service", "active/running").MainPID
			u.put("runs.service", "launched", append(sleeper[:3:3], "X-OpenAperture.Version=v2")...)
			Eventually(func() int { return u.state("runs.service").MainPID }).WithTimeout(patience).
				ShouldNot(BeElementOf(again, 0))
			u.put("starts.service", "loaded")
			u.becomes("starts.service", "inactive/dead")
			Expect(alive(starting)).To(BeFalse())
			u.put("down.service", "launched")
			u.becomes("down.service", "active/running")
		},
		Entry("an upgrade", previousUnitd, thisUnitd),
		Entry("a way back", thisUnitd, previousUnitd),
	)

	It("has specs that this one keeps", func() {
		specs := exec.Command(previoustest.Suite("services/unitd"), "-ginkgo.no-color")
		specs.Env = append(os.Environ(), "UNITD_SPEC_PROGRAM="+program)
		out, err := specs.CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(out))
		Expect(string(out)).To(MatchRegexp(`Ran \d{2,} of \d+ Specs`))
		AddReportEntry(string(out)[strings.LastIndex(string(out), "Ran "):])
	})
})

func previousUnitd() string {
	GinkgoHelper()
	return previoustest.Service("unitd")
}

func thisUnitd() string { return program }
