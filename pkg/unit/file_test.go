package unit_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/unit"
)

func opt(section, name, value string) unit.Option {
	return unit.Option{Section: section, Name: name, Value: value}
}

var _ = Describe("A unit file", func() {
	DescribeTable("is parsed into ordered options",
		func(text string, want ...unit.Option) {
			options, err := unit.Parse(text)
			Expect(err).NotTo(HaveOccurred())
			Expect(options).To(Equal(want))
		},
		Entry("repeats stay in order", "[Service]\nExecStartPre=/a\nExecStartPre=/b\nExecStart=/c\n",
			opt("Service", "ExecStartPre", "/a"), opt("Service", "ExecStartPre", "/b"), opt("Service", "ExecStart", "/c")),
		Entry("the first = separates", "[Service]\nEnvironment=A=b=c\n", opt("Service", "Environment", "A=b=c")),
		Entry("white space around name and value goes", "[Unit]\n  Description =  two words \t\n",
			opt("Unit", "Description", "two words")),
		Entry("an empty value is kept: it resets a list", "[Service]\nExecStartPre=\n", opt("Service", "ExecStartPre", "")),
		Entry("a backslash joins lines by a space", "[Service]\nExecStart=/a \\\n  --b \\\n  c\n",
			opt("Service", "ExecStart", "/a --b c")),
		Entry("comments are no options", "# x\n[Unit]\n; y\nDescription=a # stays\n",
			opt("Unit", "Description", "a # stays")),
		Entry("comments within a continued line vanish", "[Service]\nExecStart=/a \\\n# no\n; no\n  b\n",
			opt("Service", "ExecStart", "/a b")),
		Entry("an empty line ends a continuation", "[Service]\nExecStart=/a \\\n\nUser=x\n",
			opt("Service", "ExecStart", "/a"), opt("Service", "User", "x")),
		Entry("CRLF and a byte order mark are tolerated", "\ufeff[Unit]\r\nDescription=a\r\n",
			opt("Unit", "Description", "a")),
		Entry("a file may end in a backslash", "[Service]\nExecStart=/a \\", opt("Service", "ExecStart", "/a")),
		Entry("a section may come twice", "[A]\nx=1\n[B]\ny=2\n[A]\nz=3", opt("A", "x", "1"), opt("B", "y", "2"),
			opt("A", "z", "3")),
	)

	DescribeTable("is refused with the line that is at fault",
		func(text, message string) {
			_, err := unit.Parse(text)
			Expect(err).To(MatchError(message))
		},
		Entry("an option before any section", "a=1\n", `line 1: option "a" stands before the first section`),
		Entry("no =", "[A]\n\nfoo\n", `line 3: "foo" is no Name=Value`),
		Entry("no name", "[A]\n=foo\n", `line 2: "=foo" is no Name=Value`),
		Entry("an open header", "[A\n", `line 1: malformed section header "[A"`),
		Entry("an empty header", "[ ]\n", `line 1: malformed section header "[ ]"`),
	)

	It("survives rendering and parsing", func() {
		options := []unit.Option{opt("Unit", "Description", "x"), opt("Service", "ExecStart", `/bin/sh -c "a\\b = #c"`),
			opt("Service", "Environment", "A=1")}
		parsed, err := unit.Parse(unit.Render(options))
		Expect(err).NotTo(HaveOccurred())
		Expect(parsed).To(Equal(options))
	})

	It("is rendered in sections, as Fleet does", func() {
		Expect(unit.Render([]unit.Option{opt("A", "x", "1"), opt("B", "y", "2"), opt("A", "z", "3")})).
			To(Equal("[A]\nx=1\nz=3\n\n[B]\ny=2\n"))
		Expect(unit.Render(nil)).To(BeEmpty())
	})
})

var _ = Describe("The identity of a definition", func() {
	hello := []unit.Option{opt("Unit", "Description", "hello"), opt("Service", "ExecStart", "/bin/sleep 3600")}

	DescribeTable("is the hash that a real fleet showed",
		func(want string, options ...unit.Option) { Expect(unit.Hash(options)).To(Equal(want)) },
		Entry("two sections", "47f0084368692956938df2280fe087a88a685237", hello[0], hello[1]),
		Entry("one option", "1fa41b061074d257bdf3919173a792fc879013f5", opt("Service", "ExecStart", "/bin/false")),
		Entry("a global unit", "0ba4a1c40fca8cd8a69aa87485dcd123b9faf7ce",
			opt("Service", "ExecStart", "/bin/sleep 3600"), opt("X-Fleet", "Global", "true")),
	)

	It("does not contain the token", func() {
		five, seven := unit.WithToken(hello, 5), unit.WithToken(unit.WithToken(hello, 5), 7)
		Expect(unit.Equal(five, seven)).To(BeTrue())
		Expect(unit.Hash(seven)).To(Equal(unit.Hash(hello)))
		Expect(unit.Token(seven)).To(Equal(int64(7)))
		Expect(seven).To(HaveLen(3))
		Expect(hello).To(HaveLen(2))
	})

	It("contains everything else", func() {
		Expect(unit.Equal(hello, hello[:1])).To(BeFalse())
		Expect(unit.Equal(hello, append(hello[:2:2], opt("X-OpenAperture", "Other", "1")))).To(BeFalse())
		swapped := []unit.Option{opt("S", "a", "1"), opt("S", "a", "2")}
		Expect(unit.Equal(swapped, []unit.Option{swapped[1], swapped[0]})).To(BeFalse())
	})

	It("has token 0 without a token, or with one that is no number", func() {
		Expect(unit.Token(hello)).To(BeZero())
		Expect(unit.Token([]unit.Option{opt("X-OpenAperture", "Token", "x")})).To(BeZero())
	})
})

var _ = Describe("Reading options", func() {
	options := []unit.Option{
		opt("Service", "Environment", "A=1"), opt("Service", "Environment", ""), opt("Service", "Environment", "B=2"),
		opt("Service", "Environment", "C=3"), opt("X-Fleet", "Global", "True"),
	}

	It("resets a list at an empty value", func() {
		Expect(unit.Values(options, "Service", "Environment")).To(Equal([]string{"B=2", "C=3"}))
	})

	It("takes the last of a single value", func() {
		Expect(unit.Value(options, "Service", "Environment")).To(Equal("C=3"))
		Expect(unit.Value(options, "Service", "User")).To(BeEmpty())
		Expect(unit.IsGlobal(options)).To(BeTrue())
	})
})

var _ = Describe("A global unit", func() {
	DescribeTable("is one by Fleet's words", func(value string, want bool) {
		Expect(unit.IsGlobal([]unit.Option{opt("X-Fleet", "Global", value)})).To(Equal(want))
	},
		Entry(nil, "true", true), Entry(nil, "YES", true), Entry(nil, "1", true), Entry(nil, "on", true),
		Entry(nil, "T", true),
		Entry(nil, "false", false), Entry(nil, "y", false), Entry(nil, "2", false), Entry(nil, "", false))
})
