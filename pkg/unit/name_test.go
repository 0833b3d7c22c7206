package unit_test

import (
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/unit"
)

var _ = Describe("A unit name", func() {
	DescribeTable("is taken apart and put together again",
		func(text string, want unit.Name, module string) {
			name, err := unit.ParseName(text)
			Expect(err).NotTo(HaveOccurred())
			Expect(name).To(Equal(want))
			Expect(name.String()).To(Equal(text))
			Expect(name.Module()).To(Equal(module))
		},
		Entry("plain", "hello.service", unit.Name{Base: "hello", Type: "service"}, "hello"),
		Entry("an instance", "manager@1.service", unit.Name{Base: "manager", Instance: "1", Type: "service", Templated: true},
			"manager-1"),
		Entry("a template", "manager@.service", unit.Name{Base: "manager", Type: "service", Templated: true}, "manager-"),
		Entry("an instance with dots", "a@x.y.service", unit.Name{Base: "a", Instance: "x.y", Type: "service",
			Templated: true}, "a-x.y"),
		Entry("another type", "a.timer", unit.Name{Base: "a", Type: "timer"}, "a"),
	)

	DescribeTable("is refused in Fleet's words",
		func(text, message string) {
			_, err := unit.ParseName(text)
			Expect(err).To(MatchError(message))
		},
		Entry("nothing", "", "unit name cannot be empty"),
		Entry("no dot", "fresh", `unit name must contain "."`),
		Entry("a foreign suffix", "fresh.bogus", `invalid unit type: "bogus"`),
		Entry("a space", "fre sh.service", `invalid character ' ' in unit name`),
		Entry("a slash", "../x.service", `invalid character '/' in unit name`),
		Entry("only a suffix", ".service", `unit name ".service" has nothing before its suffix`),
		Entry("too long", strings.Repeat("a", 249)+".service", "unit name exceeds maximum length (256)"),
	)

	It("is compared whole", func() {
		a, _ := unit.ParseName("manager@1.service")
		b, _ := unit.ParseName("fleet_manager@1.service")
		template, _ := unit.ParseName("manager@.service")
		Expect(a).NotTo(Equal(b))
		Expect(template.IsTemplate()).To(BeTrue())
		Expect(a.IsTemplate()).To(BeFalse())
		Expect(template.WithInstance("1")).To(Equal(a))
	})
})

var _ = Describe("Validate", func() {
	start := opt("Service", "ExecStart", "/bin/sleep 3600")

	DescribeTable("accepts",
		func(options ...unit.Option) { Expect(unit.Validate(options)).To(Succeed()) },
		Entry("the smallest service", start),
		Entry("the old keys of X-Fleet", start, opt("X-Fleet", "X-Conflicts", "t@*.service"),
			opt("X-Fleet", "X-ConditionMachineMetadata", "role=app")),
		Entry("the keys of X-Fleet", start, opt("X-Fleet", "Conflicts", "t@*.service"),
			opt("X-Fleet", "MachineMetadata", "role=app")),
		Entry("several commands of a oneshot", opt("Service", "Type", "oneshot"), start, start),
		Entry("a command that replaces another", start, opt("Service", "ExecStart", ""), start),
		Entry("a token and foreign sections", start, opt("X-OpenAperture", "Token", "7"), opt("X-Other", "a", "b")),
	)

	DescribeTable("refuses",
		func(message string, options ...unit.Option) {
			Expect(unit.Validate(options)).To(MatchError(message))
		},
		Entry("nothing to run", "service has no ExecStart", opt("Unit", "Description", "x")),
		Entry("nothing at all", "service has no ExecStart"),
		Entry("a command that was taken back", "service has no ExecStart", start, opt("Service", "ExecStart", "")),
		Entry("two commands", "service has more than one ExecStart, which only Type=oneshot may have", start, start),
		Entry("a line break in a value", "option 1: the value of ExecStart contains a line break or NUL",
			opt("Service", "ExecStart", "/a\nUser=root")),
		Entry("NUL in a value", "option 1: the value of ExecStart contains a line break or NUL",
			opt("Service", "ExecStart", "/a\x00")),
		Entry("a value that swallows the next line",
			"option 1: the value of ExecStart ends in a backslash, which would swallow the next line",
			opt("Service", "ExecStart", `/a \`)),
		Entry("an empty section", `option 2: "x" has an empty section`, start, opt("", "x", "y")),
		Entry("an empty name", `option 2: an option of section "Unit" has an empty name`, start, opt("Unit", "", "y")),
		Entry("a section that opens another", `option 1: section "A]\n[B" contains a forbidden character`,
			opt("A]\n[B", "x", "y")),
		Entry("a name that is a comment", `option 1: name "#x" contains a forbidden character`, opt("A", "#x", "y")),
		Entry("a name with =", `option 1: name "x=y" contains a forbidden character`, opt("A", "x=y", "z")),
		Entry("an unknown key of X-Fleet", `option 2: unknown key "Bogus" in section X-Fleet`, start,
			opt("X-Fleet", "Bogus", "1")),
		Entry("an unbalanced quote", `ExecStop: unbalanced quote '"'`, start, opt("Service", "ExecStop", `/bin/sh -c "a`)),
		Entry("Global with MachineID", "MachineID cannot be used with Global", start, opt("X-Fleet", "Global", "true"),
			opt("X-Fleet", "MachineID", "abc")),
		Entry("Global in another word with MachineID", "MachineID cannot be used with Global", start,
			opt("X-Fleet", "Global", "Yes"), opt("X-Fleet", "MachineID", "abc")),
		Entry("an old key with one of today", "MachineID cannot be used with Peers", start,
			opt("X-Fleet", "X-ConditionMachineOf", "a.service"), opt("X-Fleet", "MachineID", "abc")),
		Entry("Global with MachineOf", "Global cannot be used with Peers", start, opt("X-Fleet", "Global", "true"),
			opt("X-Fleet", "MachineOf", "a.service")),
		Entry("MachineID with MachineOf", "MachineID cannot be used with Peers", start,
			opt("X-Fleet", "MachineOf", "a.service"), opt("X-Fleet", "MachineID", "abc")),
		Entry("a peer that is a conflict", `unresolvable requirements: peer "a@1.service" matches conflict "a@*.service"`,
			start, opt("X-Fleet", "MachineOf", "a@1.service"), opt("X-Fleet", "Conflicts", "a@*.service")),
	)
})
