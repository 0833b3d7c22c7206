package demo_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/demo"
)

var _ = Describe("A story", func() {
	It("may take as long as promised", func() {
		Expect(demo.Told(demo.Promised).InTime()).To(Succeed())
	})

	It("has failed when it took longer, and says how long", func() {
		Expect(demo.Told(241500 * time.Millisecond).InTime()).To(MatchError(ContainSubstring("241.5 s, more than 240")))
	})
})
