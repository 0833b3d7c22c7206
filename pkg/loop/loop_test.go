package loop_test

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/openaperture/openaperture/pkg/loop"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// harness owns one running loop; nothing in it is shared between specs.
type harness struct {
	ran    chan struct{}
	wake   chan struct{}
	tick   chan time.Time
	fail   chan error
	asked  chan time.Duration // how long the loop wanted to wait
	panics chan *loop.Panic
	heard  chan error
	joined chan error
	stop   context.CancelFunc
}

func start(change func(*loop.Loop)) *harness {
	h := &harness{ran: make(chan struct{}, 8), wake: make(chan struct{}, 1), tick: make(chan time.Time),
		fail: make(chan error, 1), asked: make(chan time.Duration, 8), panics: make(chan *loop.Panic, 8),
		heard: make(chan error, 8), joined: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	ctx = loop.WithPanics(ctx, func(p *loop.Panic) { h.panics <- p })
	h.stop = cancel
	l := loop.Loop{Interval: time.Hour, Wake: h.wake,
		OnError: func(err error) { h.heard <- err },
		After: func(d time.Duration) <-chan time.Time {
			select {
			case h.asked <- d:
			default: // a spec that does not ask
			}
			return h.tick
		},
		Do: func(context.Context) error {
			h.ran <- struct{}{}
			select {
			case err := <-h.fail:
				return err
			default:
				return nil
			}
		}}
	if change != nil {
		change(&l)
	}
	done := make(chan struct{})
	go func() { defer close(done); h.joined <- l.Run(ctx) }()
	DeferCleanup(func() { cancel(); Eventually(done).Should(BeClosed()) })
	return h
}

// told is what was heard so far.
func (h *harness) told() (texts []string) {
	for {
		select {
		case err := <-h.heard:
			texts = append(texts, err.Error())
		default:
			return texts
		}
	}
}

var _ = Describe("Loop", func() {
	It("runs at once, then on tick and on wake", func() {
		h := start(nil)
		Eventually(h.ran).Should(Receive())
		h.tick <- time.Time{}
		Eventually(h.ran).Should(Receive())
		h.wake <- struct{}{}
		Eventually(h.ran).Should(Receive())
		Consistently(h.ran).ShouldNot(Receive())
	})

	It("reports an error and goes on", func() {
		h := start(nil)
		Eventually(h.ran).Should(Receive())
		h.fail <- errors.New("no luck")
		h.tick <- time.Time{}
		Eventually(h.heard).Should(Receive(MatchError("no luck")))
		h.tick <- time.Time{}
		Eventually(h.ran).Should(Receive())
	})

	It("reports the same error once, until Do succeeds or fails in another way", func() {
		h := start(nil)
		Eventually(h.ran).Should(Receive())
		for _, text := range []string{"a", "a", "b", "b", "", "b"} {
			if text != "" {
				h.fail <- errors.New(text)
			}
			h.tick <- time.Time{}
			Eventually(h.ran).Should(Receive())
		}
		h.tick <- time.Time{} // the last one has been told
		Expect(h.told()).To(Equal([]string{"a", "b", "b"}))
	})

	It("goes on after a panic, rests longer and longer, and tells it once (fault 9)", func() {
		h := start(func(l *loop.Loop) {
			l.Name, l.Interval = "pass", 0
			l.Do = func(context.Context) error {
				var list []int
				return errors.New(strconv.Itoa(list[len(list)]))
			}
		})
		for _, least := range []time.Duration{750 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second} {
			Eventually(h.asked).Should(Receive(And(BeNumerically(">=", least), BeNumerically("<", 2*least))))
			Expect(h.panics).To(Receive(HaveField("Part", "pass")))
			h.wake <- struct{}{} // waits: what rings often must not make a panic spin
			Consistently(h.panics, "50ms").ShouldNot(Receive())
			h.tick <- time.Time{}
			<-h.wake
		}
		h.stop()
		Eventually(h.joined).Should(Receive(BeNil()))
		Expect(h.told()).To(ConsistOf(ContainSubstring("index out of range")))
	})

	It("does not rest after an item that panicked and was contained (fault 9)", func() {
		h := start(nil)
		Eventually(h.ran).Should(Receive())
		h.fail <- loop.Contain(context.Background(), "pass", "item 7", func() error { panic("bad item") })
		h.tick <- time.Time{}
		Eventually(h.heard).Should(Receive(MatchError("panicked: bad item")))
		h.wake <- struct{}{}
		Eventually(h.ran).Should(Receive())
	})

	It("ends with the first error when nobody listens to errors", func() {
		h := start(func(l *loop.Loop) {
			l.OnError = nil
			l.Do = func(context.Context) error { return errors.New("no luck") }
		})
		Eventually(h.joined).Should(Receive(MatchError("no luck")))
	})

	It("ends without an error, and does not report the cancellation", func() {
		h := start(func(l *loop.Loop) { l.Do = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() } })
		h.stop()
		Eventually(h.joined).Should(Receive(BeNil()))
		Expect(h.heard).ToNot(Receive())
	})

	It("runs on wakes alone when it has no interval", func() {
		h := start(func(l *loop.Loop) { l.Interval = 0 })
		Eventually(h.ran).Should(Receive())
		h.wake <- struct{}{}
		Eventually(h.ran).Should(Receive())
	})

	It("does not spin when the wake channel is closed", func() {
		h := start(nil)
		Eventually(h.ran).Should(Receive())
		close(h.wake)
		Eventually(h.ran).Should(Receive())
		Consistently(h.ran).ShouldNot(Receive())
	})

	It("keeps real time without an After", func() {
		h := start(func(l *loop.Loop) { l.After = nil; l.Interval = time.Millisecond })
		for range 3 {
			Eventually(h.ran).Should(Receive())
		}
	})
})

var _ = Describe("Waker", func() {
	It("counts unheard rings as one and never blocks", func() {
		w := loop.NewWaker()
		w.Wake()
		w.Wake()
		w.Wake()
		Expect(w.C()).To(Receive())
		Expect(w.C()).ToNot(Receive())
		w.Wake()
		Expect(w.C()).To(Receive())
	})
})
