package host_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/services/unitd/internal/host"
	"github.com/openaperture/openaperture/services/unitd/internal/service"
)

// lone is a backend whose units run until they are told to end. The first Follow of each fails.
type lone struct {
	starts, follows, ends atomic.Int32
	end                   chan struct{} // closed: every unit has ended
}

func (*lone) Name() string                                           { return "lone" }
func (*lone) Honours() bool                                          { return true }
func (*lone) Units() ([]string, error)                               { return nil, nil }
func (*lone) Check(context.Context, string, []unit.Option) error     { return nil }
func (*lone) Find(context.Context, string) (host.Found, error)       { return host.Found{}, nil }
func (*lone) Forget(context.Context, string) error                   { return nil }
func (*lone) Logs(context.Context, string, int, int) (string, error) { return "", nil }
func (*lone) Watch(string) (<-chan struct{}, func())                 { return nil, func() {} }
func (b *lone) Stop()                                                { close(b.end) }

func (b *lone) Start(context.Context, string, host.Activation) (host.Running, error) {
	b.starts.Add(1)
	return b, nil
}

func (b *lone) End(context.Context, string, bool) host.Ended {
	b.ends.Add(1)
	return host.Ended{Exit: service.Exit{At: time.Now(), Result: service.ResultSuccess, Detail: "success",
		Requested: true}}
}

func (b *lone) Follow(ctx context.Context, report func(host.Status)) error {
	if b.follows.Add(1) == 1 {
		return errors.New("too many open files")
	}
	report(host.Status{Active: "active", Sub: "running"})
	select {
	case <-b.end:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unanswered is a backend whose first Start is not answered. found says what is left then, given
// the ordered generation.
type unanswered struct {
	lone
	ordered atomic.Value
	found   func(b *unanswered, generation string) host.Found
}

func (b *unanswered) Start(ctx context.Context, name string, a host.Activation) (host.Running, error) {
	b.ordered.Store(a.Generation)
	running, err := b.lone.Start(ctx, name, a)
	if b.starts.Load() == 1 {
		err = fmt.Errorf("start unit: %w", host.ErrUnreached)
	}
	return running, err
}

func (b *unanswered) Find(context.Context, string) (host.Found, error) {
	if generation, ok := b.ordered.Load().(string); ok {
		return b.found(b, generation), nil
	}
	return host.Found{}, nil
}

// ending does not end when it is to.
type ending struct{ host.Running }

func (ending) Stop() {}

// littering is a backend that cannot remove what a unit leaves, the first times that it is to.
type littering struct {
	lone
	failing int32
	forgets atomic.Int32
}

func (b *littering) Forget(context.Context, string) error {
	if b.forgets.Add(1) <= b.failing {
		return errors.New("no connection")
	}
	return nil
}

// open runs a host over a state directory until the spec ends.
func open(dir string, backend host.Backend) *host.Host {
	GinkgoHelper()
	h, _ := openWith(context.Background(), host.Config{StateDir: dir, Backend: backend, Hostname: "h1", Log: zap.NewNop()})
	return h
}

// openWith is open with a context and a configuration, and returns what ends the host before the spec does.
func openWith(ctx context.Context, cfg host.Config) (*host.Host, func()) {
	GinkgoHelper()
	h, err := host.Open(cfg)
	Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(ctx)
	joined := make(chan struct{})
	go func() { defer close(joined); _ = h.Run(ctx) }()
	end := sync.OnceFunc(func() {
		cancel()
		Eventually(joined).WithTimeout(10 * time.Second).Should(BeClosed())
		Expect(h.Close()).To(Succeed())
	})
	DeferCleanup(end)
	return h, end
}

// put puts a unit that runs /bin/true.
func put(h *host.Host, name string, desired host.DesiredState, token *int64) error {
	_, err := h.Put(context.Background(), name, host.Change{
		Options: []unit.Option{{Section: "Service", Name: "ExecStart", Value: "/bin/true"}}, DesiredState: desired,
		Token: token,
	})
	return err
}

var _ = Describe("A supervisor", func() {
	It("does not bury a unit that cannot be followed at the moment", func() {
		b := &lone{end: make(chan struct{})}
		h := open(GinkgoT().TempDir(), b)
		Expect(put(h, "x.service", host.Launched, nil)).To(Succeed())
		shown := func() string {
			state, _, _ := h.State("x.service")
			return state.Active
		}
		Eventually(shown).WithTimeout(10 * time.Second).Should(Equal("active"))
		Expect([]int32{b.starts.Load(), b.follows.Load(), b.ends.Load()}).To(Equal([]int32{1, 2, 0}))
		Expect(put(h, "x.service", host.Loaded, nil)).To(Succeed())
		Eventually(shown).WithTimeout(10 * time.Second).Should(Equal("inactive"))
		Expect(b.ends.Load()).To(BeEquivalentTo(1))
	})

	DescribeTable("that gets no answer to its order looks what has become of it",
		func(found func(*unanswered, string) host.Found, active string, starts int32) {
			b := &unanswered{lone: lone{end: make(chan struct{})}, found: found}
			b.follows.Store(1) // the next one doesn't fail
			h := open(GinkgoT().TempDir(), b)
			Expect(put(h, "x.service", host.Launched, nil)).To(Succeed())
			Eventually(func() string {
				state, _, _ := h.State("x.service")
				return state.Active
			}).WithTimeout(10 * time.Second).Should(Equal(active))
			Expect(b.starts.Load()).To(Equal(starts))
		},
		Entry("nothing: it is given again", func(*unanswered, string) host.Found { return host.Found{} }, "active", int32(2)),
		Entry("an earlier definition ended: it is given again", func(*unanswered, string) host.Found {
			return host.Found{Generation: "earlier", Exit: &service.Exit{At: time.Now(), Result: service.ResultExitCode,
				Final: true}}
		}, "active", int32(2)),
		Entry("it runs", func(b *unanswered, generation string) host.Found {
			return host.Found{Generation: generation, Running: b}
		}, "active", int32(1)),
		Entry("it has failed", func(_ *unanswered, generation string) host.Found {
			return host.Found{Generation: generation, Exit: &service.Exit{At: time.Now(), Result: service.ResultExitCode,
				Final: true}}
		}, "failed", int32(1)),
		Entry("something else runs: it is stopped", func(b *unanswered, _ string) host.Found {
			return host.Found{Running: ending{b}}
		}, "deactivating", int32(1)),
	)
})

var _ = Describe("A deleted unit", func() {
	It("without a token leaves nothing in memory", func() {
		h := open(GinkgoT().TempDir(), &lone{end: make(chan struct{})})
		Expect(put(h, "x.service", host.Loaded, nil)).To(Succeed())
		Eventually(func() bool { _, _, listed := h.State("x.service"); return listed }).Should(BeTrue())
		Expect(h.Delete("x.service", nil)).To(Succeed())
		Eventually(h.Known).Should(BeZero())
	})

	It("leaves nothing, however often its remains cannot be removed", func() {
		b := &littering{failing: 2}
		h := open(GinkgoT().TempDir(), b)
		Expect(put(h, "x.service", host.Loaded, nil)).To(Succeed())
		Expect(h.Delete("x.service", nil)).To(Succeed())
		Eventually(h.Known).WithTimeout(10 * time.Second).Should(BeZero())
		Expect(b.forgets.Load()).To(BeEquivalentTo(3))
	})

	It("whose remains cannot be removed is run when it is put again", func() {
		b := &littering{lone: lone{end: make(chan struct{})}, failing: math.MaxInt32}
		h := open(GinkgoT().TempDir(), b)
		Expect(put(h, "x.service", host.Loaded, nil)).To(Succeed())
		Expect(h.Delete("x.service", nil)).To(Succeed())
		Eventually(b.forgets.Load).Should(BeNumerically(">", 0))
		Expect(put(h, "x.service", host.Launched, nil)).To(Succeed())
		Eventually(b.starts.Load).WithTimeout(10 * time.Second).Should(BeEquivalentTo(1))
	})

	It("holds its token for thirty days", func() {
		dir, token, lower := GinkgoT().TempDir(), int64(9), int64(8)
		files := func(age time.Duration) { // of every unit, as old as that
			GinkgoHelper()
			all, err := filepath.Glob(filepath.Join(dir, "units", "*.json"))
			Expect(err).NotTo(HaveOccurred())
			Expect(all).To(HaveLen(2))
			for _, file := range all {
				Expect(os.Chtimes(file, time.Time{}, time.Now().Add(-age))).To(Succeed())
			}
		}
		again := func(use func(*host.Host)) {
			GinkgoHelper()
			h, err := host.Open(host.Config{StateDir: dir, Backend: &lone{}, Hostname: "h1", Log: zap.NewNop()})
			Expect(err).NotTo(HaveOccurred())
			use(h)
			Expect(h.Close()).To(Succeed())
		}
		again(func(h *host.Host) {
			Expect(put(h, "kept.service", host.Loaded, &token)).To(Succeed())
			Expect(put(h, "gone.service", host.Loaded, &token)).To(Succeed())
			Expect(h.Delete("gone.service", &token)).To(Succeed())
		})
		files(29 * 24 * time.Hour)
		again(func(h *host.Host) {
			Expect(put(h, "gone.service", host.Loaded, &lower)).To(BeAssignableToTypeOf(host.Superseded{}))
		})
		files(31 * 24 * time.Hour)
		again(func(h *host.Host) {
			Expect(put(h, "gone.service", host.Loaded, &lower)).To(Succeed())
			Expect(put(h, "kept.service", host.Loaded, &lower)).To(BeAssignableToTypeOf(host.Superseded{}))
		})
	})
})
