//go:build e2e

package faults_test

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// fields are what is changed of hello's component.
type fields = map[string]any

var _ = Describe("A deployment repository that is no good", Label("faults"), func() {
	// changed makes a repository like hello's in which one text stands for another.
	changed := func(ctx context.Context, name, old, replaced string) string {
		GinkgoHelper()
		files := suite.Deployment(stack.Hello)
		const template = "hello@.service.tmpl"
		Expect(files[template]).To(ContainSubstring(old))
		files[template] = strings.ReplaceAll(files[template], old, replaced)
		repo, err := suite.MakeRepo(ctx, name, files)
		Expect(err).NotTo(HaveOccurred())
		return repo
	}
	refTo := func(ref string) func(context.Context) fields {
		return func(context.Context) fields { return fields{"deployment_repo_git_ref": ref} }
	}
	repoAt := func(repo string) func(context.Context) fields {
		return func(context.Context) fields { return fields{"deployment_repo": repo} }
	}
	change := func(f fields) func(context.Context) error {
		return func(ctx context.Context) error { return stack.ChangeComponent(ctx, see.API, stack.Hello.Type, f) }
	}

	DescribeTable("fails the upgrade and touches nothing:", func(ctx SpecContext, bad func(context.Context) fields,
		reason string) {
		was := fields{"deployment_repo": suite.DeploymentRepo(stack.Hello), "deployment_repo_git_ref": stack.Deployed,
			"upgrade_strategy": "hourly"}
		DeferCleanup(func(ctx SpecContext) { Expect(change(was)(ctx)).To(Succeed()) }, NodeTimeout(30*time.Second))
		// it would be tried again, and must be here only once
		Expect(change(fields{"upgrade_strategy": "manual"})(ctx)).To(Succeed())
		Expect(change(bad(ctx))(ctx)).To(Succeed())
		before, err := see.Processes(stack.Hello)
		Expect(err).NotTo(HaveOccurred())
		c := component(ctx, stack.Hello)
		u, err := see.API.RequestUpgrade(ctx, managerapi.UpgradeRequest{ComponentID: c.ID, Force: true})
		Expect(err).NotTo(HaveOccurred())
		u = ended(ctx, u.ID, upgrade.Failed)
		Expect(u.Cause).To(Equal(upgrade.CauseEnvironment))
		Expect(u.Verdict.Code).To(Equal(reason), u.Verdict.Message)
		_, found, err := see.Quarantine(ctx, stack.Hello.Type, c.SourceRepoGitRef)
		Expect(err).NotTo(HaveOccurred())
		Expect(found).To(BeFalse(), "an environment is no reason for a quarantine")
		Expect(see.Processes(stack.Hello)).To(Equal(before))
		Expect(see.Recorded(ctx, stack.Hello.Type, c.SourceRepoGitRef)).To(Succeed())
		Expect(filepath.Join(suite.Dir, "executed")).NotTo(BeAnExistingFile())
	},
		Entry("an unknown ref", SpecTimeout(time.Minute), refTo("no-such-branch"), "git_ref_unknown"),
		Entry("a host that nobody knows", SpecTimeout(2*time.Minute), repoAt("https://git.invalid/hello.git"),
			"git_unreachable"),
		Entry("a directory that is not there", SpecTimeout(time.Minute),
			func(context.Context) fields {
				return fields{"deployment_repo": filepath.Join(suite.Dir, "repos", "none.git")}
			}, "git_unreachable"),
		Entry("an address that would run a command", SpecTimeout(time.Minute),
			func(context.Context) fields {
				return fields{"deployment_repo": "ext::touch " + filepath.Join(suite.Dir, "executed")}
			}, "git_refused"),
		Entry("an address of a file", SpecTimeout(time.Minute),
			func(context.Context) fields {
				return fields{"deployment_repo": "file://" + suite.DeploymentRepo(stack.Hello)}
			}, "git_refused"),
		Entry("a template with an unknown variable", SpecTimeout(time.Minute), func(ctx context.Context) fields {
			return fields{"deployment_repo": changed(ctx, "hello_variable", "{{.source_ref}}", "{{.password}}")}
		}, "template_invalid"),
		Entry("a unit without ExecStart", SpecTimeout(time.Minute), func(ctx context.Context) fields {
			return fields{"deployment_repo": changed(ctx, "hello_nothing", "ExecStart=", "ExecStop=")}
		}, "unit_invalid"),
	)

	It("is forgotten as soon as it is good again", func(ctx SpecContext) {
		ref := newHello(ctx)
		Expect(change(fields{"deployment_repo_git_ref": "no-such-branch"})(ctx)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) {
			Expect(change(fields{"deployment_repo_git_ref": stack.Deployed})(ctx)).To(Succeed())
		}, NodeTimeout(30*time.Second))
		ended(ctx, request(ctx, stack.Hello, ref).ID, upgrade.Failed)
		Expect(change(fields{"deployment_repo_git_ref": stack.Deployed})(ctx)).To(Succeed())
		Eventually(see.Recorded).WithContext(ctx).WithArguments(stack.Hello.Type,
			ref).WithTimeout(90 * time.Second).Should(Succeed())
	}, SpecTimeout(3*time.Minute))
})
