//go:build e2e

package faults_test

import (
	"context"
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
	"github.com/onsi/gomega/types"

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

// ownServers are servers that only a manager-api started by hand uses: it would work on what the stack's has in its
// own.
type ownServers struct {
	postgres servers.Postgres
	rabbitmq servers.RabbitMQ
	free     int // a port for manager-api
}

// newServers describes servers that do not run. Those that do when the spec ends are stopped.
func newServers(ctx SpecContext) ownServers {
	GinkgoHelper()
	ports, err := servers.FreePorts(ctx, 5)
	Expect(err).NotTo(HaveOccurred())
	dir, err := os.MkdirTemp(suite.Dir, "by-hand-")
	Expect(err).NotTo(HaveOccurred())
	Expect(os.Chmod(dir, 0o755)).To(Succeed()) // PostgreSQL's user passes through
	rabbitmq := filepath.Join(dir, "rabbitmq")
	Expect(os.Mkdir(rabbitmq, 0o700)).To(Succeed())
	s := ownServers{
		postgres: servers.Postgres{Dir: filepath.Join(dir, "postgres"), Port: ports[0], Password: "secret", Throwaway: true},
		rabbitmq: servers.RabbitMQ{Dir: rabbitmq, Port: ports[1], Dist: ports[2], Epmd: ports[3], User: "guest",
			Password: "secret"},
		free: ports[4],
	}
	DeferCleanup(func(ctx SpecContext) { Expect(errors.Join(s.postgres.Stop(ctx), s.rabbitmq.Stop(ctx))).To(Succeed()) },
		NodeTimeout(time.Minute))
	return s
}

// start starts each server, by the name of the check that needs it.
func (s ownServers) start() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"broker": s.rabbitmq.Start,
		"database": func(ctx context.Context) error {
			if err := s.postgres.Start(ctx); err != nil {
				return err
			}
			return s.postgres.CreateDatabase(ctx, "openaperture")
		},
	}
}

func (s ownServers) port(check string) int {
	return map[string]int{"broker": s.rabbitmq.Port, "database": s.postgres.Port}[check]
}

func (s ownServers) configure(config string) string {
	config = strings.NewReplacer("database_url_file:", "# ", "amqp_url_file:", "# ").Replace(config)
	return config + fmt.Sprintf("database_url: %s\namqp_url: %s\n", s.postgres.URL("openaperture"), s.rabbitmq.URL())
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
	DescribeTable("stays up without a server, alive and not ready, says why, and is ready once the server is there",
		func(ctx SpecContext, missing string) {
			own := newServers(ctx)
			for check, start := range own.start() {
				if check != missing {
					Expect(start(ctx)).To(Succeed())
				}
			}
			session := byHand(own.free, own.configure)
			answers := func(path string, status int, body types.GomegaMatcher) func(Gomega) {
				return func(g Gomega) {
					gotStatus, gotBody, err := get(own.free, path)
					g.Expect(err).NotTo(HaveOccurred())
					g.Expect(gotBody).To(body)
					g.Expect(gotStatus).To(Equal(status))
				}
			}
			Eventually(answers("/healthz", http.StatusOK, Not(BeEmpty()))).WithContext(ctx).WithTimeout(15 * time.Second).
				Should(Succeed())
			Eventually(answers("/readyz", http.StatusServiceUnavailable, And(ContainSubstring(`"name":%q,"ok":false`, missing),
				ContainSubstring("127.0.0.1:%d", own.port(missing)), Not(ContainSubstring(own.rabbitmq.Password))))).
				WithContext(ctx).WithTimeout(15 * time.Second).Should(Succeed())
			Consistently(session).WithContext(ctx).WithTimeout(3 * time.Second).ShouldNot(gexec.Exit())
			Expect(own.start()[missing](ctx)).To(Succeed())
			Eventually(answers("/readyz", http.StatusOK, ContainSubstring(`"name":%q,"ok":true`, missing))).
				WithContext(ctx).WithTimeout(time.Minute).Should(Succeed())
			Eventually(session.Terminate()).WithContext(ctx).WithTimeout(15 * time.Second).Should(gexec.Exit(0))
		},
		Entry("PostgreSQL", SpecTimeout(3*time.Minute), "database"),
		Entry("RabbitMQ", SpecTimeout(3*time.Minute), "broker"),
	)

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
