package render_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/deploy/render"
)

// stallGit has every git of this spec whose arguments match a pattern stand still until it is let, after which none
// does.
func stallGit(pattern string) (let func(), stalled func() int) {
	real, err := exec.LookPath("git")
	Expect(err).NotTo(HaveOccurred())
	dir := GinkgoT().TempDir()
	log, gate := filepath.Join(dir, "log"), filepath.Join(dir, "gate")
	Expect(syscall.Mkfifo(gate, 0o600)).To(Succeed())
	script := fmt.Sprintf("#!/bin/sh\nif echo \"$*\" | grep -qE '%s' && [ -p %s ]; then\n"+
		"echo x >> %s; read line < %s; fi\n"+
		"exec %s \"$@\"\n", pattern, gate, log, gate, real)
	Expect(os.WriteFile(filepath.Join(dir, "git"), []byte(script), 0o755)).To(Succeed()) //nolint:gosec // a program
	before := os.Getenv("PATH")
	Expect(os.Setenv("PATH", dir+":"+before)).To(Succeed())
	DeferCleanup(os.Setenv, "PATH", before)
	held, err := os.OpenFile(gate, os.O_RDWR, 0)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(held.Close)
	let = sync.OnceFunc(func() {
		Expect(os.Remove(gate)).To(Succeed())
		_, err := held.WriteString("\n\n\n\n")
		Expect(err).NotTo(HaveOccurred())
	})
	DeferCleanup(let)
	return let, func() int {
		text, _ := os.ReadFile(log)
		return len(text) / 2
	}
}

var _ = Describe("Releases that are rendered at the same time", func() {
	ctx := context.Background()
	request := func(deployment repo) render.Request {
		return render.Request{DeploymentRepo: deployment.dir, DeploymentRef: "master", SourceRepo: deployment.dir,
			SourceRef: "master", ComponentType: "builder"}
	}

	It("do not wait for a repository of another one that does not answer (D10)", func() {
		slow, quick := newRepo(goodFiles()), newRepo(goodFiles())
		let, stalled := stallGit("fetch .*" + slow.dir)
		g := newGit()
		done := make(chan error, 1)
		go func() { _, err := g.Render(ctx, request(slow)); done <- err }()
		Eventually(stalled).Should(Equal(1))
		soon, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, err := g.Render(soon, request(quick))
		Expect(err).NotTo(HaveOccurred())
		Expect(done).NotTo(Receive())
		let()
		Eventually(done).Should(Receive(BeNil()))
	})

	It("wait for their own repository no longer than they want", func() {
		slow := newRepo(goodFiles())
		let, stalled := stallGit("fetch .*" + slow.dir)
		g := newGit()
		done := make(chan struct{})
		go func() { defer close(done); _, _ = g.Render(ctx, request(slow)) }()
		DeferCleanup(func() { let(); Eventually(done).Should(BeClosed()) })
		Eventually(stalled).Should(Equal(1))
		short, cancel := context.WithCancel(ctx)
		cancel()
		_, err := g.Render(short, request(slow))
		Expect(err).To(MatchError(context.Canceled))
	})

	It("do not take a repository of the cache away while another one reads it", func() {
		r := newRepo(goodFiles())
		noise := make([]byte, 300<<10)
		for i := range 8 {
			_, _ = rand.Read(noise)
			r.commit(map[string]string{"noise": string(noise)})
			r.git("tag", fmt.Sprintf("v%d", i))
		}
		g := newGit(func(c *render.GitConfig) { c.MaxBytes = 700 << 10 }) // begun anew with every further commit
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				defer GinkgoRecover()
				q := request(r)
				q.DeploymentRef = fmt.Sprintf("v%d", i)
				_, err := g.Render(ctx, q)
				Expect(err).NotTo(HaveOccurred())
			})
		}
		all.Wait()
	})
})
