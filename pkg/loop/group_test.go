package loop_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openaperture/openaperture/pkg/loop"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
)

func until(name string) loop.Part {
	return loop.Part{Name: name, Run: func(ctx context.Context) error { <-ctx.Done(); return nil }}
}

func returning(name string, err error) loop.Part {
	return loop.Part{Name: name, Run: func(context.Context) error { return err }}
}

func atTheEnd(name string, err error) loop.Part {
	return loop.Part{Name: name, Run: func(ctx context.Context) error { <-ctx.Done(); return err }}
}

var _ = Describe("Group", func() {
	run := func(ctx context.Context, g loop.Group) error {
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		var err error
		Eventually(done).Should(Receive(&err))
		return err
	}

	DescribeTable("cancels the rest at the first return and names the part",
		func(want string, parts ...loop.Part) {
			Expect(run(context.Background(), loop.Group{Parts: parts})).To(MatchError(want))
		},
		Entry("an error", "relay: broken", until("api"), returning("relay", errors.New("broken")), until("sweep")),
		Entry("a part that ended by itself", "api: ended by itself", returning("api", nil), until("relay")),
		Entry("the only part", "api: broken", returning("api", errors.New("broken"))),
		Entry("a panic (fault 9)", "relay: panicked: boom\napi: flush",
			loop.Part{Name: "relay", Run: func(context.Context) error { panic("boom") }}, atTheEnd("api", errors.New("flush"))),
		Entry("an error while the others stop", "api: broken\nrelay: flush", returning("api", errors.New("broken")),
			atTheEnd("relay", errors.New("flush"))),
	)

	DescribeTable("stops cleanly with its context",
		func(match types.GomegaMatcher, parts ...loop.Part) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			err := run(ctx, loop.Group{Parts: parts})
			if match == nil {
				Expect(err).ToNot(HaveOccurred())
				return
			}
			Expect(err).To(match)
		},
		Entry("without parts", nil),
		Entry("all parts return nil", nil, until("api"), until("relay")),
		Entry("parts that repeat the cancellation", nil, atTheEnd("api", fmt.Errorf("serve: %w", context.Canceled))),
		Entry("an error while stopping is told", MatchError("api: flush"), atTheEnd("api", errors.New("flush")),
			until("relay")),
	)

	It("does not wait for ever, and says for whom it waited", func() {
		free := make(chan struct{})
		DeferCleanup(func() { close(free) })
		stuck := loop.Part{Name: "stuck", Run: func(context.Context) error { <-free; return nil }}
		err := run(context.Background(), loop.Group{Shutdown: 20 * time.Millisecond,
			Parts: []loop.Part{stuck, until("api"), returning("relay", errors.New("broken"))}})
		Expect(err).To(MatchError(loop.ErrStuck))
		Expect(err).To(MatchError("relay: broken\nstuck: did not stop within 20ms"))
	})
})
