package servers_test

import (
	"net"
	"strconv"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/servers"
)

var _ = Describe("Ports", func() {
	It("are different, free, and below the ephemeral range", func(ctx SpecContext) {
		ports, err := servers.FreePorts(ctx, 20)
		Expect(err).NotTo(HaveOccurred())
		seen := map[int]bool{}
		for _, p := range ports {
			Expect(p).To(And(BeNumerically(">=", 20000), BeNumerically("<", 32768)))
			seen[p] = true
			l, err := net.Listen("tcp4", "127.0.0.1:"+strconv.Itoa(p))
			Expect(err).NotTo(HaveOccurred())
			Expect(l.Close()).To(Succeed())
		}
		Expect(seen).To(HaveLen(20))
	}, NodeTimeout(time.Minute))

	It("come in blocks into which an instance's number fits as the last digit", func(ctx SpecContext) {
		blocks, err := servers.FreeBlocks(ctx, 5, 10)
		Expect(err).NotTo(HaveOccurred())
		for _, first := range blocks {
			Expect(first % 10).To(BeZero())
		}
	}, NodeTimeout(time.Minute))
})
