package suites_test

import (
	"io"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/suites"
)

func lines(events ...string) io.Reader { return strings.NewReader(strings.Join(events, "\n") + "\n") }

var _ = Describe("Totals", func() {
	DescribeTable("counts what go test tells",
		func(events []string, want string, ok bool) {
			var shown strings.Builder
			totals, err := suites.Read(lines(events...), &shown)
			Expect(err).NotTo(HaveOccurred())
			Expect(totals.String()).To(Equal(want))
			Expect(totals.OK()).To(Equal(ok))
		},
		Entry("a Ginkgo suite counts by its specs, not as a test", []string{
			`{"Action":"output","Package":"p","Test":"TestP",` +
				`"Output":"\u001b[38;5;10m\u001b[1mSUCCESS!\u001b[0m -- ` +
				`\u001b[1m12 Passed\u001b[0m | \u001b[1m0 Failed\u001b[0m | 0 Pending | 0 Skipped\n"}`,
			`{"Action":"pass","Package":"p","Test":"TestP"}`, `{"Action":"pass","Package":"p"}`},
			"12 passed, 0 failed, 0 skipped", true),
		Entry("plain tests count, their subtests do not", []string{
			`{"Action":"pass","Package":"p","Test":"TestA/x"}`, `{"Action":"pass","Package":"p","Test":"TestA"}`,
			`{"Action":"pass","Package":"p"}`}, "1 passed, 0 failed, 0 skipped", true),
		Entry("pending specs count as skipped, and are not ok", []string{
			`{"Action":"output","Package":"p","Test":"TestP",` +
				`"Output":"SUCCESS! -- 3 Passed | 0 Failed | 1 Pending | 2 Skipped\n"}`,
			`{"Action":"pass","Package":"p","Test":"TestP"}`}, "3 passed, 0 failed, 3 skipped", false),
		Entry("a failed spec is counted once", []string{
			`{"Action":"output","Package":"p","Test":"TestP",` +
				`"Output":"FAIL! -- 3 Passed | 1 Failed | 0 Pending | 0 Skipped\n"}`,
			`{"Action":"fail","Package":"p","Test":"TestP"}`, `{"Action":"fail","Package":"p"}`},
			"3 passed, 1 failed, 0 skipped", false),
		Entry("a suite that passes but fails, as with a focused spec, is a failure", []string{
			`{"Action":"output","Package":"p","Test":"TestP",` +
				`"Output":"SUCCESS! -- 3 Passed | 0 Failed | 0 Pending | 0 Skipped\n"}`,
			`{"Action":"fail","Package":"p","Test":"TestP"}`, `{"Action":"fail","Package":"p"}`},
			"3 passed, 1 failed, 0 skipped", false),
		Entry("a package that does not compile is a failure", []string{
			`{"Action":"pass","Package":"q","Test":"TestQ"}`,
			`{"ImportPath":"p [p.test]","Action":"build-output","Output":"x.go:1: undefined\n"}`,
			`{"ImportPath":"p [p.test]","Action":"build-fail"}`,
			`{"Action":"fail","Package":"p"}`}, "1 passed, 1 failed, 0 skipped", false),
		Entry("a package that dies without a failed test is a failure", []string{
			`{"Action":"output","Package":"p","Output":"panic: x\n"}`, `{"Action":"fail","Package":"p"}`},
			"0 passed, 1 failed, 0 skipped", false),
		Entry("nothing at all is not ok", []string{`{"Action":"skip","Package":"p"}`}, "0 passed, 0 failed, 0 skipped",
			false),
	)

	It("shows what a failed package said, and only that", func() {
		var shown strings.Builder
		_, err := suites.Read(lines(`{"Action":"output","Package":"good","Output":"chatter\n"}`,
			`{"Action":"pass","Package":"good"}`,
			`{"Action":"output","Package":"bad","Test":"TestB","Output":"the reason\n"}`,
			`{"Action":"fail","Package":"bad","Test":"TestB"}`,
			`{"Action":"fail","Package":"bad"}`), &shown)
		Expect(err).NotTo(HaveOccurred())
		Expect(shown.String()).To(ContainSubstring("the reason"))
		Expect(shown.String()).NotTo(ContainSubstring("chatter"))
	})
})
