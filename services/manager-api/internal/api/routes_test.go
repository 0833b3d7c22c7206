package api_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/services/manager-api/internal/api"
)

var _ = Describe("The table of routes in docs/rest.md", func() {
	It("has every route with its roles and its file, and no other", func() {
		page, err := os.ReadFile("../../../../docs/rest.md")
		Expect(err).NotTo(HaveOccurred())
		listed := regexp.MustCompile("(?m)^\\| `[A-Z]+ /.*$").FindAllString(string(page), -1)
		server, err := api.New(api.Config{})
		Expect(err).NotTo(HaveOccurred())
		rows := make([]string, 0, len(server.Routes()))
		for _, rt := range server.Routes() {
			rows = append(rows, fmt.Sprintf("| `%s` | %s | `%s` |", rt.Pattern, rolesOf(rt.Access), fileOf(rt.Pattern)))
		}
		Expect(without(rows, listed)).To(BeEmpty(), "add these rows to the table")
		Expect(without(listed, rows)).To(BeEmpty(), "remove these rows from the table")
	})
})

// without are the lines that are not among others.
func without(lines, others []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return slices.Contains(others, line) })
}

// rolesOf are the roles that a route is open to, as the table writes them.
func rolesOf(a api.Access) string {
	if a&api.Public != 0 {
		return "without a token"
	}
	var roles []string
	for _, role := range api.RoleList {
		if a.Allows(role) {
			roles = append(roles, string(role))
		}
	}
	return strings.Join(roles, ", ")
}

// fileOf is the source file of this package that names a route.
func fileOf(pattern string) string {
	GinkgoHelper()
	files, err := filepath.Glob("*.go")
	Expect(err).NotTo(HaveOccurred())
	var naming []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		Expect(err).NotTo(HaveOccurred())
		if strings.Contains(string(text), `"`+pattern+`"`) {
			naming = append(naming, file)
		}
	}
	Expect(naming).To(HaveLen(1), "%s stands in one file", pattern)
	return naming[0]
}
