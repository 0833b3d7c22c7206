package render_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/deploy/failure"
	"github.com/openaperture/openaperture/pkg/deploy/render"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// countGit has every git of this spec write its arguments into a file, and returns a function that counts those with a
// word. A git whose arguments match the pattern of refuse fails.
func countGit(refuse string) func(word string) int {
	real, err := exec.LookPath("git")
	Expect(err).NotTo(HaveOccurred())
	dir := GinkgoT().TempDir()
	log := filepath.Join(dir, "log")
	script := []byte("#!/bin/sh\necho \"$*\" >> " + log + "\n" +
		"echo \"$*\" | grep -qE '" + refuse + "' && exit 128\nexec " + real + " \"$@\"\n")
	Expect(os.WriteFile(filepath.Join(dir, "git"), script, 0o755)).To(Succeed()) //nolint:gosec // a program
	before := os.Getenv("PATH")
	Expect(os.Setenv("PATH", dir+":"+before)).To(Succeed())
	DeferCleanup(os.Setenv, "PATH", before)
	return func(word string) int {
		text, err := os.ReadFile(log)
		Expect(err).NotTo(HaveOccurred())
		return strings.Count(string(text), word)
	}
}

// forget makes a repository lose what no ref points at.
func (r repo) forget() {
	r.git("reflog", "expire", "--expire=now", "--all")
	r.git("gc", "--quiet", "--prune=now")
}

var _ = Describe("Resolving", func() {
	ctx := context.Background()
	full := strings.Repeat("a", 40)

	It("finds the commits of branches, tags and commits, in the order of the refs (fault 20)", func() {
		r := newRepo(map[string]string{"README": "x"})
		first := r.git("rev-parse", "HEAD")
		r.git("tag", "light")
		r.git("tag", "-a", "-m", "release", "v1")
		r.git("branch", "feature/main")
		second := r.commit(map[string]string{"README": "y"})
		r.git("branch", "both")
		r.git("tag", "both", first)
		got := newGit().Resolve(ctx, []messages.GitRef{{Repo: r.dir, Ref: "v1"}, {Repo: r.dir, Ref: "master"},
			{Repo: r.dir, Ref: "light"}, {Repo: r.dir, Ref: full}, {Repo: r.dir, Ref: "feature/main"},
			{Repo: r.dir, Ref: "refs/heads/master"}, {Repo: r.dir, Ref: "refs/tags/v1"}, {Repo: r.dir, Ref: "both"}})
		want := func(ref, kind, id string) messages.Resolved {
			return messages.Resolved{Repo: r.dir, Ref: ref, Kind: kind, Commit: id}
		}
		Expect(got).To(Equal([]messages.Resolved{
			want("v1", messages.RefTag, first), want("master", messages.RefBranch, second),
			want("light", messages.RefTag, first), want(full, messages.RefCommit, full),
			want("feature/main", messages.RefBranch, first), want("refs/heads/master", messages.RefBranch, second),
			want("refs/tags/v1", messages.RefTag, first), want("both", messages.RefTag, first)}))
	})

	It("asks each repository once, and fetches nothing (fault 20)", func() {
		count := countGit("^never$")
		a, b := newRepo(map[string]string{"x": "1"}), newRepo(map[string]string{"x": "2"})
		a.git("tag", "v1")
		var cache string
		g := newGit(func(c *render.GitConfig) { cache = c.CacheDir })
		for _, r := range g.Resolve(ctx, []messages.GitRef{{Repo: a.dir, Ref: "master"}, {Repo: b.dir, Ref: "master"},
			{Repo: a.dir, Ref: "v1"}, {Repo: a.dir, Ref: full}, {Repo: "https://git.invalid/x", Ref: full}}) {
			Expect(r.Error).To(BeEmpty())
		}
		Expect(count("ls-remote")).To(Equal(2))
		Expect(count(" fetch ")).To(BeZero())
		Expect(os.ReadDir(cache)).To(BeEmpty())
	})

	It("says of each ref why it has no commit, and goes on with the others (fault 20)", func() {
		good := newRepo(map[string]string{"x": "1"})
		g := newGit(func(c *render.GitConfig) { c.Hosts = []string{"127.0.0.1"} })
		got := g.Resolve(ctx, []messages.GitRef{{Repo: good.dir, Ref: "nowhere"}, {Repo: good.dir, Ref: "--upload-pack=x"},
			{Repo: "/nonexistent", Ref: "master"}, {Repo: "https://127.0.0.1:1/a/b", Ref: "master"},
			{Repo: "http://127.0.0.1/a", Ref: "v1"}, {Repo: "https://example.com/a/b", Ref: "v1"},
			{Repo: good.dir, Ref: "master"}})
		var errs []string
		for _, r := range got {
			errs = append(errs, r.Error)
			if r.Error == "" {
				Expect(r).To(And(HaveField("Commit", HaveLen(40)), HaveField("Kind", Not(BeEmpty()))))
			} else {
				Expect(r).To(And(HaveField("Commit", BeEmpty()), HaveField("Kind", BeEmpty())))
			}
		}
		Expect(errs).To(HaveExactElements(
			HaveSuffix(`has no ref "nowhere"`), `ref "--upload-pack=x" is not allowed`, ContainSubstring("does not answer"),
			ContainSubstring("does not answer"), ContainSubstring("only https and ssh are allowed"),
			`host "example.com" is not in git_hosts`, ""))
	})

	It("ends with its context", func() {
		done, cancel := context.WithCancel(ctx)
		cancel()
		r := newRepo(map[string]string{"x": "1"})
		Expect(newGit().Resolve(done, []messages.GitRef{{Repo: r.dir, Ref: "master"}})[0].Error).NotTo(BeEmpty())
	})
})

var _ = Describe("A planned commit", func() {
	var source, deployment repo
	var request render.Request
	ctx := context.Background()
	BeforeEach(func() {
		source, deployment = newRepo(map[string]string{"README": "x"}), newRepo(goodFiles())
		source.git("tag", "v1")
		deployment.git("tag", "d1")
		request = render.Request{ComponentType: "overseer", ExchangeID: 7, DeploymentRepo: deployment.dir,
			SourceRepo:       source.dir,
			DeploymentCommit: deployment.git("rev-parse", "HEAD"), SourceCommit: source.git("rev-parse", "HEAD")}
	})

	DescribeTable("is rendered although its ref was moved or deleted since (D11, fault 20)",
		func(sourceRef, deploymentRef string, change func()) {
			request.SourceRef, request.DeploymentRef = sourceRef, deploymentRef
			change()
			got, err := newGit().Render(ctx, request)
			Expect(err).NotTo(HaveOccurred())
			Expect(got.SourceCommit).To(Equal(request.SourceCommit))
			Expect(got.DeploymentCommit).To(Equal(request.DeploymentCommit))
			Expect(got.EtcdToken).To(Equal("cluster-1"))
			Expect(got.SourceRef).To(Equal(sourceRef))
		},
		Entry("nothing happened", "v1", "d1", func() {}),
		Entry("branches moved on", "master", "master", func() {
			source.commit(map[string]string{"README": "y"})
			deployment.commit(map[string]string{"etcd.json": `{"token": "cluster-2"}`})
		}),
		Entry("tags were moved", "v1", "d1", func() {
			source.commit(map[string]string{"README": "y"})
			source.git("tag", "-f", "v1")
			deployment.commit(map[string]string{"etcd.json": `{"token": "cluster-2"}`})
			deployment.git("tag", "-f", "d1")
		}),
		Entry("tags were deleted", "v1", "d1", func() {
			source.git("tag", "-d", "v1")
			deployment.git("tag", "-d", "d1")
		}),
	)

	DescribeTable("that its repository has no more ends the milestone, and never renders other code (D11, fault 20)",
		func(of func() repo) {
			request.SourceRef, request.DeploymentRef = "v1", "d1"
			r := of()
			r.git("checkout", "-q", "--orphan", "other")
			r.commit(map[string]string{"README": "z"})
			for _, tag := range strings.Fields(r.git("tag")) {
				r.git("tag", "-f", tag)
			}
			r.git("branch", "-D", "master")
			r.forget()
			_, err := newGit().Render(ctx, request)
			Expect(reasonOf(err)).To(Equal(failure.GitCommitGone))
			Expect(err).To(MatchError(ContainSubstring("does not give commit")))
		},
		Entry("of the source", func() repo { return source }),
		Entry("of the deployment", func() repo { return deployment }),
	)

	It("of a host that gives no commit by its id is found by its ref (fault 20)", func() {
		request.SourceRef, request.DeploymentRef = "v1", "master"
		count := countGit(`fetch .*\+[0-9a-f]{40}:`)
		got, err := newGit().Render(ctx, request)
		Expect(err).NotTo(HaveOccurred())
		Expect(got.DeploymentCommit).To(Equal(request.DeploymentCommit))
		Expect(count("+"+request.DeploymentCommit)).To(BeNumerically(">", 0), "it was asked for by its id first")
	})

	It("that is none is refused", func() {
		request.SourceRef, request.DeploymentRef, request.DeploymentCommit = "v1", "d1", "main"
		_, err := newGit().Render(ctx, request)
		Expect(reasonOf(err)).To(Equal(failure.GitRefused))
	})
})
