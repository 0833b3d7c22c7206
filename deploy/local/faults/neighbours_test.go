//go:build e2e

package faults_test

import (
	"context"
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/proc"
	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// neighbours have names that hello's could be taken for, by their beginning or end.
var neighbours = []string{"other_hello@1.service", "hello_other@1.service", "hellos@1.service", "hell@1.service"}

var _ = Describe("Units of another component with a similar name", Label("faults"), func() {
	// look is what unitd and /proc know of the neighbours.
	look := func(ctx context.Context, program string) (map[string]string, map[int]string) {
		GinkgoHelper()
		told := map[string]string{}
		for _, name := range neighbours {
			text, err := suite.Unit(ctx, name)
			Expect(err).NotTo(HaveOccurred())
			told[name] = text
		}
		under, err := proc.Under(suite.Dir)
		Expect(err).NotTo(HaveOccurred())
		running := map[int]string{}
		for pid, exe := range under {
			if exe == program {
				running[pid] = exe
			}
		}
		return told, running
	}

	It("are left alone", func(ctx SpecContext) {
		program := filepath.Join(suite.Dir, "bin", "neighbour")
		text, err := os.ReadFile("/bin/sleep")
		Expect(err).NotTo(HaveOccurred())
		Expect(os.WriteFile(program, text, 0o755)).To(Succeed())
		for _, name := range neighbours {
			Expect(suite.Put(ctx, name, []messages.Option{{Section: "Service", Name: "ExecStart", Value: program + " 3600"}})).
				To(Succeed())
			DeferCleanup(func(ctx SpecContext) { Expect(suite.Remove(ctx, name)).To(Succeed()) }, NodeTimeout(30*time.Second))
		}
		Eventually(inactive).WithContext(ctx).WithTimeout(20 * time.Second).Should(Succeed())
		toldBefore, ranBefore := look(ctx, program)
		Expect(ranBefore).To(HaveLen(len(neighbours)))
		ref := newHello(ctx)
		ended(ctx, request(ctx, stack.Hello, ref).ID, upgrade.Completed)
		toldAfter, ranAfter := look(ctx, program)
		Expect(toldAfter).To(Equal(toldBefore))
		Expect(ranAfter).To(Equal(ranBefore))
	}, SpecTimeout(2*time.Minute))
})
