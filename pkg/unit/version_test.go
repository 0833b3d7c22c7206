package unit_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/unit"
)

var _ = Describe("The version of a definition", func() {
	v := func(ref, commit string) unit.Version { return unit.Version{Ref: ref, Commit: commit} }
	hello := []unit.Option{opt("Unit", "Description", "hello"), opt("Service", "ExecStart", "/bin/hello")}

	carried := func(options []unit.Option) unit.Version {
		version, ok := unit.VersionOf(options)
		Expect(ok).To(BeTrue())
		return version
	}

	DescribeTable("is written and read", func(version unit.Version, known bool) {
		got, ok := unit.VersionOf(unit.WithVersion(hello, version))
		Expect(got).To(Equal(version))
		Expect(ok).To(Equal(known))
	},
		Entry("ref and commit", v("v1", "c1"), true),
		Entry("a ref whose commit nobody knows", v("v1", ""), true),
		Entry("a commit alone", v("", "c1"), true),
		Entry("none", v("", ""), false),
	)

	It("replaces the one before, and goes whole", func() {
		stamped := unit.WithVersion(unit.WithVersion(hello, v("v1", "c1")), v("v2", ""))
		Expect(carried(stamped)).To(Equal(v("v2", "")))
		Expect(unit.WithoutVersion(stamped)).To(Equal(hello))
		Expect(hello).To(HaveLen(2))
	})

	It("is a part of the definition, as the token is none", func() {
		one := unit.WithVersion(hello, v("v1", "c1"))
		Expect(unit.Equal(one, unit.WithVersion(hello, v("v2", "c1")))).To(BeFalse())
		Expect(unit.Equal(one, hello)).To(BeFalse())
		Expect(unit.Equal(unit.WithToken(one, 5), unit.WithToken(one, 6))).To(BeTrue())
		Expect(unit.Hash(one)).NotTo(Equal(unit.Hash(unit.WithVersion(hello, v("v1", "c2")))))
		Expect(unit.Hash(unit.WithToken(one, 5))).To(Equal(unit.Hash(one)))
		Expect(carried(unit.WithoutToken(unit.WithToken(one, 5)))).To(Equal(v("v1", "c1")))
	})

	DescribeTable("is the same as another", func(a, b unit.Version, want bool) {
		Expect([]bool{a.Same(b), b.Same(a)}).To(Equal([]bool{want, want}))
	},
		Entry("ref and commit", v("v1", "c1"), v("v1", "c1"), true),
		Entry("not with another ref at the same commit", v("v1", "c1"), v("v2", "c1"), false),
		Entry("not at another commit of the same ref", v("main", "c1"), v("main", "c2"), false),
		Entry("a commit that is not known on one side is no difference", v("v1", "c1"), v("v1", ""), true),
		Entry("a commit that nobody knows neither", v("v1", ""), v("v1", ""), true),
		Entry("but another ref is", v("v1", ""), v("v2", ""), false),
	)
})

var _ = Describe("The host name under which a unit reports itself", func() {
	DescribeTable("is told by its definition", func(want, unitName, host string, environment ...string) {
		name, err := unit.ParseName(unitName)
		Expect(err).NotTo(HaveOccurred())
		var options []unit.Option
		for _, line := range environment {
			options = append(options, opt("Service", "Environment", line))
		}
		Expect(unit.Hostname(name, host, options)).To(Equal(want))
	},
		Entry("host, base and instance", "box.manager-1", "manager@1.service", "box", "HOSTNAME=%H.%p-%i"),
		Entry("the whole name", "manager.service", "manager.service", "", "HOSTNAME=%n"),
		Entry("among others, quoted", "box.x", "x.service", "box", `A=1 "HOSTNAME=%H.x" B=2`),
		Entry("the last one", "second", "x.service", "box", "HOSTNAME=first", "A=1", "HOSTNAME=second"),
		Entry("not where a reset takes it away", "", "x.service", "box", "HOSTNAME=first", ""),
		Entry("not where there is none", "", "x.service", "box", "OTHER_HOSTNAME=x"),
		Entry("without the machine's name, if that is not needed", "fixed-2", "x@2.service", "", "HOSTNAME=fixed-%i"),
		Entry("not without the machine's name, if that is needed", "", "x@2.service", "", "HOSTNAME=%H.x-%i"),
		Entry("with a percent sign before an H", "a%H", "x.service", "", "HOSTNAME=a%%H"),
		Entry("not with a specifier that nobody knows", "", "x.service", "box", "HOSTNAME=%m"),
		Entry("not with a quote that does not end", "", "x.service", "box", `HOSTNAME="x`),
	)
})
