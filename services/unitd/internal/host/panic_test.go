package host_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/services/unitd/internal/host"
	"github.com/openaperture/openaperture/services/unitd/internal/service"
)

// breaking is a backend in memory that panics in one call on one unit, the first times.
type breaking struct {
	lone
	call, unit string

	mu       sync.Mutex
	panics   int // how many are left
	runs     map[string]*breakingRun
	finished map[string]host.Found
	starts   map[string]int
}

func newBreaking(call, unit string, panics int) *breaking {
	return &breaking{call: call, unit: unit, panics: panics, runs: map[string]*breakingRun{},
		finished: map[string]host.Found{}, starts: map[string]int{}}
}

type breakingRun struct {
	b          *breaking
	name       string
	generation string
	once       sync.Once
	end        chan struct{}
}

func (b *breaking) trip(call, name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if call == b.call && name == b.unit && b.panics > 0 {
		b.panics--
		panic(call + " of " + name)
	}
}

func (b *breaking) left() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.panics
}

func (b *breaking) started(name string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.starts[name]
}

// Units are those that run.
func (b *breaking) Units() ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.runs)), nil
}

func (b *breaking) Watch(name string) (<-chan struct{}, func()) {
	b.trip("Watch", name)
	return nil, func() {}
}

func (b *breaking) Find(_ context.Context, name string) (host.Found, error) {
	b.trip("Find", name)
	b.mu.Lock()
	defer b.mu.Unlock()
	if run, ok := b.runs[name]; ok {
		return host.Found{Generation: run.generation, Running: run}, nil
	}
	return b.finished[name], nil
}

// Start panics after the order was taken.
func (b *breaking) Start(_ context.Context, name string, a host.Activation) (host.Running, error) {
	run := &breakingRun{b: b, name: name, generation: a.Generation, end: make(chan struct{})}
	b.mu.Lock()
	b.runs[name] = run
	b.starts[name]++
	b.mu.Unlock()
	b.trip("Start", name)
	return run, nil
}

func (b *breaking) End(_ context.Context, name string, _ bool) host.Ended {
	b.trip("End", name)
	b.mu.Lock()
	defer b.mu.Unlock()
	return host.Ended{Exit: *b.finished[name].Exit}
}

func (b *breaking) Forget(_ context.Context, name string) error {
	b.trip("Forget", name)
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.finished, name)
	return nil
}

func (r *breakingRun) Follow(ctx context.Context, report func(host.Status)) error {
	report(host.Status{Active: "active", Sub: "running"})
	r.b.trip("Follow", r.name)
	select {
	case <-r.end:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *breakingRun) Stop() {
	r.b.trip("Stop", r.name)
	r.once.Do(func() {
		r.b.mu.Lock()
		delete(r.b.runs, r.name)
		r.b.finished[r.name] = host.Found{Generation: r.generation,
			Exit: &service.Exit{At: time.Now(), Result: service.ResultSuccess, Detail: "success", Requested: true}}
		r.b.mu.Unlock()
		close(r.end)
	})
}

var _ = Describe("A panic in the work on one unit", func() {
	var panics atomic.Int32
	start := func(dir string, backend host.Backend, with func(host.Config) host.Config) (*host.Host, func()) {
		GinkgoHelper()
		panics.Store(0)
		ctx := loop.WithPanics(context.Background(), func(*loop.Panic) { panics.Add(1) })
		return openWith(ctx, with(host.WithPanicPause(host.Config{
			StateDir: dir, Backend: backend, Hostname: "h1", Log: zap.NewNop(),
			Contain: func(part, item string, do func() error) error { return loop.Contain(ctx, part, item, do) },
		}, 5*time.Millisecond)))
	}
	plain := func(cfg host.Config) host.Config { return cfg }
	becomes := func(h *host.Host, name, active string) {
		GinkgoHelper()
		Eventually(func() string {
			state, _, _ := h.State(name)
			return state.Active
		}).WithTimeout(10*time.Second).Should(Equal(active), name)
	}
	const good, bad = "good.service", "bad.service"

	DescribeTable("is counted, ends nothing else, and the unit is as desired in the end",
		func(call string) {
			b := newBreaking(call, bad, 3)
			h, _ := start(GinkgoT().TempDir(), b, plain)
			Expect(put(h, good, host.Launched, nil)).To(Succeed())
			Expect(put(h, bad, host.Launched, nil)).To(Succeed())
			for _, name := range []string{good, bad} {
				becomes(h, name, "active")
				Expect(put(h, name, host.Loaded, nil)).To(Succeed())
				becomes(h, name, "inactive")
				Expect(b.started(name)).To(Equal(1), name)
				Expect(h.Delete(name, nil)).To(Succeed())
			}
			Eventually(h.Known).WithTimeout(10 * time.Second).Should(BeZero())
			Expect(panics.Load()).To(BeEquivalentTo(3 - b.left()))
			Expect(panics.Load()).To(BeNumerically(">", 0))
		},
		Entry("Watch", "Watch"), Entry("Find", "Find"), Entry("Start", "Start"), Entry("Follow", "Follow"),
		Entry("Stop", "Stop"), Entry("End", "End"), Entry("Forget", "Forget"),
	)

	It("while its definition is read leaves what runs of it alone, also at the start of unitd", func() {
		dir, b := GinkgoT().TempDir(), newBreaking("", "", 0)
		before, end := start(dir, b, plain)
		Expect(put(before, good, host.Launched, nil)).To(Succeed())
		Expect(put(before, bad, host.Launched, nil)).To(Succeed())
		Expect(put(before, "bad-down.service", host.Loaded, nil)).To(Succeed())
		becomes(before, bad, "active")
		becomes(before, good, "active")
		end()

		after, _ := start(dir, b, func(cfg host.Config) host.Config {
			return host.WithParser(cfg, func(name unit.Name, host string, options []unit.Option) (service.Service, error) {
				if strings.HasPrefix(name.String(), "bad") {
					panic("a value of a newer unitd")
				}
				return service.Parse(name, host, options)
			})
		})
		Expect(put(after, "good-too.service", host.Launched, nil)).To(Succeed())
		Expect(after.Put(context.Background(), "bad-down.service", host.Change{DesiredState: host.Launched})).To(BeFalse())
		for _, name := range []string{good, "good-too.service", bad} {
			becomes(after, name, "active")
			Expect(b.started(name)).To(Equal(1), name)
		}
		becomes(after, "bad-down.service", "inactive")
		Expect(b.started("bad-down.service")).To(BeZero())
		Expect(after.Put(context.Background(), bad, host.Change{DesiredState: host.Loaded})).To(BeFalse())
		becomes(after, bad, "inactive")
		Expect(panics.Load()).To(BeEquivalentTo(3)) // of bad.service once, of the other again as it was launched
	})

	It("ends stop-all for this unit alone, with an error", func() {
		dir, b := GinkgoT().TempDir(), newBreaking("Stop", bad, 1)
		h, end := start(dir, b, plain)
		Expect(put(h, good, host.Launched, nil)).To(Succeed())
		Expect(put(h, bad, host.Launched, nil)).To(Succeed())
		becomes(h, good, "active")
		becomes(h, bad, "active")
		end()
		again, err := host.Open(host.Config{StateDir: dir, Backend: b, Hostname: "h1", Log: zap.NewNop()})
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(again.Close)
		Expect(again.StopAll(context.Background(), false)).To(MatchError("stop bad.service: panicked: Stop of bad.service"))
		Expect(b.runs).To(And(HaveKey(bad), Not(HaveKey(good))))
		Expect(again.StopAll(context.Background(), false)).To(Succeed())
		Expect(b.runs).To(BeEmpty())
	})
})
