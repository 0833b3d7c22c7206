package shim_test

import (
	"fmt"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/services/unitd/internal/shim"
)

var _ = Describe("A log that its unit writes itself", func() {
	It("is read to its end while it is emptied", func() {
		dir := GinkgoT().TempDir()
		log, err := shim.SharedLog(dir)
		Expect(err).NotTo(HaveOccurred())
		much := []byte(strings.Repeat("much\n", 1<<20)) // more than a full file
		for round := range 12 {
			_, _ = log.Write(much)
			_, _ = fmt.Fprintln(log, "round", round)
			emptied := make(chan struct{})
			var readers sync.WaitGroup
			for range 4 {
				readers.Go(func() {
					defer GinkgoRecover()
					for done := false; !done; {
						select {
						case <-emptied:
							done = true
						default:
						}
						text, err := shim.Tail(dir, 1<<20, 256<<10)
						Expect(err).NotTo(HaveOccurred())
						Expect(strings.HasSuffix(text, fmt.Sprintf("much\nround %d\n", round))).To(BeTrue())
						Expect(len(text)).To(BeNumerically(">", 255<<10))
					}
				})
			}
			log.MoveOut()
			close(emptied)
			readers.Wait()
		}
	})
})
