//go:build compose

package compose_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/containers"
	"github.com/openaperture/openaperture/deploy/local/internal/servers"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/deploy/local/internal/stacktest"
	"github.com/openaperture/openaperture/deploy/local/internal/witness"
	"github.com/openaperture/openaperture/pkg/managerapi"
)

func TestCompose(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "compose")
}

const (
	reposInside = "/repos" // where the deployers see the repositories
	serviceUser = 65532    // whom the services run as
)

// One stack for all specs: OpenAperture in containers, and unitd with what it runs on this host.
var (
	project containers.Project
	host    *stack.Stack
	api     *managerapi.Client
	see     witness.Witness
	took    time.Duration // from docker-compose up until manager-api is healthy and the rest is started

	failed bool // a spec has failed
)

var _ = ReportAfterEach(func(r SpecReport) { failed = failed || r.Failed() })

var _ = BeforeSuite(func(ctx SpecContext) {
	host = stacktest.Open(ctx, "../../..", "compose", func() bool { return failed })
	host.UnitdOn, host.ReposAt = bridgeAddress(), reposInside
	Expect(host.RestartUnitd(ctx)).To(Succeed())
	Expect(host.BuildHello(ctx, stack.First)).To(Succeed())
	ownRepositories()

	project = describe(ctx)
	DeferCleanup(func(ctx SpecContext) {
		if failed {
			logs, _ := project.Logs(ctx) // nothing to show: fine
			GinkgoWriter.Println(logs)
		}
		if failed && os.Getenv("KEEP") != "" {
			AddReportEntry("kept", project.Name)
			return
		}
		Expect(project.Down(ctx)).To(Succeed())
	}, NodeTimeout(2*time.Minute))
	Expect(project.Init(ctx)).To(Succeed())
	began := time.Now()
	Expect(project.Up(ctx)).To(Succeed())
	took = time.Since(began)
	var err error
	api, err = project.Client()
	Expect(err).NotTo(HaveOccurred())
	see = witness.Witness{Stack: host, API: api}
}, NodeTimeout(4*time.Minute))

// describe is the very same docker-compose.yml under a name and on ports of its own, with the host's repositories and
// unitd's token.
func describe(ctx context.Context) containers.Project {
	GinkgoHelper()
	ports, err := servers.FreePorts(ctx, 3)
	Expect(err).NotTo(HaveOccurred())
	generated := filepath.Join(host.Dir, "compose")
	Expect(os.Mkdir(generated, 0o700)).To(Succeed())
	token, err := os.ReadFile(host.UnitdTokenFile())
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(filepath.Join(generated, "unitd_token"), token, 0o644)).To(Succeed()) // in a closed directory
	return containers.Project{Root: host.Root, Name: fmt.Sprintf("openaperture-spec-%d", os.Getpid()),
		Generated: generated,
		URL:       fmt.Sprintf("http://127.0.0.1:%d", ports[0]),
		Env: []string{"PROFILE=fast", "REPOSITORIES=" + host.Repositories(), fmt.Sprintf("MANAGER_PORT=%d", ports[0]),
			fmt.Sprintf("AMQP_PORT=%d", ports[1]), fmt.Sprintf("RABBITMQ_MANAGEMENT_PORT=%d", ports[2])}}
}

// bridgeAddress is what host.docker.internal means to a container.
func bridgeAddress() string {
	GinkgoHelper()
	bridge, err := net.InterfaceByName("docker0")
	Expect(err).NotTo(HaveOccurred())
	addresses, err := bridge.Addrs()
	Expect(err).NotTo(HaveOccurred())
	for _, a := range addresses {
		if ip, _, err := net.ParseCIDR(a.String()); err == nil && ip.To4() != nil {
			return ip.String()
		}
	}
	Fail("docker0 has no IPv4 address")
	return ""
}

// ownRepositories gives the repositories to the services' user: git refuses those of others.
func ownRepositories() {
	GinkgoHelper()
	repositories, err := filepath.Glob(filepath.Join(host.Repositories(), "*.git"))
	Expect(err).NotTo(HaveOccurred())
	Expect(repositories).NotTo(BeEmpty())
	for _, r := range repositories {
		Expect(os.Chown(r, serviceUser, serviceUser)).To(Succeed())
	}
}
