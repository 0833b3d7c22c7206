package boot_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"time"

	"github.com/openaperture/openaperture/pkg/boot"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/zap"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// lamp is a check that a spec switches.
type lamp struct {
	off   atomic.Bool
	calls atomic.Int32
}

func (l *lamp) check(context.Context) error {
	l.calls.Add(1)
	if l.off.Load() {
		return errors.New("it is dark")
	}
	return nil
}

var _ = Describe("Health", func() {
	It("is not ready before it has started, even without checks", func(ctx SpecContext) {
		h := boot.NewHealth()
		Expect(h.Report(ctx).Ready).To(BeFalse())
		h.Started()
		Expect(h.Report(ctx).Ready).To(BeTrue())
	})

	It("reports gating and informing checks apart", func(ctx SpecContext) {
		h, bad := boot.NewHealth(), &lamp{}
		bad.off.Store(true)
		h.Add("database", (&lamp{}).check)
		h.Add("broker", bad.check)
		h.AddInfo("broker of site-7", bad.check)
		h.Started()
		text, err := json.Marshal(h.Report(ctx))
		Expect(err).ToNot(HaveOccurred())
		Expect(text).To(MatchJSON(`{"ready":false,
			"checks":[{"name":"database","ok":true},{"name":"broker","ok":false,"error":"it is dark"}],
			"info":[{"name":"broker of site-7","ok":false,"error":"it is dark"}]}`))
	})

	It("is not gated by informing checks", func(ctx SpecContext) {
		h, bad := boot.NewHealth(), &lamp{}
		bad.off.Store(true)
		h.AddInfo("broker of site-7", bad.check)
		h.Started()
		Expect(h.Report(ctx).Ready).To(BeTrue())
	})

	It("asks at most once for many requests, and again after a poke", func(ctx SpecContext) {
		h, l := boot.NewHealth(), &lamp{}
		h.Add("database", l.check)
		h.Started()
		for range 20 {
			h.Report(ctx)
		}
		Expect(l.calls.Load()).To(BeNumerically("<", 10))
		l.off.Store(true)
		h.Poke()
		Expect(h.Report(ctx).Ready).To(BeFalse())
	})

	It("gives up on a check that does not answer, without waiting for the others in turn", func(ctx SpecContext) {
		h, free := boot.NewHealth(), make(chan struct{})
		DeferCleanup(func() { close(free) })
		deaf := func(context.Context) error { <-free; return nil }
		h.Add("broker", deaf)
		h.Add("database", deaf)
		h.Started()
		begun := time.Now()
		report := h.Report(ctx)
		Expect(time.Since(begun)).To(BeNumerically("<", 3*time.Second))
		Expect(report.Checks).To(ConsistOf(
			boot.Check{Name: "broker", Error: "no answer within 2s"},
			boot.Check{Name: "database", Error: "no answer within 2s"}))
	}, NodeTimeout(10*time.Second))

	It("is not spoilt by a caller who hangs up", func() {
		h := boot.NewHealth()
		ctx, hangUp := context.WithCancel(context.Background())
		h.Add("database", func(ctx context.Context) error { hangUp(); return ctx.Err() })
		h.Started()
		Expect(h.Report(ctx).Ready).To(BeTrue())
	})

	It("tells those who wait when readiness changes", func(ctx SpecContext) {
		h, l := boot.NewHealth(), &lamp{}
		h.Add("database", l.check)
		h.Started()
		waited := make(chan error, 1)
		go func() { waited <- h.WaitReady(ctx) }()
		Consistently(waited, "50ms").ShouldNot(Receive())
		h.Report(ctx)
		Eventually(waited).Should(Receive(BeNil()))

		changed := h.Changed()
		l.off.Store(true)
		h.Poke()
		h.Report(ctx)
		Expect(changed).To(BeClosed())
		Expect(h.Ready()).To(BeFalse())
	})

	It("ends a wait with its context", func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		Expect(boot.NewHealth().WaitReady(ctx)).To(MatchError(context.Canceled))
	})
})

var _ = Describe("An Env of a spec", func() {
	It("serves and becomes ready like the one of a process", func() {
		env, err := boot.NewEnv("sample", "1", boot.DefaultBase("127.0.0.1:0"), zap.NewNop())
		Expect(err).ToNot(HaveOccurred())
		ctx, cancel := context.WithCancel(context.Background())
		joined := make(chan error, 2)
		go func() { joined <- env.Health.Run(ctx) }()
		go func() { joined <- env.RunParts(ctx) }()
		server := httptest.NewServer(env.Handler())
		DeferCleanup(func() {
			server.Close()
			cancel()
			Eventually(joined).Should(Receive(BeNil()))
			Eventually(joined).Should(Receive(BeNil()))
		})
		Eventually(env.Health.Ready).Should(BeTrue())
		env.Handle(http.NotFoundHandler())
		status, _ := get(server.URL + "/readyz")
		Expect(status).To(Equal(http.StatusOK))
		status, body := get(server.URL + "/x")
		Expect(status).To(Equal(http.StatusNotFound))
		Expect(body).To(Equal("404 page not found\n"))
	})
})

var _ = Describe("Trace fields", func() {
	It("name the span of the context", func() {
		ctx, span := trace.NewTracerProvider().Tracer("spec").Start(context.Background(), "work")
		fields := boot.TraceFields(ctx)
		Expect(fields).To(HaveLen(2))
		Expect(fields[0].Key).To(Equal("trace_id"))
		Expect(fields[0].Interface).To(Equal(span.SpanContext().TraceID()))
	})

	It("are none without a span", func() {
		Expect(boot.TraceFields(context.Background())).To(BeEmpty())
	})
})
