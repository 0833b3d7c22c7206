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
	text, err := os.ReadFile(filepath.Join(root, "deploy", "previous"))
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	commit := strings.TrimSpace(string(text))
	kept := filepath.Join(root, ".cache", "previous", commit, runtime.Version(), name)
	if _, err := os.Stat(kept); err == nil {
		return kept
	}
	gomega.Expect(os.MkdirAll(filepath.Dir(kept), 0o755)).To(gomega.Succeed()) //nolint:gosec // binaries for everybody

	work, err := os.MkdirTemp(filepath.Dir(kept), "build-")
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	defer func() { _ = os.RemoveAll(work) }()
	extract(ctx, root, commit, work)
	fresh := filepath.Join(work, "built")
	args = append([]string{verb, "-trimpath", "-buildvcs=false", "-o", fresh}, args...)
	command := exec.CommandContext(ctx, "go", args...) //nolint:gosec // a spec's own words
	command.Dir = work
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	output(command)
	gomega.Expect(os.Rename(fresh, kept)).To(gomega.Succeed()) // whole, also for another suite that builds the same
	return kept
}

// extract writes the files of a commit into a directory.
func extract(ctx context.Context, root, commit, dir string) {
	ginkgo.GinkgoHelper()
	archive := exec.CommandContext(ctx, "git", "archive", commit)
	archive.Dir = root
	archive.Stderr = ginkgo.GinkgoWriter
	unpack := exec.CommandContext(ctx, "tar", "-x", "-C", dir)
	unpack.Stderr = ginkgo.GinkgoWriter
	var err error
	unpack.Stdin, err = archive.StdoutPipe()
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	gomega.Expect(archive.Start()).To(gomega.Succeed())
	unpacked := unpack.Run()
	gomega.Expect(archive.Wait()).To(gomega.Succeed(),
		"git archive %s: does this clone have the commit of deploy/previous?", commit)
	gomega.Expect(unpacked).To(gomega.Succeed())
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
