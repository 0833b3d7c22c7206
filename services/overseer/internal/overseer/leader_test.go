package overseer_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/services/overseer/internal/overseer"
)

// leases is one lease row in memory, with the rules of the real one.
type leases struct {
	mu      sync.Mutex
	holder  string
	term    int64
	expires time.Time
	away    bool // does not answer
	covered []bool

	announced []string                             // capabilities
	lose      func(r managerapi.LeaseRequest) bool // the renewal does not arrive
	log       []string
}

func (l *leases) Lead(_ context.Context, _ component.ExchangeID,
	r managerapi.LeaseRequest) (managerapi.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	free := l.holder == "" || time.Now().After(l.expires)
	switch {
	case l.away:
		return managerapi.Lease{}, fault.New(fault.Unavailable, "no answer")
	case r.Term != 0 && l.lose != nil && l.lose(r):
		return managerapi.Lease{}, fault.New(fault.Unavailable, "lost")
	case r.Term == 0 && !free:
		return managerapi.Lease{}, fault.New(fault.Conflict, "%s leads", l.holder)
	case r.Term == 0:
		l.term++
		l.holder = r.Holder
		l.log = append(l.log, "lead "+r.Holder)
	case free || r.Term != l.term:
		return managerapi.Lease{}, fault.New(fault.Conflict, "term %d is stale", r.Term)
	default:
		l.covered = append(l.covered, r.Covered)
	}
	l.announced = r.Capabilities
	l.expires = time.Now().Add(time.Duration(r.TTLMS) * time.Millisecond)
	return managerapi.Lease{Holder: l.holder, Term: l.term}, nil
}

func (l *leases) Resign(_ context.Context, _ component.ExchangeID, term int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if term == l.term {
		l.log = append(l.log, "resign "+l.holder)
		l.holder = ""
	}
	return nil
}

func (l *leases) set(change func()) { l.mu.Lock(); defer l.mu.Unlock(); change() }
func (l *leases) events() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.log...)
}

// candidate owns one running Leader.
type candidate struct {
	terms    chan *overseer.Term
	stopping chan struct{}
	cancel   context.CancelFunc
	ended    chan error
	deaf     atomic.Bool
}

func stand(l *leases, name string, ttl time.Duration, reign func(context.Context, *overseer.Term) error,
	changes ...func(*overseer.Leader)) *candidate {
	c := &candidate{terms: make(chan *overseer.Term, 16), stopping: make(chan struct{}), ended: make(chan error, 1)}
	if reign == nil {
		reign = func(ctx context.Context, t *overseer.Term) error {
			c.terms <- t
			<-ctx.Done()
			return nil
		}
	}
	leader := &overseer.Leader{Leases: l, Exchange: 7, Hostname: name, TTL: ttl,
		Covered: func() (bool, func()) { return true, func() {} },
		Fit:     func() bool { return !c.deaf.Load() }, Patience: 2 * ttl, Reign: reign, Drain: ttl / 3,
		Stopping: c.stopping, Log: zap.NewNop(), Metrics: overseer.NewMetrics(prometheus.NewRegistry())}
	for _, change := range changes {
		change(leader)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	joined := make(chan struct{})
	go func() { defer close(joined); c.ended <- leader.Run(ctx) }()
	DeferCleanup(func() { cancel(); Eventually(joined).Should(BeClosed()) })
	return c
}

var _ = Describe("Leadership", func() {
	const ttl = time.Second // a third of it is how long this machine may stand still

	It("is of exactly one when two start together, and is renewed (C1)", func() {
		l := &leases{}
		a, b := stand(l, "a", ttl, nil), stand(l, "b", ttl, nil)
		Eventually(func() int { return len(a.terms) + len(b.terms) }).Should(Equal(1))
		Consistently(func() int { return len(a.terms) + len(b.terms) }, 3*ttl).Should(Equal(1))
	})

	It("passes to the other at a stop, given back before anything else", func() {
		l := &leases{}
		a := stand(l, "a", time.Minute, func(ctx context.Context, _ *overseer.Term) error {
			<-ctx.Done()
			l.set(func() { l.log = append(l.log, "tidy") })
			return nil
		})
		Eventually(l.events).Should(Equal([]string{"lead a"}))
		close(a.stopping)
		Eventually(l.events).Should(ContainElements("resign a", "tidy"))
		Consistently(a.ended, "50ms").ShouldNot(Receive(), "it resigns and does not end the process")
		stand(l, "b", ttl, nil)
		Eventually(l.events).Should(ContainElement("lead b"))
		a.cancel()
		Eventually(a.ended).Should(Receive(BeNil()))
	})

	It("resigns although its parts do not end (the order of a stop)", func() {
		l := &leases{}
		release := make(chan struct{})
		a := stand(l, "a", time.Minute, func(context.Context, *overseer.Term) error { <-release; return nil },
			func(l *overseer.Leader) { l.Drain = 100 * time.Millisecond })
		Eventually(l.events).Should(Equal([]string{"lead a"}))
		close(a.stopping)
		Eventually(l.events).Should(Equal([]string{"lead a", "resign a"}))
		a.cancel()
		Eventually(a.ended).Should(Receive(BeNil()), "a stop does not wait for them for ever")
		close(release)
	})

	It("is not sought again before the parts of the last term have ended, however long that takes (A5)", func() {
		l := &leases{}
		release := make(chan struct{})
		var parts atomic.Int64
		a := stand(l, "a", ttl, func(ctx context.Context, _ *overseer.Term) error {
			Expect(parts.Add(1)).To(Equal(int64(1)))
			defer parts.Add(-1)
			<-ctx.Done()
			<-release
			return nil
		})
		Eventually(l.events).Should(Equal([]string{"lead a"}))
		l.set(func() { l.away = true })
		Eventually(func() bool { l.mu.Lock(); defer l.mu.Unlock(); return time.Now().After(l.expires) }).Should(BeTrue())
		l.set(func() { l.away = false })
		Consistently(l.events, 3*ttl).Should(HaveLen(1))
		close(release)
		Eventually(l.events).Should(Equal([]string{"lead a", "lead a"}))
		Expect(a.ended).NotTo(Receive())
	})

	It("ends before the row does when manager-api does not answer, and comes back under a new term", func() {
		l := &leases{}
		a := stand(l, "a", ttl, nil)
		var first *overseer.Term
		Eventually(a.terms).Should(Receive(&first))
		var expires time.Time
		l.set(func() { l.away, expires = true, l.expires })
		Eventually(first.Trusted, ttl, time.Millisecond).Should(BeFalse())
		Expect(time.Now()).To(BeTemporally("<", expires))
		l.set(func() { l.away = false })
		var second *overseer.Term
		Eventually(a.terms).Should(Receive(&second))
		Expect(second.ID).To(BeNumerically(">", first.ID))
		Expect(first.Trusted()).To(BeFalse())
		Expect(second.Trusted()).To(BeTrue())
	})

	It("ends at once when another has taken it (C2)", func() {
		l := &leases{}
		a := stand(l, "a", ttl, nil)
		var t *overseer.Term
		Eventually(a.terms).Should(Receive(&t))
		l.set(func() { l.holder, l.term, l.expires = "b", l.term+1, time.Now().Add(time.Hour) })
		Eventually(t.Trusted).Should(BeFalse())
		Consistently(a.terms, 2*ttl).ShouldNot(Receive())
	})

	It("is asked for with what the overseer can judge on", func() {
		l := &leases{}
		stand(l, "a", ttl, nil)
		announced := func() (list []string) { l.set(func() { list = l.announced }); return list }
		Eventually(announced).Should(Equal([]string{managerapi.CapInstances}))
	})

	It("says with every renewal whether the exchange is covered", func() {
		l := &leases{}
		stand(l, "a", ttl, nil)
		covered := func() (list []bool) { l.set(func() { list = slices.Clone(l.covered) }); return list }
		Eventually(func() int { return len(covered()) }).Should(BeNumerically(">=", 2))
		Expect(covered()).To(HaveEach(true))
	})

	It("tells a break of coverage again when the renewal that told it did not arrive", func() {
		l := &leases{}
		coverage := overseer.NewCoverage(&ears{session: 1}, time.Hour, zap.NewNop())
		coverage.Begin()
		lost := false
		l.lose = func(managerapi.LeaseRequest) bool { // the first one, and an own beat comes back before the next
			first := !lost
			if first {
				coverage.OwnBeat(1, time.Now())
			}
			lost = true
			return first
		}
		stand(l, "a", ttl, nil, func(l *overseer.Leader) {
			l.Covered = func() (bool, func()) { return coverage.Covered(time.Now()) }
		})
		Eventually(func() []bool { l.mu.Lock(); defer l.mu.Unlock(); return append([]bool{}, l.covered...) }, 3*ttl).Should(
			WithTransform(func(all []bool) []bool { return all[:min(2, len(all))] }, Equal([]bool{false, true})))
	})

	It("is left to others by one that could not hear, and given back by one that cannot for long", func() {
		l := &leases{}
		a := stand(l, "a", ttl, nil)
		Eventually(l.events).Should(Equal([]string{"lead a"}))
		b := stand(l, "b", ttl, nil)
		a.deaf.Store(true)
		Eventually(l.events).Should(Equal([]string{"lead a", "resign a", "lead b"}))
		b.deaf.Store(true)
		Eventually(l.events).Should(HaveLen(4))
		Consistently(l.events, 2*ttl).Should(HaveLen(4), "nobody leads rather than one who is deaf")
	})

	It("is given back by an overseer that does not cover for long, and goes to one that does (fault 7)", func() {
		l := &leases{}
		covers := func(yes bool) func(*overseer.Leader) {
			return func(l *overseer.Leader) {
				l.Patience = ttl
				l.Covered = func() (bool, func()) { return yes, func() {} }
			}
		}
		stand(l, "deaf", ttl, nil, covers(false))
		Eventually(l.events).Should(Equal([]string{"lead deaf"}))
		stand(l, "hears", ttl, nil, covers(true))
		Eventually(l.events).Should(Equal([]string{"lead deaf", "resign deaf", "lead hears"}))
		Consistently(l.events, 3*ttl).Should(HaveLen(3))
	})

	It("is sought again by an overseer that is alone, although it does not cover (fault 7)", func() {
		l := &leases{}
		stand(l, "deaf", ttl, nil, func(l *overseer.Leader) {
			l.Patience = ttl / 2
			l.Covered = func() (bool, func()) { return false, func() {} }
		})
		Eventually(l.events, 10*ttl).Should(Equal([]string{"lead deaf", "resign deaf", "lead deaf", "resign deaf"}))
	})

	DescribeTable("is not sought for a while after terms without coverage",
		func(nth int, draw float64, want time.Duration) {
			Expect(overseer.StandAside(nth, 15*time.Second, 3*time.Minute, draw)).To(Equal(want))
		},
		Entry("the first", 1, 0.0, 15*time.Second),
		Entry("the first, lengthened", 1, 0.5, 18750*time.Millisecond),
		Entry("the second", 2, 0.0, 30*time.Second),
		Entry("the fourth", 4, 0.0, 2*time.Minute),
		Entry("the fifth is bounded", 5, 0.0, 3*time.Minute),
		Entry("the hundredth, lengthened", 100, 0.5, 225*time.Second),
	)

	It("ends the process when its parts fail, and gives the lease back", func() {
		l := &leases{}
		a := stand(l, "a", ttl, func(context.Context, *overseer.Term) error { return errors.New("broken") })
		Eventually(a.ended).Should(Receive(MatchError("broken")))
		Expect(l.events()).To(Equal([]string{"lead a", "resign a"}))
	})
})
