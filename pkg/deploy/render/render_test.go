package render_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/deploy/failure"
	"github.com/openaperture/openaperture/pkg/deploy/render"
	messages "github.com/openaperture/openaperture/proto-messages"
)

var _ = Describe("Render", func() {
	var source repo
	BeforeEach(func() {
		source = newRepo(map[string]string{"README": "x"})
		source.git("tag", "-a", "-m", "release", "v1.2.0")
	})

	request := func(deployment repo) render.Request {
		return render.Request{ComponentType: "overseer", ExchangeID: 7, DeploymentRepo: deployment.dir,
			DeploymentRef: "master",
			SourceRepo:    source.dir, SourceRef: "v1.2.0"}
	}
	rendered := func(files map[string]string) (render.Release, error) {
		return newGit().Render(context.Background(), request(newRepo(files)))
	}
	option := func(section, name, value string) messages.Option {
		return messages.Option{Section: section, Name: name, Value: value}
	}

	It("yields units, cluster, count and both full commits", func() {
		deployment := newRepo(goodFiles())
		got, err := newGit().Render(context.Background(), request(deployment))
		Expect(err).NotTo(HaveOccurred())
		hash := source.git("rev-parse", "HEAD")
		Expect(got.SourceCommit).To(Equal(hash))
		Expect(got.DeploymentCommit).To(Equal(deployment.git("rev-parse", "HEAD")))
		Expect(got.EtcdToken).To(Equal("cluster-1"))
		Expect(got.FleetConfig.InstanceCount).To(HaveValue(Equal(3)))
		Expect(got.Units).To(Equal([]messages.UnitDefinition{{Name: "overseer@.service", Options: []messages.Option{
			option("Unit", "Description", "OpenAperture overseer v1.2.0 of 7"),
			option("Service", "Type", "notify"),
			option("Service", "Environment", "HOSTNAME=%H.overseer-%i"),
			option("Service", "ExecStart", "/opt/openaperture/v1.2.0/overseer --port 0"),
			option("Service", "Environment", "COMMIT="+hash),
			option("Service", "Environment", `"BUILT=Mon, 23 Nov 2026 03:05:06 UTC"`),
		}}}))
	})

	It("gives the same for the same commits, whatever lies in the cache", func() {
		deployment, g := newRepo(goodFiles()), newGit()
		first, err := g.Render(context.Background(), request(deployment))
		Expect(err).NotTo(HaveOccurred())
		again, err := g.Render(context.Background(), request(deployment))
		Expect(err).NotTo(HaveOccurred())
		fresh, err := newGit().Render(context.Background(), request(deployment))
		Expect(err).NotTo(HaveOccurred())
		Expect(again).To(Equal(first))
		Expect(fresh).To(Equal(first))
	})

	It("follows a ref that moved, and keeps to a commit that was pinned", func() {
		deployment, g := newRepo(goodFiles()), newGit()
		r := request(deployment)
		pinned, err := g.Render(context.Background(), r)
		Expect(err).NotTo(HaveOccurred())
		deployment.commit(map[string]string{"etcd.json": `{"token": "cluster-2"}`})
		moved, err := g.Render(context.Background(), r)
		Expect(err).NotTo(HaveOccurred())
		Expect(moved.EtcdToken).To(Equal("cluster-2"))
		r.DeploymentRef = pinned.DeploymentCommit
		r.SourceRef = pinned.SourceCommit
		deployment.git("checkout", "-q", "--orphan", "other")
		again, err := g.Render(context.Background(), r)
		Expect(err).NotTo(HaveOccurred())
		Expect(again.EtcdToken).To(Equal("cluster-1"))
		Expect(again.SourceCommit).To(Equal(pinned.SourceCommit))
	})

	It("finds a pinned commit that is nobody's tip, in a fresh cache", func() {
		deployment := newRepo(goodFiles())
		r := request(deployment)
		r.DeploymentRef = deployment.git("rev-parse", "HEAD")
		deployment.commit(map[string]string{"etcd.json": `{"token": "cluster-2"}`})
		r.SourceRef = source.git("rev-parse", "HEAD")
		source.commit(map[string]string{"README": "y"})
		source.git("tag", "-d", "v1.2.0")
		got, err := newGit().Render(context.Background(), r)
		Expect(err).NotTo(HaveOccurred())
		Expect(got.EtcdToken).To(Equal("cluster-1"))
		Expect(got.SourceCommit).To(Equal(r.SourceRef))
	})

	It("needs no exchange with the deployment repository for a commit that it has", func() {
		deployment, g := newRepo(goodFiles()), newGit()
		r := request(deployment)
		r.DeploymentRef = deployment.git("rev-parse", "HEAD")
		_, err := g.Render(context.Background(), r)
		Expect(err).NotTo(HaveOccurred())
		Expect(os.RemoveAll(deployment.dir)).To(Succeed())
		_, err = g.Render(context.Background(), r)
		Expect(err).NotTo(HaveOccurred())
	})

	It("mends its cache after a fetch that was killed", func() {
		deployment := newRepo(goodFiles())
		var cache string
		g := newGit(func(c *render.GitConfig) { cache = c.CacheDir })
		_, err := g.Render(context.Background(), request(deployment))
		Expect(err).NotTo(HaveOccurred())
		dirs, err := filepath.Glob(filepath.Join(cache, "*.git"))
		Expect(err).NotTo(HaveOccurred())
		Expect(dirs).To(HaveLen(1))
		Expect(os.WriteFile(filepath.Join(dirs[0], "shallow.lock"), nil, 0o600)).To(Succeed())
		deployment.commit(map[string]string{"etcd.json": `{"token": "cluster-2"}`})
		got, err := g.Render(context.Background(), request(deployment))
		Expect(err).NotTo(HaveOccurred())
		Expect(got.EtcdToken).To(Equal("cluster-2"))
	})

	It("does not mistake what a killed fetch left behind for a whole commit", func() {
		deployment := newRepo(goodFiles())
		var cache string
		g := newGit(func(c *render.GitConfig) { cache = c.CacheDir })
		_, err := g.Render(context.Background(), request(deployment))
		Expect(err).NotTo(HaveOccurred())
		id := deployment.commit(map[string]string{"etcd.json": `{"token": "cluster-2"}`})
		dirs, err := filepath.Glob(filepath.Join(cache, "*.git"))
		Expect(err).NotTo(HaveOccurred())
		object := filepath.Join("objects", id[:2], id[2:]) // the commit, but neither its tree nor its files
		text, err := os.ReadFile(filepath.Join(deployment.dir, ".git", object))
		Expect(err).NotTo(HaveOccurred())
		Expect(os.MkdirAll(filepath.Join(dirs[0], "objects", id[:2]), 0o700)).To(Succeed())
		Expect(os.WriteFile(filepath.Join(dirs[0], object), text, 0o600)).To(Succeed())
		got, err := g.Render(context.Background(), request(deployment))
		Expect(err).NotTo(HaveOccurred())
		Expect(got.EtcdToken).To(Equal("cluster-2"))
	})

	It("takes source repository and ref from source.json when the order has none", func() {
		deployment := newRepo(with(map[string]string{"source.json": `{"source_repo": "` + source.dir +
			`", "source_repo_git_ref": "v1.2.0"}`}))
		r := request(deployment)
		r.SourceRepo, r.SourceRef = "", ""
		got, err := newGit().Render(context.Background(), r)
		Expect(err).NotTo(HaveOccurred())
		Expect(got.SourceRef).To(Equal("v1.2.0"))
		Expect(got.SourceRepo).To(Equal(source.dir))
		Expect(got.SourceCommit).To(Equal(source.git("rev-parse", "HEAD")))
	})

	It("leaves the count open without fleet.json", func() {
		got, err := rendered(with(map[string]string{"fleet.json": ""}))
		Expect(err).NotTo(HaveOccurred())
		Expect(got.FleetConfig.InstanceCount).To(BeNil())
	})

	It("renders the predecessor's templates in place of the files that it committed", func() {
		got, err := rendered(with(map[string]string{"overseer@.service.tmpl": "",
			"overseer@.service.eex": "[Service]\nExecStart=/bin/x <%= commit_hash %> <%=dst_port%>\nEnvironment=\"T=<%= " +
				"timestamp %>\"\n",
			"overseer@.service": "[Service]\nExecStart=/bin/old\n",
			"cron.service":      "[Service]\nExecStart=/bin/cron\n"}))
		Expect(err).NotTo(HaveOccurred())
		Expect(got.Units).To(HaveLen(2))
		Expect(got.Units[0].Name).To(Equal("cron.service"))
		Expect(got.Units[1].Options).To(Equal([]messages.Option{
			option("Service", "ExecStart", "/bin/x "+got.SourceCommit+" 0"),
			option("Service", "Environment", `"T=Mon, 23 Nov 2026 03:05:06 UTC"`),
		}))
	})

	DescribeTable("refuses a deployment repository with",
		func(reason failure.Reason, message string, changes map[string]string) {
			_, err := rendered(with(changes))
			Expect(err).To(MatchError(ContainSubstring(message)))
			Expect(reasonOf(err)).To(Equal(reason))
		},
		Entry("no unit", failure.NoUnits, "no .service file", map[string]string{"overseer@.service.tmpl": ""}),
		Entry("a unit below the root only", failure.NoUnits, "no .service file",
			map[string]string{"overseer@.service.tmpl": "", "units/a@.service": "[Service]\nExecStart=/a"}),
		Entry("an instance in place of a template", failure.UnitInvalid, "overseer@1.service: want",
			map[string]string{"overseer@1.service": "[Service]\nExecStart=/a"}),
		Entry("two templates of one unit", failure.RepoInvalid, "make the same unit",
			map[string]string{"overseer@.service.eex": "[Service]\nExecStart=/a"}),
		Entry("a unit without ExecStart", failure.UnitInvalid, "service has no ExecStart",
			map[string]string{"overseer@.service.tmpl": "[Service]\nType=simple\n"}),
		Entry("a unit that cannot be parsed", failure.UnitInvalid, "line 2",
			map[string]string{"overseer@.service.tmpl": "[Service]\nrubbish\n"}),
		Entry("an unknown fleet key", failure.UnitInvalid, "unknown key",
			map[string]string{"overseer@.service.tmpl": "[Service]\nExecStart=/a\n[X-Fleet]\nMachinId=1\n"}),
		Entry("a global unit in another word", failure.UnitInvalid, "global",
			map[string]string{"overseer@.service.tmpl": "[Service]\nExecStart=/a\n[X-Fleet]\nGlobal=1\n"}),
		Entry("a global unit", failure.UnitInvalid, "global",
			map[string]string{"overseer@.service.tmpl": "[Service]\nExecStart=/a\n[X-Fleet]\nGlobal=true\n"}),
		Entry("a token of its own", failure.UnitInvalid, "belongs to the executor",
			map[string]string{"overseer@.service.tmpl": "[Service]\nExecStart=/a\n[X-OpenAperture]\nToken=99999\n"}),
		Entry("an unknown variable", failure.TemplateInvalid, "overseer@.service.tmpl:2:",
			map[string]string{"overseer@.service.tmpl": "[Service]\nExecStart=/a {{.secret}}\n"}),
		Entry("a function", failure.TemplateInvalid, "is not allowed",
			map[string]string{"overseer@.service.tmpl": "[Service]\nExecStart=/a {{printf \"%999999d\" 1}}\n"}),
		Entry("a pipeline", failure.TemplateInvalid, "is not allowed",
			map[string]string{"overseer@.service.tmpl": "[Service]\nExecStart=/a {{.source_ref | html}}\n"}),
		Entry("a loop", failure.TemplateInvalid, "is not allowed",
			map[string]string{"overseer@.service.tmpl": "[Service]\nExecStart=/a {{range .source_ref}}x{{end}}\n"}),
		Entry("a nested template", failure.TemplateInvalid, "must not define others",
			map[string]string{"overseer@.service.tmpl": "{{define \"x\"}}{{template \"x\"}}{{end}}[Service]\nExecStart=/a " +
				"{{template \"x\"}}\n"}),
		Entry("a template that does not parse", failure.TemplateInvalid, "overseer@.service.tmpl:2",
			map[string]string{"overseer@.service.tmpl": "[Service]\nExecStart=/a {{.source_ref\n"}),
		Entry("a variable as an option's name (S5)", failure.TemplateInvalid, "structure",
			map[string]string{"overseer@.service.tmpl": "[Service]\nExecStart=/a\n{{.source_ref}}=b\n"}),
		Entry("foreign Elixir", failure.TemplateInvalid, "overseer@.service.eex:3: <%= System.cmd(\"id\", []) %>",
			map[string]string{"overseer@.service.tmpl": "",
				"overseer@.service.eex": "[Service]\nExecStart=/a\nEnvironment=A=<%= System.cmd(\"id\", []) %>\n"}),
		Entry("Elixir without output", failure.TemplateInvalid, "<% x %>",
			map[string]string{"overseer@.service.tmpl": "", "overseer@.service.eex": "<% x %>"}),
		Entry("an open expression", failure.TemplateInvalid, "overseer@.service.eex:2: <% is never closed",
			map[string]string{"overseer@.service.tmpl": "", "overseer@.service.eex": "[Service]\nA=<%= commit_hash"}),
		Entry("a huge unit", failure.RepoInvalid, "more than 262144",
			map[string]string{"overseer@.service.tmpl": strings.Repeat("#", 300_000)}),
	)

	It("does not follow a symbolic link (S5)", func() {
		deployment := newRepo(goodFiles())
		Expect(os.Symlink("/etc/passwd", filepath.Join(deployment.dir, "evil@.service"))).To(Succeed())
		deployment.commit(nil)
		_, err := newGit().Render(context.Background(), request(deployment))
		Expect(reasonOf(err)).To(Equal(failure.RepoInvalid))
		Expect(err).To(MatchError(ContainSubstring("evil@.service is a symbolic link")))
	})

	It("does not follow a submodule, nor run a hook", func() {
		deployment := newRepo(goodFiles())
		deployment.git("update-index", "--add", "--cacheinfo", "160000,"+deployment.git("rev-parse", "HEAD")+",sub")
		deployment.git("commit", "-q", "-m", "submodule")
		_, err := newGit().Render(context.Background(), request(deployment))
		Expect(reasonOf(err)).To(Equal(failure.RepoInvalid))
		Expect(err).To(MatchError(ContainSubstring("sub is a submodule")))
	})

	DescribeTable("refuses a value that does not belong into a unit (G6, S5)",
		func(value string) {
			r := request(newRepo(goodFiles()))
			r.ComponentType = value
			_, err := newGit().Render(context.Background(), r)
			Expect(reasonOf(err)).To(Equal(failure.TemplateInvalid))
			Expect(err.Error()).NotTo(ContainSubstring(value), "hostile text is not repeated")
		},
		Entry("a line of its own", "overseer\nExecStart=/bin/sh"), Entry("a carriage return", "a\rb"),
		Entry("a specifier", "%i"), Entry("quotes", `a"b`),
		Entry("a variable", "${HOME}"), Entry("NUL", "a\x00b"), Entry("a continuation", `a\`), Entry("a space", "a b"),
		Entry("a template", "{{.x}}"),
		Entry("letters that look alike", "оverseer"),
	)

	It("refuses a value that is empty", func() {
		r := request(newRepo(goodFiles()))
		r.ComponentType = ""
		_, err := newGit().Render(context.Background(), r)
		Expect(reasonOf(err)).To(Equal(failure.TemplateInvalid))
	})
})
