package servers_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"

	"github.com/openaperture/openaperture/deploy/local/internal/servers"
)

// directory is one that PostgreSQL's user can get to.
func directory() string {
	dir, err := os.MkdirTemp("/var/tmp", "openaperture-servers-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	Expect(os.Chmod(dir, 0o755)).To(Succeed())
	return dir
}

// pidIn reads the process number on the first line of a file.
func pidIn(path string) int {
	GinkgoHelper()
	text, err := os.ReadFile(path)
	Expect(err).NotTo(HaveOccurred())
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	Expect(err).NotTo(HaveOccurred())
	return pid
}

// postgresIn runs a program named postgres that works in dir and whose number is in p's file.
func postgresIn(dir string, p servers.Postgres) *gexec.Session {
	GinkgoHelper()
	program := filepath.Join(directory(), "postgres")
	text, err := os.ReadFile("/bin/sleep")
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(program, text, 0o755)).To(Succeed())
	cmd := exec.Command(program, "600")
	cmd.Dir = dir
	session, err := gexec.Start(cmd, GinkgoWriter, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { session.Kill().Wait(10 * time.Second) })
	number := strconv.Itoa(cmd.Process.Pid) + "\n" + p.Dir + "\n"
	Expect(os.WriteFile(filepath.Join(p.Dir, "postmaster.pid"), []byte(number), 0o600)).To(Succeed())
	return session
}

var _ = Describe("Servers", Label("integration"), func() {
	It("start PostgreSQL again after it was killed, with what it held", func(ctx SpecContext) {
		ports, err := servers.FreePorts(ctx, 1)
		Expect(err).NotTo(HaveOccurred())
		p := servers.Postgres{Dir: filepath.Join(directory(), "postgres"), Port: ports[0], Password: "secret",
			Throwaway: true}
		DeferCleanup(func(ctx SpecContext) { Expect(p.Stop(ctx)).To(Succeed()) })
		Expect(p.Start(ctx)).To(Succeed())
		Expect(p.CreateDatabase(ctx, "kept")).To(Succeed())
		Expect(syscall.Kill(pidIn(filepath.Join(p.Dir, "postmaster.pid")), syscall.SIGKILL)).To(Succeed())
		Eventually(func() error { // a killed process takes a moment to be gone, and longer to let go of its memory
			return errors.Join(p.Start(ctx), p.CreateDatabase(ctx, "kept"))
		}).WithTimeout(20 * time.Second).Should(Succeed())
	}, NodeTimeout(2*time.Minute))

	It("leave a PostgreSQL alone that works elsewhere and has the number of theirs by now", func(ctx SpecContext) {
		p := servers.Postgres{Dir: directory()}
		session := postgresIn("/", p) // such as the host's own
		Expect(p.Stop(ctx)).To(Succeed())
		Consistently(session, "500ms").ShouldNot(gexec.Exit())
	}, NodeTimeout(time.Minute))

	It("know a PostgreSQL that runs whose data is reached by a symbolic link", func(ctx SpecContext) {
		data := directory()
		p := servers.Postgres{Dir: filepath.Join(directory(), "link")}
		Expect(os.Symlink(data, p.Dir)).To(Succeed())
		Expect(os.WriteFile(filepath.Join(data, "PG_VERSION"), nil, 0o600)).To(Succeed())
		postgresIn(data, p)
		Expect(p.Start(ctx)).To(Succeed())
		Expect(filepath.Join(data, "postmaster.pid")).To(BeAnExistingFile())
	}, NodeTimeout(time.Minute))

	It("start RabbitMQ again after all of it was killed", func(ctx SpecContext) {
		ports, err := servers.FreePorts(ctx, 3)
		Expect(err).NotTo(HaveOccurred())
		r := servers.RabbitMQ{Dir: directory(), Port: ports[0], Dist: ports[1], Epmd: ports[2], User: "guest",
			Password: "secret"}
		DeferCleanup(func(ctx SpecContext) { Expect(r.Stop(ctx)).To(Succeed()) })
		Expect(r.Start(ctx)).To(Succeed())
		Expect(syscall.Kill(-pidIn(filepath.Join(r.Dir, "sh.pid")), syscall.SIGKILL)).To(Succeed())
		Eventually(func() error { return r.Start(ctx) }).WithTimeout(time.Minute).Should(Succeed())
	}, NodeTimeout(3*time.Minute))
})
