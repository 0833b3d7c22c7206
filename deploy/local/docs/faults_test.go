package docs_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/faultpage"
)

var _ = Describe("docs/faults.md", func() {
	It("says which specs cover which fault: go run ./deploy/local faults-page writes it", func() {
		page, err := faultpage.Page("../../..")
		Expect(err).NotTo(HaveOccurred())
		Expect(read("docs/faults.md")).To(Equal(page))
		Expect(page).To(ContainSubstring("| A1 | "))
		Expect(page).To(ContainSubstring("does not apply: "))
	})
})
