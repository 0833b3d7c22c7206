package render_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/deploy/failure"
	"github.com/openaperture/openaperture/pkg/deploy/render"
)

// unprivileged does something without root's power over files.
func unprivileged(do func()) {
	runtime.LockOSThread() // it is the thread's
	defer runtime.UnlockOSThread()
	if os.Geteuid() == 0 {
		Expect(syscall.Setfsuid(65534)).To(Succeed())
		defer func() { Expect(syscall.Setfsuid(0)).To(Succeed()) }()
	}
	do()
}

var _ = Describe("Fetching", func() {
	ask := func(g *render.Git, deploymentRepo, deploymentRef string) error {
		source := newRepo(map[string]string{"README": "x"})
		_, err := g.Render(context.Background(), render.Request{ComponentType: "overseer", ExchangeID: 1,
			DeploymentRepo: deploymentRepo, DeploymentRef: deploymentRef, SourceRepo: source.dir, SourceRef: "master"})
		return err
	}

	DescribeTable("drops at its start what is half made or long unused, and keeps what is in use",
		func(fullCommit bool, meanwhile func(repo)) {
			dir, old := GinkgoT().TempDir(), time.Now().Add(-31*24*time.Hour)
			in := func(c *render.GitConfig) { c.CacheDir = dir }
			cached := func() []string {
				list, err := filepath.Glob(filepath.Join(dir, "*"))
				Expect(err).NotTo(HaveOccurred())
				return list
			}
			age := func() {
				for _, d := range cached() {
					Expect(os.Chtimes(d, old, old)).To(Succeed())
				}
			}
			repo, g, ref := newRepo(nil), newGit(in), "master"
			if id := repo.commit(goodFiles()); fullCommit {
				ref = id
			}
			Expect(ask(g, repo.dir, ref)).To(Succeed())
			Expect(cached()).To(HaveLen(1))
			age()
			meanwhile(repo)
			Expect(ask(g, repo.dir, ref)).To(Succeed())
			Expect(os.Mkdir(filepath.Join(dir, "new-1"), 0o700)).To(Succeed())
			newGit(in)
			Expect(cached()).To(HaveLen(1))
			age()
			newGit(in)
			Expect(cached()).To(BeEmpty())
		},
		Entry("a ref that has moved", false, func(r repo) { r.commit(map[string]string{"more": "x"}) }),
		Entry("a ref that stands still", false, func(repo) {}),
		Entry("a full commit", true, func(repo) {}),
		Entry("a full commit whose host is away", true, func(r repo) { Expect(os.RemoveAll(r.dir)).To(Succeed()) }),
	)

	It("starts also where something cannot be dropped", func() {
		dir, err := os.MkdirTemp("/var/tmp", "openaperture-git-") // that others may enter, too
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(os.RemoveAll, dir)
		Expect(os.Chmod(dir, 0o755)).To(Succeed()) //nolint:gosec // see above
		leftover := filepath.Join(dir, "new-1", "objects")
		Expect(os.MkdirAll(leftover, 0o755)).To(Succeed())
		Expect(os.Chmod(filepath.Dir(leftover), 0o555)).To(Succeed()) //nolint:gosec // not writable
		unprivileged(func() { newGit(func(c *render.GitConfig) { c.CacheDir = dir }) })
		Expect(leftover).To(BeADirectory())
	})

	DescribeTable("refuses the address (G1, S4)",
		func(repo string) {
			mark := filepath.Join(GinkgoT().TempDir(), "ran")
			repo = strings.ReplaceAll(repo, "MARK", mark)
			err := ask(newGit(), repo, "master")
			Expect(reasonOf(err)).To(Equal(failure.GitRefused))
			Expect(err.Error()).NotTo(ContainSubstring("s3cret"))
			Expect(mark).NotTo(BeAnExistingFile())
		},
		Entry("ext", "ext::sh -c touch% MARK"), Entry("ext in capitals", "EXT::sh -c touch% MARK"),
		Entry("file", "file:///etc"), Entry("file in capitals", "FILE:///etc"),
		Entry("an option", "--upload-pack=touch MARK"), Entry("an scp path that is an option", "git@h:-x"),
		Entry("credentials", "https://user:s3cret@github.com/a/b"),
		Entry("a password over ssh", "ssh://git:s3cret@github.com/a/b"),
		Entry("an IDN host", "https://gïthub.com/a/b"), Entry("NUL, escaped", "https://github.com/a%00b"),
		Entry("a newline", "https://github.com/a\nb"), Entry("http", "http://github.com/a/b"),
		Entry("git", "git://github.com/a/b"),
		Entry("a query", "https://github.com/a?b"), Entry("a fragment", "https://github.com/a#b"),
		Entry("dots", "https://github.com/../a"), Entry("a host that is an option", "ssh://-oProxyCommand=x/a"),
		Entry("a user that is an option", "-x@github.com:a/b"), Entry("a relative path", "../a"),
		Entry("a local path with dots", "/tmp/../etc"),
		Entry("loopback", "https://127.0.0.1/a/b"), Entry("loopback by name", "https://localhost/a/b"),
		Entry("loopback, IPv6", "https://[::1]/a/b"), Entry("metadata", "https://169.254.169.254/latest/a"),
		Entry("a private network", "ssh://git@10.0.0.1/a"), Entry("an octal loopback", "https://0177.0.0.1/a"),
	)

	It("refuses local paths unless they are allowed", func() {
		g := newGit(func(c *render.GitConfig) { c.AllowLocal = false })
		Expect(reasonOf(ask(g, newRepo(goodFiles()).dir, "master"))).To(Equal(failure.GitRefused))
	})

	It("refuses hosts beside those that are named (S4)", func() {
		g := newGit(func(c *render.GitConfig) { c.Hosts = []string{"git.example.com"} })
		err := ask(g, "https://github.com/a/b", "master")
		Expect(err).To(MatchError(`git_refused: host "github.com" is not in git_hosts`))
	})

	DescribeTable("refuses the ref (G2, S4)",
		func(ref string) {
			Expect(reasonOf(ask(newGit(), newRepo(goodFiles()).dir, ref))).To(Equal(failure.GitRefused))
		},
		Entry("an option", "--output=x"), Entry("a short option", "-h"), Entry("a range", "a..b"), Entry("a reflog", "@{-1}"),
		Entry("a path", "refs/heads/../../x"), Entry("very long", strings.Repeat("a", 10_000)), Entry("a lock", "a.lock"),
		Entry("a lock in the middle", "a.lock/b"), Entry("a refspec", "a:b"), Entry("a newline", "a\nb"),
		Entry("a space", "a b"),
		Entry("a force", "+a"), Entry("a peel", "a^{tree}"), Entry("a hidden part", "a/.b"),
	)

	DescribeTable("refuses what is blank",
		func(repo, ref string) {
			if repo == "ok" {
				repo = newRepo(goodFiles()).dir
			}
			Expect(reasonOf(ask(newGit(), repo, ref))).To(Equal(failure.RepoInvalid))
		},
		Entry("repository", " ", "master"), Entry("ref", "ok", " "),
	)

	It("tells an unknown ref from a repository that does not answer", func() {
		r := newRepo(goodFiles())
		Expect(reasonOf(ask(newGit(), r.dir, "v9"))).To(Equal(failure.GitRefUnknown))
		Expect(reasonOf(ask(newGit(), r.dir, strings.Repeat("a", 40)))).To(Equal(failure.GitRefUnknown))
		Expect(reasonOf(ask(newGit(), filepath.Join(r.dir, "nowhere"), "master"))).To(Equal(failure.GitUnreachable))
	})

	It("says that the source ref is unknown", func() {
		_, err := newGit().Render(context.Background(), render.Request{ComponentType: "overseer", ExchangeID: 1,
			DeploymentRepo: newRepo(goodFiles()).dir, DeploymentRef: "master", SourceRepo: newRepo(goodFiles()).dir,
			SourceRef: "v9"})
		Expect(reasonOf(err)).To(Equal(failure.GitRefUnknown))
	})

	It("gives up on a host that does not speak", func() {
		l, err := net.Listen("tcp", "127.0.0.1:0") // accepts into the backlog and stays silent
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(l.Close)
		g := newGit(func(c *render.GitConfig) { c.Hosts, c.Timeout = []string{"127.0.0.1"}, 200*time.Millisecond })
		began := time.Now()
		Expect(reasonOf(ask(g, "https://"+l.Addr().String()+"/a/b", "master"))).To(Equal(failure.GitUnreachable))
		Expect(time.Since(began)).To(BeNumerically("<", 5*time.Second))
	})

	It("ends with its context", func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := newGit().Render(ctx,
			render.Request{ComponentType: "x", DeploymentRepo: newRepo(goodFiles()).dir, DeploymentRef: "master",
				SourceRepo: newRepo(goodFiles()).dir, SourceRef: "master"})
		Expect(err).To(MatchError(context.Canceled))
	})

	It("refuses a repository beyond the size limit and keeps nothing of it", func() {
		r := newRepo(goodFiles())
		noise := make([]byte, 600_000)
		f, err := os.Open("/dev/urandom")
		Expect(err).NotTo(HaveOccurred())
		_, err = f.Read(noise)
		Expect(err).NotTo(HaveOccurred())
		Expect(f.Close()).To(Succeed())
		r.commit(map[string]string{"big": string(noise)})
		var cache string
		g := newGit(func(c *render.GitConfig) { c.MaxBytes = 200_000; cache = c.CacheDir })
		err = ask(g, r.dir, "master")
		Expect(reasonOf(err)).To(Equal(failure.GitRefused))
		Expect(err).To(MatchError(ContainSubstring("larger than 200000 bytes")))
		Expect(filepath.Glob(filepath.Join(cache, "*"))).To(BeEmpty())
	})

	It("lets no configuration of the user or the repository run anything", func() {
		home, mark := GinkgoT().TempDir(), filepath.Join(GinkgoT().TempDir(), "ran")
		config := "[core]\n\tsshCommand = touch " + mark + "\n\tfsmonitor = touch " + mark +
			"\n[uploadpack]\n\tpackObjectsHook = touch " + mark + "\n"
		Expect(os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(config), 0o600)).To(Succeed())
		GinkgoT().Setenv("HOME", home)
		GinkgoT().Setenv("GIT_CONFIG_GLOBAL", filepath.Join(home, ".gitconfig"))
		r := newRepo(goodFiles())
		hook := filepath.Join(r.dir, ".git", "hooks", "post-checkout")
		Expect(os.MkdirAll(filepath.Dir(hook), 0o755)).To(Succeed())
		script := []byte("#!/bin/sh\ntouch " + mark + "\n")
		Expect(os.WriteFile(hook, script, 0o755)).To(Succeed()) //nolint:gosec // a hook is executable
		Expect(ask(newGit(), r.dir, "master")).To(Succeed())
		Expect(mark).NotTo(BeAnExistingFile())
	})

	It("speaks one protocol only, even if an address slipped through the checks (G1)", func() {
		cmd := exec.Command("git", "ls-remote", "--", "ext::sh -c true")
		cmd.Env = render.Environment(newGit())
		out, err := cmd.CombinedOutput()
		Expect(err).To(HaveOccurred())
		Expect(string(out)).To(ContainSubstring("transport 'ext' not allowed"))
	})
})
