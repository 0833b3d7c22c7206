package docs_test

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/times"
	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

const root = "../../.."

func read(path string) string {
	GinkgoHelper()
	text, err := os.ReadFile(filepath.Join(root, path))
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// pages are README.md and everything under docs/.
func pages() []string {
	GinkgoHelper()
	found, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	Expect(err).NotTo(HaveOccurred())
	names := []string{"README.md"}
	for _, f := range found {
		names = append(names, filepath.Join("docs", filepath.Base(f)))
	}
	return names
}

// quoted are the `words` of a page.
func quoted(text string) []string {
	var words []string
	for _, m := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(text, -1) {
		words = append(words, m[1])
	}
	return words
}

// packages are the directories with Go code that is no test, and those with migrations.
func packages() []string {
	GinkgoHelper()
	var dirs []string
	for _, source := range sources() {
		if !strings.HasSuffix(source, "_test.go") {
			dirs = append(dirs, filepath.Dir(source))
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// sources are the files of Go and SQL.
func sources() []string {
	GinkgoHelper()
	var found []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && rel != "." || d.Name() == "testdata" || rel == "bin") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".sql") {
			found = append(found, rel)
		}
		return nil
	})
	Expect(err).NotTo(HaveOccurred())
	return found
}

var _ = Describe("The documentation", func() {
	It("names only files and directories that exist", func() {
		pathLike := regexp.MustCompile(`^(\.ci|deploy|docs|pkg|proto-messages|services)/[A-Za-z0-9._/@-]*$`)
		for _, page := range pages() {
			for _, word := range quoted(read(page)) {
				if pathLike.MatchString(word) {
					_, err := os.Stat(filepath.Join(root, word))
					Expect(err).NotTo(HaveOccurred(), "%s names %s", page, word)
				}
			}
		}
	})

	It("links only to pages and headings that exist", func() {
		link := regexp.MustCompile(`\]\(([^)\s#]*)(?:#([^)\s]*))?\)`)
		for _, page := range pages() {
			for _, m := range link.FindAllStringSubmatch(withoutCode(read(page)), -1) {
				if strings.Contains(m[1], "://") {
					continue
				}
				target := page
				if m[1] != "" {
					target = filepath.Join(filepath.Dir(page), m[1])
				}
				_, err := os.Stat(filepath.Join(root, target))
				Expect(err).NotTo(HaveOccurred(), "%s links to %s", page, m[0])
				if m[2] != "" {
					Expect(anchors(read(target))).To(ContainElement(m[2]), "%s links to %s", page, m[0])
				}
			}
		}
	})

	It("has every page and heading to which a comment in the code leads", func() {
		link := regexp.MustCompile(`\bdocs/[a-z-]+\.md(?:#([\p{L}\p{N}_-]+))?`)
		Expect(sources()).NotTo(BeEmpty())
		for _, source := range sources() {
			for _, m := range link.FindAllStringSubmatch(read(source), -1) {
				page, heading, _ := strings.Cut(m[0], "#")
				Expect(pages()).To(ContainElement(page), "%s leads to %s", source, m[0])
				if heading != "" {
					Expect(anchors(read(page))).To(ContainElement(heading), "%s leads to %s", source, m[0])
				}
			}
		}
	})

	It("lists every package and every folder of migrations in docs/architecture.md", func() {
		listed := quoted(read("docs/architecture.md"))
		missing := slices.DeleteFunc(packages(), func(dir string) bool { return slices.Contains(listed, dir) })
		Expect(missing).To(BeEmpty())
	})

	It("lists every message type and every queue in docs/architecture.md", func() {
		listed := quoted(read("docs/architecture.md"))
		source := read("proto-messages/messages.go") + read("proto-messages/topology.go")
		names := regexp.MustCompile(`(?m)^\t(?:Type|Queue)[A-Za-z]+\s+(?:Queue\s+)?= "([a-z_]+)"`).
			FindAllStringSubmatch(source, -1)
		Expect(len(names)).To(BeNumerically(">=", 10))
		for _, m := range names {
			Expect(listed).To(ContainElement(m[1]), "docs/architecture.md")
		}
	})

	It("explains every metric in docs/operations.md, and no other", func() {
		metric := regexp.MustCompile("[\"`](openaperture_[a-z_]+)[\"`]")
		names := func(text string) map[string]bool {
			found := map[string]bool{}
			for _, m := range metric.FindAllStringSubmatch(text, -1) {
				found[m[1]] = true
			}
			return found
		}
		var code strings.Builder
		for _, dir := range packages() {
			files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
			Expect(err).NotTo(HaveOccurred())
			for _, f := range files {
				if !strings.HasSuffix(f, "_test.go") {
					code.WriteString(read(strings.TrimPrefix(f, root+"/")))
				}
			}
		}
		Expect(names(read("docs/operations.md"))).To(Equal(names(code.String())))
	})

	It("explains every code of a failure in docs/operations.md", func() {
		var rows []string
		for _, m := range regexp.MustCompile("(?m)^\\| (`[a-z_`, ]+`) \\|").FindAllStringSubmatch(
			section(read("docs/operations.md"), "When an upgrade fails"), -1) {
			rows = append(rows, quoted(m[1])...)
		}
		code := regexp.MustCompile(`(?m)^\t\w+\s+Reason\s+= "([a-z_]+)"`)
		codes := code.FindAllStringSubmatch(read("pkg/blame/blame.go")+read("pkg/deploy/failure/failure.go"), -1)
		Expect(len(codes)).To(BeNumerically(">=", 20))
		for _, m := range codes {
			Expect(rows).To(ContainElement(m[1]))
		}
	})

	It("draws every state and every event of an upgrade in docs/state-machines.md", func() {
		text := read("docs/state-machines.md")
		for _, s := range upgrade.States {
			Expect(text).To(ContainSubstring(string(s)))
		}
		for _, e := range upgrade.Events {
			Expect(text).To(ContainSubstring(string(e)))
		}
	})

	It("draws every move of the table, and no other", func() {
		Expect(moves(section(read("docs/state-machines.md"), "An upgrade"))).To(Equal(realMoves()))
	})

	It("lists every time in docs/operations.md with its values in both profiles, and no other", func() {
		row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (\\w+) \\| (\\w+) \\| .+ \\|$")
		listed := map[string][]any{}
		for _, m := range row.FindAllStringSubmatch(section(read("docs/operations.md"), "Times"), -1) {
			listed[m[1]] = []any{timeOf(m[2]), timeOf(m[3])}
		}
		Expect(listed).To(Equal(realTimes()))
	})

	It("shows only make targets that exist", func() {
		for _, page := range pages() {
			for _, m := range regexp.MustCompile(`\bmake ([a-z0-9][a-z0-9-]*)\b`).
				FindAllStringSubmatch(strings.Join(codeOf(read(page)), "\n"), -1) {
				Expect(read("Makefile")).To(MatchRegexp(`(?m)^%s: ## `, regexp.QuoteMeta(m[1])), "%s shows make %s", page, m[1])
			}
		}
	})

	It("turns a unit template into what an executor makes of it, in docs/self-upgrade.md", func(ctx SpecContext) {
		page, dir := read("docs/self-upgrade.md"), GinkgoT().TempDir()
		text := marked(page, "unit")
		Expect(os.WriteFile(filepath.Join(dir, "deployer@.service.tmpl"), []byte(text+"Environment=\"A=b\\\\c\"\n"), 0o600)).
			To(Succeed())
		out, err := exec.CommandContext(ctx, "sh", "-euc", marked(page, "functions")+"TAG=v7; options "+dir+" deployer").
			Output()
		Expect(err).NotTo(HaveOccurred())
		var options []unit.Option
		Expect(json.Unmarshal([]byte("["+string(out)+"]"), &options)).To(Succeed())
		want, err := unit.Parse(strings.ReplaceAll(text, "{{.source_ref}}", "v7") + "Environment=\"A=b\\\\c\"\n")
		Expect(err).NotTo(HaveOccurred())
		Expect(options).To(Equal(want))
		Expect(unit.Validate(options)).To(Succeed())
	}, NodeTimeout(time.Minute))

	It("shows commands that work as written", func(ctx SpecContext) {
		blocks := regexp.MustCompile("(?s)<!-- spec -->\n```sh\n(.*?)```").FindAllStringSubmatch(read("README.md"), -1)
		Expect(blocks).NotTo(BeEmpty())
		for _, b := range blocks {
			Expect(run(ctx, b[1])).To(Succeed(), b[1])
		}
	}, NodeTimeout(5*time.Minute))
})

// marked is the code block of a page under <!-- spec: name -->.
func marked(page, name string) string {
	GinkgoHelper()
	m := regexp.MustCompile("(?s)<!-- spec: " + name + " -->\n```[a-z]*\n(.*?)```").FindStringSubmatch(page)
	Expect(m).NotTo(BeNil(), name)
	return m[1]
}

// withoutCode is a page without its code blocks.
func withoutCode(page string) string {
	return regexp.MustCompile("(?ms)^ *```.*?^ *```").ReplaceAllString(page, "")
}

// anchors are the names by which links reach the headings of a page, as GitHub makes them.
func anchors(page string) []string {
	other := regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(withoutCode(page), -1) {
		names = append(names, strings.ReplaceAll(other.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return names
}

// section is what stands under a heading of the second rank.
func section(page, heading string) string {
	_, text, _ := strings.Cut(page, "\n## "+heading+"\n")
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// timeOf is a value as the page writes it: a duration, or a number.
func timeOf(text string) any {
	if d, err := time.ParseDuration(text); err == nil {
		return d
	}
	n, _ := strconv.Atoi(text)
	return n
}

// realTimes are the values of every key in the two profiles, in the order of the page's columns.
func realTimes() map[string][]any {
	GinkgoHelper()
	found := map[string][]any{}
	for _, profile := range []times.Profile{times.Default, times.Fast} {
		t, err := times.Named(profile)
		Expect(err).NotTo(HaveOccurred())
		for field, value := range reflect.ValueOf(t).Fields() {
			key := field.Tag.Get("mapstructure")
			found[key] = append(found[key], value.Interface())
		}
	}
	return found
}

// codeOf is what stands in code blocks and between backquotes.
func codeOf(text string) []string {
	code := quoted(text)
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(text, -1) {
		code = append(code, m[1])
	}
	return code
}

// run executes a block of the README in the workspace.
func run(ctx context.Context, script string) error {
	cmd := exec.CommandContext(ctx, "sh", "-euc", script)
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, GinkgoWriter, GinkgoWriter
	return cmd.Run()
}

// moves reads the lines "| from | event | to |" of the table.
func moves(text string) map[string][]string {
	found := map[string][]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| `([a-z_]+)` \\| (.+?) \\|").FindAllStringSubmatch(text,
		-1) {
		to := quoted(m[3])
		slices.Sort(to)
		found[m[1]+" "+m[2]] = slices.Compact(to)
	}
	return found
}

// realMoves tries every event in every state, with everything that decides where it leads.
func realMoves() map[string][]string {
	found := map[string][]string{}
	for _, state := range upgrade.States {
		for _, kind := range upgrade.Events {
			for _, u := range variants(state) {
				for _, touched := range []bool{false, true} {
					moved, _, err := u.Apply(upgrade.Event{Kind: kind, Cause: upgrade.CauseVersion, Touched: touched})
					if err == nil {
						key := string(state) + " " + string(kind)
						found[key] = append(found[key], string(moved.State))
					}
				}
			}
		}
	}
	for key := range found {
		slices.Sort(found[key])
		found[key] = slices.Compact(found[key])
	}
	return found
}

func variants(state upgrade.State) []upgrade.Upgrade {
	var all []upgrade.Upgrade
	for _, t := range []component.Type{component.Overseer, component.Deployer, "hello"} {
		for _, phase := range []int{1, 2} {
			if phase > len(upgrade.PhasesOf(t)) {
				continue
			}
			for _, proven := range []bool{false, true} {
				u := upgrade.Upgrade{Type: t, State: state, Phase: phase, Proven: proven, Proof: component.DefaultProof(t),
					Step: upgrade.StepDeploy}
				all = append(all, u)
				u.Step = upgrade.StepVerify
				all = append(all, u)
			}
		}
	}
	return all
}
