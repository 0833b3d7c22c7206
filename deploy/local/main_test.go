package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/times"
)

func TestLocal(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "local")
}

var _ = Describe("down", func() {
	It("takes what a failed trial has left, or the stack that is named, and nothing else", func(ctx SpecContext) {
		root, err := os.MkdirTemp("/var/tmp", "openaperture-local-")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(os.RemoveAll, root)
		for _, dir := range []string{".run-bench", "kept"} {
			_, err := stack.Open(ctx, root, filepath.Join(root, dir), times.Fast)
			Expect(err).NotTo(HaveOccurred())
		}
		Expect(os.Mkdir(filepath.Join(root, "other"), 0o755)).To(Succeed())
		left := func() []string {
			entries, err := os.ReadDir(root)
			Expect(err).NotTo(HaveOccurred())
			names := []string{}
			for _, e := range entries {
				names = append(names, e.Name())
			}
			return names
		}
		Expect(down(ctx, root, nil)).To(Succeed())
		Expect(left()).To(ConsistOf("kept", "other"))
		Expect(down(ctx, root, []string{filepath.Join(root, "other")})).To(MatchError(ContainSubstring("find the stack of")))
		Expect(down(ctx, root, []string{filepath.Join(root, "kept")})).To(Succeed())
		Expect(left()).To(ConsistOf("other"))
	}, NodeTimeout(time.Minute))

	It("takes down the stack of the release before this one, which lies deeper", func(ctx SpecContext) {
		root, err := os.MkdirTemp("/var/tmp", "openaperture-local-")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(os.RemoveAll, root)
		dir := filepath.Join(root, ".run-previous", "commit", ".run")
		s, err := stack.Open(ctx, root, dir, times.Fast)
		Expect(err).NotTo(HaveOccurred())
		Expect(s.Postgres.Start(ctx)).To(Succeed())
		running, err := proc.WorkingIn(s.Postgres.Dir)
		Expect(err).NotTo(HaveOccurred())
		Expect(running).NotTo(BeEmpty())
		Expect(down(ctx, root, nil)).To(Succeed())
		Expect(filepath.Join(root, ".run-previous")).NotTo(BeADirectory())
		for pid := range running {
			Expect(filepath.Join("/proc", strconv.Itoa(pid), "exe")).NotTo(BeAnExistingFile())
		}
	}, NodeTimeout(time.Minute))

	It("leaves a trial alone that runs, as does another trial", func(ctx SpecContext) {
		root, err := os.MkdirTemp("/var/tmp", "openaperture-local-")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(os.RemoveAll, root)
		dir := filepath.Join(root, ".run-chaos")
		begun := false
		Expect(alone(ctx, root, ".run-chaos", "", func(*stack.Stack) error {
			begun = true
			Expect(down(ctx, root, nil)).To(Succeed())
			Expect(filepath.Join(dir, "stack.json")).To(BeAnExistingFile())
			Expect(alone(ctx, root, ".run-chaos", "", nil)).To(MatchError(stack.ErrInUse))
			return errors.New("failed")
		})).To(MatchError(ContainSubstring("the stack is still up")))
		Expect(begun).To(BeTrue())
		Expect(down(ctx, root, nil)).To(Succeed())
		Expect(dir).NotTo(BeADirectory())
	}, NodeTimeout(time.Minute))
})

var _ = Describe("the workspace", func() {
	It("is refused where units could not name its files", func() {
		dir := filepath.Join(GinkgoT().TempDir(), "my projects")
		Expect(os.Mkdir(dir, 0o755)).To(Succeed())
		GinkgoT().Chdir(dir)
		_, err := workspace()
		Expect(err).To(MatchError(ContainSubstring("has a space")))
	})
})
