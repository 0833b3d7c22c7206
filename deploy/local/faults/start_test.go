//go:build e2e

package faults_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"

	"github.com/openaperture/openaperture/deploy/local/internal/servers"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
)

// byHand starts manager-api as the stack's configuration says, changed by edit, beside the stack's own and out of no
// release of it.
func byHand(port int, edit func(config string) string) *gexec.Session {
	GinkgoHelper()
	text, err := os.ReadFile(suite.ConfigFile(manager))
	Expect(err).NotTo(HaveOccurred())
	file := filepath.Join(GinkgoT().TempDir(), "manager-api.yaml")
	Expect(os.WriteFile(file, []byte(edit(string(text))), 0o600)).To(Succeed())
	program := filepath.Join(suite.Dir, "bin", "manager-api-by-hand")
	if err := os.Link(suite.Binary(stack.First, manager), program); !errors.Is(err, os.ErrExist) {
		Expect(err).NotTo(HaveOccurred())
	}
	cmd := exec.Command(program, "--config", file)
	cmd.Env = []string{"HOSTNAME=by-hand", fmt.Sprintf("OPENAPERTURE_LISTEN=127.0.0.1:%d", port)}
	session, err := gexec.Start(cmd, GinkgoWriter, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { session.Kill().Wait(10 * time.Second) })
	return session
}

func freePort(ctx SpecContext) int {
	GinkgoHelper()
	ports, err := servers.FreePorts(ctx, 1)
	Expect(err).NotTo(HaveOccurred())
	return ports[0]
}

func unchanged(config string) string { return config }

// lines are what a process has said on its standard error.
func lines(s *gexec.Session) []string {
	return strings.Split(strings.TrimSpace(string(s.Err.Contents())), "\n")
}

func get(port int, path string) (int, string, error) {
	res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, string(body), err
}

var _ = Describe("manager-api", Label("faults"), func() {
	It("stays up without PostgreSQL, alive and not ready, and says why", func(ctx SpecContext) {
		port, nobody := freePort(ctx), freePort(ctx)
		session := byHand(port, func(config string) string {
			kept := strings.Replace(config, "database_url_file:", "# ", 1)
			return kept + fmt.Sprintf("database_url: postgres://postgres:secret@127.0.0.1:%d/openaperture?sslmode=disable\n", nobody)
		})
		Eventually(func(g Gomega) {
			status, _, err := get(port, "/healthz")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(status).To(Equal(http.StatusOK))
		}).WithContext(ctx).WithTimeout(15 * time.Second).Should(Succeed())
		status, body, err := get(port, "/readyz")
		Expect(err).NotTo(HaveOccurred())
		Expect(status).To(Equal(http.StatusServiceUnavailable))
		Expect(body).To(And(ContainSubstring(`"name":"database","ok":false`), ContainSubstring("127.0.0.1:%d", nobody), Not(ContainSubstring("secret"))))
		Consistently(session).WithContext(ctx).WithTimeout(3 * time.Second).ShouldNot(gexec.Exit())
		Eventually(session.Terminate()).WithContext(ctx).WithTimeout(15 * time.Second).Should(gexec.Exit(0))
	}, SpecTimeout(time.Minute))

	It("refuses a configuration with an unknown key, and names it", func(ctx SpecContext) {
		session := byHand(freePort(ctx), func(config string) string { return config + "home_exchang: local\n" })
		Eventually(session).WithContext(ctx).WithTimeout(15 * time.Second).Should(gexec.Exit(2))
		Expect(lines(session)).To(ConsistOf(ContainSubstring("home_exchang")))
	}, SpecTimeout(time.Minute))

	It("ends when its port is taken, and names it", func(ctx SpecContext) {
		taken := suite.Listen[manager.Name] + 1
		session := byHand(taken, unchanged)
		Eventually(session).WithContext(ctx).WithTimeout(15 * time.Second).Should(gexec.Exit(1))
		Expect(lines(session)).To(ConsistOf(ContainSubstring("%d", taken)))
	}, SpecTimeout(time.Minute))
})
