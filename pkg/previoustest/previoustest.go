// Package previoustest builds programs of the previous release for specs: of the commit that deploy/previous names. Its
// binaries have to keep working beside this version's (docs/compatibility.md). It is for suites only.
//
// It needs git and the history of the repository. What is built is kept under .cache, by commit and version of Go.
package previoustest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/previous"
)

// Service returns the path of a service's binary, such as "unitd". The binary reports version "previous".
func Service(name string) string {
	ginkgo.GinkgoHelper()
	return build(name, "build", "-ldflags", "-X main.version=previous", "./services/"+name)
}

// Suite returns the path of the compiled specs of a package, such as "services/unitd". The files beside the package are
// not kept.
func Suite(dir string) string {
	ginkgo.GinkgoHelper()
	return build(filepath.Base(dir)+".test", "test", "-c", "./"+dir)
}

// build runs a command of go in a copy of the commit, unless an earlier run has its result.
func build(name, verb string, args ...string) string {
	ginkgo.GinkgoHelper()
	ctx := context.Background()
	root := strings.TrimSpace(output(exec.CommandContext(ctx, "git", "rev-parse", "--show-toplevel")))
	commit, err := previous.Commit(root)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	kept := filepath.Join(root, ".cache", "previous", commit, runtime.Version(), name)
	if _, err := os.Stat(kept); err == nil {
		return kept
	}
	gomega.Expect(os.MkdirAll(filepath.Dir(kept), 0o755)).To(gomega.Succeed()) //nolint:gosec // binaries for everybody

	work, err := os.MkdirTemp(filepath.Dir(kept), "build-")
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	defer func() { _ = os.RemoveAll(work) }()
	gomega.Expect(previous.Extract(ctx, root, commit, work)).To(gomega.Succeed())
	fresh := filepath.Join(work, "built")
	args = append([]string{verb, "-trimpath", "-buildvcs=false", "-o", fresh}, args...)
	command := exec.CommandContext(ctx, "go", args...) //nolint:gosec // a spec's own words
	command.Dir = work
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK="+filepath.Join(work, "go.work"))
	output(command)
	gomega.Expect(os.Rename(fresh, kept)).To(gomega.Succeed()) // whole, also for another suite that builds the same
	return kept
}

// output runs a command, which must succeed.
func output(command *exec.Cmd) string {
	ginkgo.GinkgoHelper()
	var complaint strings.Builder
	command.Stderr = &complaint
	text, err := command.Output()
	gomega.Expect(err).NotTo(gomega.HaveOccurred(), complaint.String())
	return string(text)
}
