package render_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/deploy/failure"
	"github.com/openaperture/openaperture/pkg/deploy/render"
)

// repo is a real repository with a working copy.
type repo struct{ dir string }

func newRepo(files map[string]string) repo {
	r := repo{dir: GinkgoT().TempDir()}
	r.git("init", "-q", "-b", "master")
	if files != nil {
		r.commit(files)
	}
	return r
}

func (r repo) git(args ...string) string {
	cmd := exec.Command("git", args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b",
		"GIT_COMMITTER_NAME=c",
		"GIT_COMMITTER_EMAIL=c@d", "GIT_COMMITTER_DATE=2026-11-23T04:05:06+0100", "GIT_AUTHOR_DATE=2020-01-01T00:00:00Z")
	out, err := cmd.CombinedOutput()
	ExpectWithOffset(1, err).NotTo(HaveOccurred(), string(out))
	return strings.TrimSpace(string(out))
}

// commit writes files and commits everything; it returns the commit's id.
func (r repo) commit(files map[string]string) string {
	for name, text := range files {
		path := filepath.Join(r.dir, name)
		Expect(os.MkdirAll(filepath.Dir(path), 0o755)).To(Succeed())
		Expect(os.WriteFile(path, []byte(text), 0o644)).To(Succeed())
	}
	r.git("add", "-A")
	r.git("commit", "-q", "--allow-empty", "-m", "change")
	return r.git("rev-parse", "HEAD")
}

const overseerUnit = `[Unit]
Description=OpenAperture {{.component_type}} {{.source_ref}} of {{.exchange_id}}

[Service]
Type=notify
Environment=HOSTNAME={{.hostname}}.overseer-{{.instance}}
ExecStart=/opt/openaperture/{{.source_ref}}/overseer --port {{.dst_port}}
# built {{.timestamp}}
Environment=COMMIT={{.commit_hash}}
Environment="BUILT={{.timestamp}}"
`

func goodFiles() map[string]string {
	return map[string]string{
		"etcd.json":              `{"token": "cluster-1"}`,
		"fleet.json":             `{"instance_cnt": 3}`,
		"docker.json":            `{"docker_url": "x"}`,
		"overseer@.service.tmpl": overseerUnit,
	}
}

// with returns the good files with changes; an empty text removes the file.
func with(changes map[string]string) map[string]string {
	files := goodFiles()
	for name, text := range changes {
		files[name] = text
		if text == "" {
			delete(files, name)
		}
	}
	return files
}

func newGit(change ...func(*render.GitConfig)) *render.Git {
	c := render.GitConfig{CacheDir: GinkgoT().TempDir(), AllowLocal: true}
	for _, f := range change {
		f(&c)
	}
	g, err := render.NewGit(c)
	Expect(err).NotTo(HaveOccurred())
	return g
}

func reasonOf(err error) failure.Reason {
	f, ok := failure.Of(err)
	ExpectWithOffset(1, ok).To(BeTrue(), "no reason in %v", err)
	return f.Reason
}
