package containers_test

import (
	"os"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/containers"
)

// project is one whose docker-compose is a script.
func project(compose string) containers.Project {
	GinkgoHelper()
	root, err := filepath.Abs("../../../..")
	Expect(err).NotTo(HaveOccurred())
	bin := GinkgoT().TempDir()
	Expect(os.WriteFile(filepath.Join(bin, "docker-compose"), []byte("#!/bin/sh\n"+compose+"\n"), 0o755)).To(Succeed())
	GinkgoT().Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return containers.Project{Root: root, Name: "spec", Generated: filepath.Join(GinkgoT().TempDir(), "generated")}
}

var _ = Describe("A project", func() {
	It("forgets its secrets when it is down", func(ctx SpecContext) {
		p := project("exit 0")
		Expect(p.Init(ctx)).To(Succeed())
		Expect(p.Remove(ctx)).To(Succeed())
		Expect(filepath.Join(p.Generated, "postgres_password")).NotTo(BeAnExistingFile())
	})

	It("keeps its secrets where docker-compose fails: the volumes that are left need them", func(ctx SpecContext) {
		p := project("echo no daemon >&2; exit 1")
		Expect(p.Init(ctx)).To(Succeed())
		Expect(p.Remove(ctx)).To(MatchError(ContainSubstring("no daemon")))
		Expect(filepath.Join(p.Generated, "postgres_password")).To(BeAnExistingFile())
	})

	It("closes the directory of its secrets, also one that was there", func(ctx SpecContext) {
		p := project("exit 0")
		Expect(os.Mkdir(p.Generated, 0o755)).To(Succeed())
		Expect(p.Init(ctx)).To(Succeed())
		info, err := os.Stat(p.Generated)
		Expect(err).NotTo(HaveOccurred())
		Expect(info.Mode().Perm()).To(Equal(os.FileMode(0o700)))
		Expect(filepath.Glob(filepath.Join(p.Generated, "*.new"))).To(BeEmpty())
	})

	It("refuses a secret that is empty, and says which", func(ctx SpecContext) {
		p := project("exit 0")
		Expect(os.Mkdir(p.Generated, 0o755)).To(Succeed())
		empty := filepath.Join(p.Generated, "admin_token")
		Expect(os.WriteFile(empty, nil, 0o600)).To(Succeed())
		Expect(p.Init(ctx)).To(MatchError(ContainSubstring(empty + " is empty")))
	})
})
