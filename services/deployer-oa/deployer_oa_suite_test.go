package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/rabbittest"
)

func TestDeployerOA(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(30 * time.Second)
	SetDefaultEventuallyPollingInterval(10 * time.Millisecond)
	RunSpecs(t, "deployer-oa", Label("integration"))
}

var (
	host          *rabbittest.Host
	binary, unitd string
)

var _ = BeforeSuite(func() {
	host = rabbittest.NewHost()
	dir, err := os.MkdirTemp("", "deployer-oa-spec-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	binary, unitd = filepath.Join(dir, "deployer-oa"), filepath.Join(dir, "unitd")
	build := func(at, to string, flags ...string) {
		command := exec.Command("go", append(append([]string{"build"}, flags...), "-o", to, ".")...)
		command.Dir = at
		out, err := command.CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(out))
	}
	build(".", binary, "-race", "-ldflags", "-X main.version=v9")
	build(filepath.Join("..", "unitd"), unitd)
})
