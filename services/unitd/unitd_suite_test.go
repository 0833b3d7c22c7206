package main_test

import (
	"io"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/coreos/go-systemd/v22/daemon"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"
)

// program is the real binary, built with the race detector.
var program string

func TestUnitd(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "Unitd Suite")
}

var _ = SynchronizedBeforeSuite(func() []byte {
	if path := os.Getenv("UNITD_SPEC_PROGRAM"); path != "" { // where there is no compiler
		return []byte(path)
	}
	path, err := gexec.Build("github.com/openaperture/openaperture/services/unitd", "-race")
	Expect(err).NotTo(HaveOccurred())
	return []byte(path)
}, func(path []byte) { program = string(path) })

var _ = SynchronizedAfterSuite(func() {}, gexec.CleanupBuildArtifacts)

// TestMain lets the test binary itself be a service of Type=notify.
func TestMain(m *testing.M) {
	if gate := os.Getenv("UNITD_SPEC_GATE"); gate != "" {
		os.Exit(notifyingService(gate))
	}
	os.Exit(m.Run())
}

// notifyingService is ready when the gate, a fifo, has been written to, and ends on SIGTERM.
func notifyingService(gate string) int {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	fifo, err := os.Open(gate) // blocks until there is a writer
	if err != nil {
		return 1
	}
	if _, err := io.ReadAll(fifo); err != nil {
		return 1
	}
	if _, err := daemon.SdNotify(false, "STATUS=open for business\nREADY=1"); err != nil {
		return 1
	}
	<-ended
	return 0
}
