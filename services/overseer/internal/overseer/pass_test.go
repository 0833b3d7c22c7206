package overseer_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/times"
	"github.com/openaperture/openaperture/pkg/upgrade"
	"github.com/openaperture/openaperture/services/overseer/internal/overseer"
)

// bench is manager-api as a pass sees it: a snapshot to read, and writes that are kept, or answered with an error.
type bench struct {
	mu       sync.Mutex
	snapshot managerapi.Snapshot
	unread   error
	writes   []string
	answer   func(write string) error
}

func (b *bench) Snapshot(context.Context, component.ExchangeID) (managerapi.Snapshot, error) {
	return b.snapshot, b.unread
}

func (b *bench) write(ctx context.Context, format string, args ...any) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	b.writes = append(b.writes, text)
	if b.answer != nil {
		return b.answer(text)
	}
	return ctx.Err()
}

func (b *bench) Check(ctx context.Context, id component.ID, k managerapi.Check) error {
	return b.write(ctx, "check %d term %d %s create %t", id, k.Term, k.Verdict.Code, k.Create)
}
func (b *bench) Start(ctx context.Context, id upgrade.ID, j managerapi.Judgement) error {
	Expect(json.Valid(j.Inputs)).To(BeTrue())
	return b.write(ctx, "start %s term %d at %s", id, j.Term, j.Target.SourceRepoGitRef)
}
func (b *bench) Refuse(ctx context.Context, id upgrade.ID, j managerapi.Judgement) error {
	return b.write(ctx, "refuse %s term %d %s", id, j.Term, j.Verdict.Code)
}
func (b *bench) Prove(ctx context.Context, id upgrade.ID, j managerapi.Judgement) error {
	return b.write(ctx, "prove %s term %d", id, j.Term)
}
func (b *bench) Expire(ctx context.Context, id component.ExchangeID,
	e managerapi.Expiry) (managerapi.ExpiryResult, error) {
	return managerapi.ExpiryResult{}, b.write(ctx, "sweep %d term %d", id, e.Term)
}

type passing struct {
	*overseer.Pass
	*bench
	woken   int
	watched map[string]bool
	logs    *observer.ObservedLogs
}

func pass(s overseer.Situation) *passing {
	core, logs := observer.New(zap.InfoLevel)
	fast, err := times.Named(times.Fast)
	Expect(err).NotTo(HaveOccurred())
	fast.CheckInterval, fast.StarveAfter = s.CheckInterval, s.StarveAfter
	p := &passing{bench: &bench{snapshot: s.Snapshot}, logs: logs}
	p.Pass = &overseer.Pass{Snapshots: p.bench, Judge: p.bench, Exchange: 7,
		Term: overseer.NewTerm(5, time.Now().Add(time.Hour)), Times: fast,
		Jitter: s.Jitter, Watch: func(types map[string]bool) { p.watched = types }, Wake: func() { p.woken++ }, Now: time.Now,
		Log: zap.New(core), Metrics: overseer.NewMetrics(prometheus.NewRegistry())}
	return p
}

func (p *passing) do() error { return p.Do(context.Background()) }

var _ = Describe("A pass", func() {
	It("writes what it judged, each in one call under its term, and asks for another when something moved", func() {
		p := pass(given(withDue(0), withUpgrades(open("u2", 2, component.Manager, requested, upgrade.TriggerRequest))))
		Expect(p.do()).To(Succeed())
		Expect(p.writes).To(Equal([]string{"sweep 7 term 5", "start u2 term 5 at v2", "check 1 term 5 eligible create true"}))
		Expect(p.woken).To(Equal(1))
		Expect(p.logs.Len()).To(Equal(2), "what moved is logged")
	})

	It("asks for the repair of a component whose instances are all gone, once (fault 17)", func() {
		p := pass(given(gone(15*time.Minute, 40*time.Minute)))
		Expect(p.do()).To(Succeed())
		Expect(p.writes).To(Equal([]string{"sweep 7 term 5", "check 1 term 5 eligible create true"}))
		p.snapshot.Heard[0].CheckedAt = &now // as manager-api has written
		Expect(p.do()).To(Succeed())
		Expect(p.writes).To(HaveLen(2))
	})

	It("is quiet when nothing happens", func() {
		p := pass(given())
		Expect(p.do()).To(Succeed())
		Expect(p.do()).To(Succeed())
		Expect(p.writes).To(Equal([]string{"sweep 7 term 5"}), "the second sweep is not due yet")
		Expect(p.woken).To(BeZero())
		Expect(p.logs.All()).To(BeEmpty())
	})

	It("tells once what it leaves alone, and again when the reason is another (fault 9)", func() {
		p := pass(given(withUpgrades(open("u2", 2, component.Manager, "paused", upgrade.TriggerRequest))))
		Expect(p.do()).To(Succeed())
		Expect(p.do()).To(Succeed())
		Expect(p.logs.FilterMessage("left alone").Len()).To(Equal(1))
		p.snapshot.Upgrades[0].State = "asleep"
		Expect(p.do()).To(Succeed())
		Expect(p.logs.FilterMessage("left alone").Len()).To(Equal(2))
	})

	It("says which types' heartbeats it waits for", func() {
		p := pass(given(verifying(upgrade.Verifying, time.Second)))
		Expect(p.do()).To(Succeed())
		Expect(p.watched).To(Equal(map[string]bool{"overseer": true}))
	})

	It("takes a conflict as news and goes on (C3)", func() {
		p := pass(given(withDue(0), withUpgrades(open("u2", 2, component.Manager, requested, upgrade.TriggerRequest))))
		p.answer = func(string) error { return fault.New(fault.Conflict, "moved").WithCode("stale_term") }
		Expect(p.do()).To(Succeed())
		Expect(p.writes).To(HaveLen(3))
		Expect(p.woken).To(BeZero())
		Expect(p.logs.All()).To(BeEmpty())
	})

	It("ends where manager-api stops answering (C8)", func() {
		p := pass(given(withDue(0), withUpgrades(open("u2", 2, component.Manager, requested, upgrade.TriggerRequest))))
		p.answer = func(string) error { return fault.New(fault.Unavailable, "gone") }
		Expect(p.do()).To(MatchError(ContainSubstring("sweep")))
		Expect(p.writes).To(HaveLen(1))
	})

	It("goes on after an action that is refused, and says so", func() {
		p := pass(given(withDue(0), withUpgrades(open("u2", 2, component.Manager, requested, upgrade.TriggerRequest))))
		p.answer = func(write string) error {
			if strings.HasPrefix(write, "sweep") {
				return fault.New(fault.Forbidden, "this token may not")
			}
			return fault.New(fault.Unavailable, "500 on %s", write).WithCode(managerapi.CodeInternal)
		}
		Expect(p.do()).To(MatchError(And(ContainSubstring("sweep"), ContainSubstring("start"), ContainSubstring("check"))))
		Expect(p.writes).To(HaveLen(3))
	})

	DescribeTable("refuses a request that can never be started as it is: it would hold the slot",
		func(kind fault.Kind) {
			p := pass(given(withUpgrades(open("u2", 2, component.Manager, requested, upgrade.TriggerRequest))))
			p.answer = func(write string) error {
				if strings.HasPrefix(write, "start") {
					return fault.New(kind, "an order of 300000 bytes exceeds the limit")
				}
				return nil
			}
			Expect(p.do()).To(Succeed())
			Expect(p.writes).To(Equal([]string{"sweep 7 term 5", "start u2 term 5 at v2", "refuse u2 term 5 start_refused"}))
			Expect(p.woken).To(Equal(1), "the slot is still free")
		},
		Entry("what it holds is too large", fault.TooLarge),
		Entry("what it holds is invalid", fault.Invalid),
	)

	two := withUpgrades(open("u1", 1, component.Overseer, requested, upgrade.TriggerHourly),
		open("u2", 2, component.Manager, requested, upgrade.TriggerHourly))

	DescribeTable("asks for the next start only when the one before it cannot be started",
		func(answer error, want ...string) {
			p := pass(given(two))
			p.answer = func(write string) error {
				if strings.HasPrefix(write, "start u2") {
					return answer
				}
				return nil
			}
			_ = p.do()
			Expect(p.writes).To(Equal(append([]string{"sweep 7 term 5", "start u2 term 5 at v2"}, want...)))
		},
		Entry("started", nil),
		Entry("another runs", fault.New(fault.Conflict, "another upgrade runs").WithCode("slot_taken")),
		Entry("we do not lead any more", fault.New(fault.Conflict, "term 5").WithCode("stale_term")),
		Entry("manager-api breaks on it", fault.New(fault.Unavailable, "500").WithCode(managerapi.CodeInternal),
			"start u1 term 5 at v2"),
		Entry("it is forbidden", fault.New(fault.Forbidden, "403"), "start u1 term 5 at v2"),
		Entry("it conflicts with something that may last", fault.New(fault.Conflict, "no"), "start u1 term 5 at v2"),
		Entry("what it was judged on has changed (fault 6)", fault.New(fault.Conflict, "the ref").WithCode("seen_changed"),
			"start u1 term 5 at v2"),
		Entry("it is not found", fault.New(fault.NotFound, "no"), "start u1 term 5 at v2"),
		Entry("it is refused for what it holds", fault.New(fault.Invalid, "no"), "refuse u2 term 5 start_refused",
			"start u1 term 5 at v2"),
		Entry("manager-api does not answer", fault.New(fault.Unavailable, "gone")),
	)

	DescribeTable("tells why a request cannot be started, unless another one has gone before",
		func(answer error, told string) {
			p := pass(given(withUpgrades(open("u2", 2, component.Manager, requested, upgrade.TriggerRequest))))
			p.answer = func(write string) error {
				if strings.HasPrefix(write, "start") {
					return answer
				}
				return nil
			}
			err := p.do()
			if told == "" {
				Expect(err).NotTo(HaveOccurred())
				return
			}
			Expect(err).To(MatchError(told))
		},
		Entry("a conflict that may last", fault.New(fault.Conflict, "its cluster is gone"),
			"start manager: its cluster is gone"),
		Entry("nothing to start", fault.New(fault.NotFound, "there is no such upgrade"),
			"start manager: there is no such upgrade"),
		Entry("another runs", fault.New(fault.Conflict, "another upgrade runs").WithCode("slot_taken"), ""),
		Entry("we do not lead any more", fault.New(fault.Conflict, "term 5").WithCode("stale_term"), ""),
		Entry("what it was judged on has changed (fault 6)", fault.New(fault.Conflict, "the ref").WithCode("seen_changed"),
			""),
	)

	It("plans nothing on what it could not read", func() {
		p := pass(given(withDue(0)))
		p.unread = fault.New(fault.Unavailable, "gone")
		Expect(p.do()).To(MatchError(ContainSubstring("read snapshot")))
		Expect(p.writes).To(BeEmpty())
	})

	It("writes nothing more once its term is over, though it is in the middle of a plan (I3, I14)", func() {
		p := pass(given(withDue(0), withUpgrades(open("u2", 2, component.Manager, requested, upgrade.TriggerRequest))))
		p.Term = overseer.NewTerm(5, time.Now().Add(200*time.Millisecond))
		p.answer = func(string) error {
			Eventually(p.Term.Trusted).Should(BeFalse()) // the window closes while this write is under way
			return nil
		}
		Expect(p.do()).To(Succeed())
		Expect(p.writes).To(Equal([]string{"sweep 7 term 5"}))
		Expect(p.do()).To(Succeed())
		Expect(p.writes).To(HaveLen(1))
	})

	It("writes nothing more once the leader is told that another leads", func() {
		p := pass(given(withDue(0), withUpgrades(open("u2", 2, component.Manager, requested, upgrade.TriggerRequest))))
		l := &leases{term: 4}
		passed := make(chan error, 1)
		stand(l, "a", 300*time.Millisecond, func(ctx context.Context, t *overseer.Term) error {
			p.Term = t
			p.answer = func(string) error {
				l.set(func() { l.holder, l.term, l.expires = "b", 9, time.Now().Add(time.Hour) })
				Eventually(ctx.Done()).Should(BeClosed())
				return nil
			}
			passed <- p.Do(ctx)
			return nil
		})
		Eventually(passed).Should(Receive(BeNil()))
		Expect(p.writes).To(Equal([]string{"sweep 7 term 5"}))
	})

	DescribeTable("looks by itself at least every",
		func(profile times.Profile, want time.Duration) {
			t, err := times.Named(profile)
			Expect(err).NotTo(HaveOccurred())
			Expect(overseer.Interval(t)).To(Equal(want))
		},
		Entry("five seconds", times.Default, 5*time.Second),
		Entry("second in the fast profile", times.Fast, time.Second),
	)
})
