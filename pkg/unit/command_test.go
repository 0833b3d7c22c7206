package unit_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/unit"
)

var _ = Describe("A command line", func() {
	DescribeTable("is split into words as systemd does",
		func(line string, want ...string) {
			words, err := unit.SplitWords(line)
			Expect(err).NotTo(HaveOccurred())
			Expect(words).To(HaveExactElements(want))
		},
		Entry("white space", " /bin/a \t b  c ", "/bin/a", "b", "c"),
		Entry("double quotes", `a "b c" d`, "a", "b c", "d"),
		Entry("single quotes with double ones inside", `a 'b "c"'`, "a", `b "c"`),
		Entry("quotes within a word", `FOO="a b"c`, "FOO=a bc"),
		Entry("an empty word", `a "" b`, "a", "", "b"),
		Entry("escapes", `a\sb "\t\x41\101\u00e9" \"q\\`, "a b", "\tAAé", `"q\`),
		Entry("an unknown escape keeps its backslash", `grep '\.txt$'`, "grep", `\.txt$`),
		Entry("nothing", "  "),
	)

	DescribeTable("has prefixes",
		func(line string, want unit.Command) {
			command, err := unit.ParseCommand(line)
			Expect(err).NotTo(HaveOccurred())
			Expect(command).To(Equal(want))
		},
		Entry("none", "/a b", unit.Command{Words: []string{"/a", "b"}}),
		Entry("- ignores failure", "-/a", unit.Command{Words: []string{"/a"}, IgnoreFailure: true}),
		Entry(": keeps variables", ":/a $B", unit.Command{Words: []string{"/a", "$B"}, Literal: true}),
		Entry("+ is privileged", "+/a", unit.Command{Words: []string{"/a"}, Privileged: true}),
		Entry("! as well", "!/a", unit.Command{Words: []string{"/a"}, Privileged: true}),
		Entry("!! is not", "!!/a", unit.Command{Words: []string{"/a"}}),
		Entry("several", "-:+/a", unit.Command{Words: []string{"/a"}, IgnoreFailure: true, Literal: true, Privileged: true}),
	)

	DescribeTable("is refused",
		func(line, message string) {
			_, err := unit.ParseCommand(line)
			Expect(err).To(MatchError(message))
		},
		Entry("empty", " ", "command is empty"),
		Entry("only a prefix", "-", "command has no program"),
		Entry("another argv[0]", "@/a b", "the prefix @ (another argv[0]) is not supported"),
		Entry("two commands", "/a ; /b", "several commands in one line are not supported, repeat the option"),
		Entry("an open quote", `/a 'b`, `unbalanced quote '\''`),
	)

	name, _ := unit.ParseName("manager@1.service")
	specifiers := unit.Specifiers{Name: name, Host: "h1"}
	env := map[string]string{"A": "one two", "EMPTY": "", "P": "8080", "SPEC": "%i"}

	DescribeTable("is expanded",
		func(line string, want ...string) {
			command, err := unit.ParseCommand(line)
			Expect(err).NotTo(HaveOccurred())
			Expect(command.Argv(specifiers, env)).To(HaveExactElements(want))
		},
		Entry("specifiers", "/x/%p/%i %n %H 100%%", "/x/manager/1", "manager@1.service", "h1", "100%"),
		Entry("${VAR} is one argument", "/x ${A} :${P}/", "/x", "one two", ":8080/"),
		Entry("$VAR alone is split", "/x $A $EMPTY end", "/x", "one", "two", "end"),
		Entry("$VAR within a word stays", "/x a$A", "/x", "a$A"),
		Entry("an unknown variable is empty", "/x [${NOPE}] $NOPE", "/x", "[]"),
		Entry("$$ is a dollar", "/x $$A $${A} 5$", "/x", "$A", "${A}", "5$"),
		Entry("a literal command keeps them", ":/x $A ${A}", "/x", "$A", "${A}"),
		Entry("values are not expanded again", "/x ${SPEC}", "/x", "%i"),
		Entry("an unclosed brace stays", "/x ${A", "/x", "${A"),
	)

	DescribeTable("is refused at expansion",
		func(line, message string) {
			command, err := unit.ParseCommand(line)
			Expect(err).NotTo(HaveOccurred())
			_, err = command.Argv(specifiers, env)
			Expect(err).To(MatchError(message))
		},
		Entry("an unknown specifier", "/x %z", "unknown specifier %z"),
		Entry("an incomplete one", "/x 5%", `"5%" ends in an incomplete specifier`),
		Entry("nothing left", "$EMPTY", "nothing is left of the command after expansion"),
	)
})
