package member_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/openaperture/openaperture/pkg/member"
	"github.com/openaperture/openaperture/pkg/rabbit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// switchable is readiness that a spec turns on and off.
type switchable struct {
	mu      sync.Mutex
	ready   bool
	changed chan struct{}
}

func (s *switchable) Ready() bool              { s.mu.Lock(); defer s.mu.Unlock(); return s.ready }
func (s *switchable) Changed() <-chan struct{} { s.mu.Lock(); defer s.mu.Unlock(); return s.changed }
func (s *switchable) turn(ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = ready
	close(s.changed)
	s.changed = make(chan struct{})
}

// wire is a publisher that keeps what was published, or refuses it.
type wire struct {
	mu     sync.Mutex
	sent   []messages.ModuleStatus
	raw    []rabbit.Message
	refuse error
	stuck  atomic.Bool // waits until its context ends
}

func (w *wire) Publish(ctx context.Context, m rabbit.Message) error {
	if w.stuck.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return w.refuse
	}
	beat, known, err := messages.DecodeModuleStatus(m.Body)
	if err != nil || !known {
		return errors.New("not a heartbeat")
	}
	w.sent, w.raw = append(w.sent, beat), append(w.raw, m)
	return nil
}

func (w *wire) statuses() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for _, m := range w.sent {
		list = append(list, m.Status)
	}
	return list
}

func (w *wire) count() int { return len(w.statuses()) }

func (w *wire) set(err error) { w.mu.Lock(); defer w.mu.Unlock(); w.refuse = err }

// place is where the exchange is, or why it is nowhere.
type place struct {
	mu      sync.Mutex
	address messages.Address
	err     error
}

func (p *place) Address(context.Context) (messages.Address, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.address, p.err
}

func (p *place) move(to messages.Address, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.address, p.err = to, err
}

// beating owns one running Beater.
type beating struct {
	*switchable
	*wire
	*place
	stop func() // ends it and waits
	logs *observer.ObservedLogs
}

func start(every time.Duration, ready bool) *beating {
	core, logs := observer.New(zap.InfoLevel)
	b := &beating{switchable: &switchable{ready: ready, changed: make(chan struct{})}, wire: &wire{}, logs: logs,
		place: &place{address: messages.Address{Name: "leaf", Root: "root", RoutingKey: "a.b"}}}
	beater := member.Beater{Publisher: b.wire, Ready: b.switchable, Every: every, Log: zap.New(core),
		Address: b.Address,
		Status: messages.ModuleStatus{Type: "overseer", Service: "overseer", Hostname: "h1", BootID: "b1",
			SourceRepoGitRef: "v1"}}
	ctx, cancel := context.WithCancel(context.Background())
	joined := make(chan struct{})
	go func() { defer close(joined); _ = beater.Run(ctx) }()
	b.stop = sync.OnceFunc(func() { cancel(); Eventually(joined).Should(BeClosed()) })
	DeferCleanup(b.stop)
	return b
}

var _ = Describe("Heartbeats", func() {
	It("begin as soon as the service is ready, and carry who it is", func() {
		b := start(time.Hour, false)
		Consistently(b.statuses, "100ms").Should(BeEmpty())
		b.turn(true)
		Eventually(b.statuses).Should(Equal([]string{"active"}))
		m := b.sent[0]
		Expect([]any{m.Type, m.Service, m.Hostname, m.BootID, m.SourceRepoGitRef, m.Seq}).
			To(Equal([]any{"overseer", "overseer", "h1", "b1", "v1", int64(1)}))
		Expect(m.Workload).To(Equal(json.RawMessage("[]")))
		Expect(*m.SentAt).To(BeTemporally("~", time.Now(), 5*time.Second))
		r := b.raw[0]
		Expect([]string{r.Exchange, r.Key, r.Type, r.AppID}).
			To(Equal([]string{"root", "a.b.system_modules", "module_status", "overseer/h1"}))
	})

	It("follow each other with rising numbers", func() {
		b := start(10*time.Millisecond, true)
		Eventually(b.count).Should(BeNumerically(">=", 5))
		b.stop()
		for i, m := range b.sent {
			Expect(m.Seq).To(Equal(int64(i + 1)))
		}
	})

	It("say inactive last, and once, at a graceful stop", func() {
		b := start(time.Hour, true)
		Eventually(b.statuses).Should(HaveLen(1))
		b.turn(false) // as a stopping service does first
		b.stop()
		Expect(b.statuses()).To(Equal([]string{"active", "inactive"}))
	})

	It("never begin for a service that was never ready", func() {
		b := start(10*time.Millisecond, false)
		b.stop()
		Expect(b.statuses()).To(BeEmpty())
	})

	It("pause while the service is not ready and go on at once when it is", func() {
		b := start(10*time.Millisecond, true)
		Eventually(b.count).Should(BeNumerically(">=", 3))
		b.turn(false)
		n := 0
		Eventually(func() bool { before := n; n = len(b.statuses()); return before == n }, "5s", "100ms").Should(BeTrue())
		Consistently(b.statuses, "100ms").Should(HaveLen(n))
		b.turn(true)
		Eventually(b.count).Should(BeNumerically(">=", n+2))
	})

	It("are missed in the log when the broker does not answer in time", func() {
		b := start(5*time.Millisecond, true)
		b.stuck.Store(true)
		Eventually(b.logs.Len, "15s").Should(Equal(1))
		b.stuck.Store(false)
	})

	It("follow the exchange when it moves", func() {
		b := start(5*time.Millisecond, true)
		Eventually(b.count).Should(BeNumerically(">=", 2))
		b.move(messages.Address{}, errors.New("not registered"))
		Eventually(b.logs.Len).Should(Equal(1))
		b.move(messages.Address{Name: "leaf", Root: "other", RoutingKey: "c"}, nil)
		n := b.count()
		Eventually(b.count).Should(BeNumerically(">", n))
		b.stop()
		last := b.raw[len(b.raw)-1]
		Expect([]string{last.Exchange, last.Key}).To(Equal([]string{"other", "c.system_modules"}))
	})

	It("go on after failures, which are logged once per spell", func() {
		b := start(5*time.Millisecond, true)
		Eventually(b.count).Should(BeNumerically(">=", 2))
		b.set(errors.New("broker gone"))
		Eventually(b.logs.Len).Should(Equal(1))
		Consistently(b.logs.Len, "100ms").Should(Equal(1))
		b.set(nil)
		n := len(b.statuses())
		Eventually(b.count).Should(BeNumerically(">=", n+2))
	})
})
