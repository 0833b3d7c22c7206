package proc_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
)

// release puts a program that waits for the end of its input into <releases>/<ref>/<binary>.
func release(releases, ref, binary string) string {
	cat, err := exec.LookPath("cat")
	Expect(err).NotTo(HaveOccurred())
	text, err := os.ReadFile(cat)
	Expect(err).NotTo(HaveOccurred())
	path := filepath.Join(releases, ref, binary)
	Expect(os.MkdirAll(filepath.Dir(path), 0o755)).To(Succeed())
	Expect(os.WriteFile(path, text, 0o755)).To(Succeed())
	return path
}

// start runs a program until the spec ends.
func start(path, hostname string) int { return startIn("", path, hostname) }

// startIn is start with a working directory.
func startIn(dir, path, hostname string) int {
	cmd := exec.Command(path)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOSTNAME="+hostname)
	in, err := cmd.StdinPipe()
	Expect(err).NotTo(HaveOccurred())
	cmd.Stdout = io.Discard
	Expect(cmd.Start()).To(Succeed())
	DeferCleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	return cmd.Process.Pid
}

var _ = Describe("What /proc tells", func() {
	It("names release, binary and hostname of each process out of the releases", func() {
		releases := GinkgoT().TempDir()
		two := start(release(releases, "v2", "overseer"), "host.overseer-2")
		one := start(release(releases, "v1", "overseer"), "host.overseer-1")
		Expect(proc.Running(releases)).To(Equal([]proc.Process{
			{PID: one, Ref: "v1", Binary: "overseer", Hostname: "host.overseer-1"},
			{PID: two, Ref: "v2", Binary: "overseer", Hostname: "host.overseer-2"},
		}))
	})

	It("still knows a process whose release was removed", func() {
		releases := GinkgoT().TempDir()
		path := release(releases, "v1", "deployer")
		pid := start(path, "h")
		Expect(os.RemoveAll(filepath.Dir(path))).To(Succeed())
		Expect(proc.Running(releases)).To(ConsistOf(proc.Process{PID: pid, Ref: "v1", Binary: "deployer", Hostname: "h"}))
		Expect(proc.Under(releases)).To(HaveKey(pid))
	})

	It("does not take a neighbour whose name begins alike", func() {
		base := GinkgoT().TempDir()
		start(release(filepath.Join(base, "releases-old"), "v1", "overseer"), "h")
		Expect(os.MkdirAll(filepath.Join(base, "releases"), 0o755)).To(Succeed())
		Expect(proc.Running(filepath.Join(base, "releases"))).To(BeEmpty())
		Expect(proc.Under(filepath.Join(base, "releases"))).To(BeEmpty())
	})

	It("tells a process that works in a directory from one that belongs there", func() {
		base := GinkgoT().TempDir()
		owner := start(release(filepath.Join(base, "releases"), "v1", "overseer"), "h")
		Expect(os.Mkdir(filepath.Join(base, "log"), 0o755)).To(Succeed())
		visitor := startIn(filepath.Join(base, "log"), "cat", "h")
		Expect(proc.Under(base)).To(And(HaveLen(1), HaveKey(owner)))
		Expect(proc.WorkingIn(base)).To(And(HaveLen(1), HaveKey(visitor)))
	})

	It("says so when there are no releases", func() {
		_, err := proc.Running(filepath.Join(GinkgoT().TempDir(), "none"))
		Expect(err).To(MatchError(ContainSubstring("find the releases")))
	})
})
