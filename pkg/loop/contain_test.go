package loop_test

import (
	"context"
	"errors"
	"strings"

	"github.com/openaperture/openaperture/pkg/loop"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("Contain", func() {
	broken := errors.New("broken")

	DescribeTable("ends an item with an error, and goes on (fault 9)",
		func(do func() error, want string) {
			err := loop.Contain(context.Background(), "judge", "upgrade 12", do)
			if want == "" {
				Expect(err).NotTo(HaveOccurred())
				return
			}
			Expect(err).To(MatchError(want))
		},
		Entry("no error", func() error { return nil }, ""),
		Entry("an error", func() error { return broken }, "broken"),
		Entry("a text", func() error { panic("boom") }, "panicked: boom"),
		Entry("an error that was panicked with", func() error { panic(broken) }, "panicked: broken"),
		Entry("a nil pointer", func() error { var p *loop.Panic; _ = p.Stack[0]; return nil },
			"panicked: runtime error: invalid memory address or nil pointer dereference"),
		Entry("more text than a log should hold", func() error { panic(strings.Repeat("x", 1<<20)) },
			"panicked: "+strings.Repeat("x", 300)+" ..."),
	)

	It("is not taken for the error that it was panicked with: that one may mean \"try again\"", func() {
		err := loop.Contain(context.Background(), "judge", "", func() error { panic(context.Canceled) })
		Expect(err).NotTo(MatchError(context.Canceled))
	})

	It("tells a panic once, with its part, its item and the stack of the place", func() {
		var heard []*loop.Panic
		ctx := loop.WithPanics(context.Background(), func(p *loop.Panic) { heard = append(heard, p) })
		err := loop.Contain(ctx, "pass", "", func() error {
			return loop.Contain(ctx, "judge", "upgrade 12", panicking)
		})
		Expect(err).To(HaveOccurred())
		Expect(heard).To(HaveLen(1))
		Expect(heard[0].Part).To(Equal("judge"))
		Expect(heard[0].Item).To(Equal("upgrade 12"))
		Expect(heard[0].Stack).To(ContainSubstring("loop_test.panicking"))
	})

	It("names a loop after the part of the group that runs it", func() {
		heard := make(chan *loop.Panic, 1)
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		ctx = loop.WithPanics(ctx, func(p *loop.Panic) { heard <- p; stop() })
		relay := loop.Loop{Do: func(context.Context) error { return panicking() }, OnError: func(error) {}}
		Expect(loop.Group{Parts: []loop.Part{{Name: "relay", Run: relay.Run}}}.Run(ctx)).To(Succeed())
		Expect(heard).To(Receive(HaveField("Part", "relay")))
	})
})

func panicking() error { panic("boom") }
