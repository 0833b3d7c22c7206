package fleet_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func TestFleet(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(5 * time.Millisecond)
	RunSpecs(t, "fleet")
}

// unitd is the real binary.
var unitd string

var _ = BeforeSuite(func() {
	dir, err := os.MkdirTemp("", "fleet-spec-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	unitd = filepath.Join(dir, "unitd")
	build := exec.Command("go", "build", "-o", unitd, ".")
	build.Dir = filepath.Join("..", "..", "..", "services", "unitd")
	out, err := build.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
})
