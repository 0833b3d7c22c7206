package previousstack_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/previousstack"
	"github.com/openaperture/openaperture/pkg/previous"
)

// workspace is a repository of two commits, the first of which is the release before.
func workspace() (root, commit string) {
	GinkgoHelper()
	root = GinkgoT().TempDir()
	script := `git init -q . && git config user.email a@b && git config user.name n
		echo old >go.work && git add . && git commit -qm old && git rev-parse HEAD
		echo new >go.work && git add . && git commit -qm new`
	cmd := exec.Command("sh", "-euc", script)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	out, err := cmd.Output()
	Expect(err).NotTo(HaveOccurred())
	commit = strings.TrimSpace(string(out))
	name(root, commit+"\n")
	return root, commit
}

// name writes deploy/previous.
func name(root, text string) {
	GinkgoHelper()
	Expect(os.MkdirAll(filepath.Join(root, "deploy"), 0o755)).To(Succeed())
	Expect(os.WriteFile(filepath.Join(root, "deploy", "previous"), []byte(text), 0o600)).To(Succeed())
}

var _ = Describe("The release before this one", func() {
	It("is extracted once, as it was committed", func(ctx SpecContext) {
		root, commit := workspace()
		dir, err := previousstack.Sources(ctx, root)
		Expect(err).NotTo(HaveOccurred())
		Expect(dir).To(Equal(filepath.Join(root, ".run-previous", commit)))
		Expect(os.ReadFile(filepath.Join(dir, "go.work"))).To(BeEquivalentTo("old\n"))
		mark := filepath.Join(dir, "mark")
		Expect(os.WriteFile(mark, nil, 0o600)).To(Succeed())
		Expect(previousstack.Sources(ctx, root)).To(Equal(dir))
		Expect(mark).To(BeAnExistingFile())
	}, NodeTimeout(time.Minute))

	It("needs the commit, and says how to get it", func(ctx SpecContext) {
		root, commit := workspace()
		name(root, strings.Repeat("0", len(commit)))
		_, err := previousstack.Sources(ctx, root)
		Expect(err).To(MatchError(ContainSubstring("git fetch --unshallow")))
		Expect(filepath.Glob(filepath.Join(root, ".run-previous", "*"))).To(BeEmpty())
	}, NodeTimeout(time.Minute))

	DescribeTable("is named by a full hash alone", func(ctx SpecContext, text string) {
		root, _ := workspace()
		name(root, text)
		_, err := previousstack.Sources(ctx, root)
		Expect(err).To(MatchError(ContainSubstring("want the full hash of a commit")))
	},
		Entry("not by a tag", NodeTimeout(time.Minute), "v1"),
		Entry("not by a short hash", NodeTimeout(time.Minute), "27b4cf0"),
		Entry("not by an option", NodeTimeout(time.Minute), "--output=/tmp/x"),
	)

	It("is named in this workspace", func() {
		Expect(previous.Commit("../../../..")).To(HaveLen(40))
	})
})
