// Package systemdtest gives specs a host of their own with systemd as PID 1: a container. It is for suites only.
//
// It needs docker and the image that `make systemd-test` makes; without them specs fail, they do not skip.
package systemdtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
)

const (
	image = "openaperture/systemd:12"
	port  = "8490"
	// boot makes the control groups writable, which docker mounts read-only, and becomes systemd.
	boot = `mount -o remount,bind,rw /sys; for d in /sys/fs/cgroup/*; do mount -o remount,bind,rw $d; done; ` +
		`exec /lib/systemd/systemd`
)

// Host is one container with systemd. It goes with the spec (or the node) that started it.
type Host struct{ id string }

// Start starts a host and returns when systemd is up.
func Start() *Host {
	ginkgo.GinkgoHelper()
	h := &Host{}
	h.id = docker("run", "-d", "--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--security-opt", "seccomp=unconfined",
		"--security-opt", "systempaths=unconfined", "--cgroupns", "private", "--tmpfs", "/run:exec", "--tmpfs", "/run/lock",
		"--stop-signal", "SIGRTMIN+3", "-p", "127.0.0.1::"+port, "--entrypoint", "/bin/sh", image, "-c", boot)
	ginkgo.DeferCleanup(func() { docker("rm", "-f", h.id) })
	gomega.Eventually(func() string {
		out, _ := h.Command(context.Background(), "systemctl", "is-system-running").CombinedOutput()
		return strings.TrimSpace(string(out))
	}).WithTimeout(60 * time.Second).WithPolling(100 * time.Millisecond).Should(gomega.BeElementOf("running", "degraded"))
	return h
}

// Command is a command inside.
func (h *Host) Command(ctx context.Context, args ...string) *exec.Cmd {
	//nolint:gosec // a spec's own words
	return exec.CommandContext(ctx, "docker", append([]string{"exec", h.id}, args...)...)
}

// Do runs a command inside, which must succeed, and returns its output.
func (h *Host) Do(args ...string) string {
	ginkgo.GinkgoHelper()
	out, err := h.Command(context.Background(), args...).CombinedOutput()
	gomega.Expect(err).NotTo(gomega.HaveOccurred(), string(out))
	return string(out)
}

// Copy copies a file into a directory inside, which it makes.
func (h *Host) Copy(file, dir string) {
	ginkgo.GinkgoHelper()
	h.Do("mkdir", "-p", dir)
	docker("cp", file, h.id+":"+dir+"/")
}

// Write writes a file inside.
func (h *Host) Write(path, text string) {
	ginkgo.GinkgoHelper()
	file := filepath.Join(ginkgo.GinkgoT().TempDir(), filepath.Base(path))
	gomega.Expect(os.WriteFile(file, []byte(text), 0o600)).To(gomega.Succeed())
	h.Copy(file, filepath.Dir(path))
}

// Unitd runs a unitd binary inside as a unit of systemd's, with systemd as its backend, and returns the URL of its API.
func (h *Host) Unitd(binary, token string) string {
	ginkgo.GinkgoHelper()
	h.Copy(binary, "/opt")
	h.Write("/etc/unitd/token", token+"\n")
	h.Write("/etc/unitd/unitd.yaml", fmt.Sprintf("listen: 0.0.0.0:%s\nbackend: systemd\ntoken_file: /etc/unitd/token\n",
		port))
	h.Write("/etc/systemd/system/unitd.service",
		"[Service]\nType=notify\nExecStart=/opt/"+filepath.Base(binary)+" --config /etc/unitd/unitd.yaml\nRestart=always\n")
	h.Do("systemctl", "daemon-reload")
	h.Do("systemctl", "start", "unitd.service")
	return "http://" + docker("port", h.id, port+"/tcp")
}

// docker runs the client, which must succeed, and returns the first line.
func docker(args ...string) string {
	ginkgo.GinkgoHelper()
	command := exec.CommandContext(context.Background(), "docker", args...) //nolint:gosec // as above
	var complaint strings.Builder
	command.Stderr = &complaint
	out, err := command.Output()
	gomega.Expect(err).NotTo(gomega.HaveOccurred(), complaint.String())
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}

// Build compiles a package without cgo into a temporary directory and returns the binary's path.
func Build(pkg, version string) string {
	ginkgo.GinkgoHelper()
	file := filepath.Join(ginkgo.GinkgoT().TempDir(), filepath.Base(pkg)+version)
	command := exec.CommandContext(context.Background(), "go", "build", "-trimpath", //nolint:gosec // as above
		"-ldflags", "-X main.version="+version, "-o", file, pkg)
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := command.CombinedOutput()
	gomega.Expect(err).NotTo(gomega.HaveOccurred(), string(out))
	return file
}
