package contain_test

import (
	"context"
	"errors"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/openaperture/openaperture/services/unitd/internal/contain"
)

var _ = Describe("Contained work", func() {
	It("that panics is an error, counted and logged with its stack", func() {
		core, logs := observer.New(zap.DebugLevel)
		panics := &contain.Panics{Log: zap.New(core)}
		err := panics.Do("read", func() error { panic("no such thing") })
		var contained *contain.Error
		Expect(errors.As(err, &contained)).To(BeTrue())
		Expect(err).To(MatchError("read: panic: no such thing"))
		Expect(panics.Count()).To(BeEquivalentTo(1))
		Expect(logs.Len()).To(Equal(1))
		Expect(logs.All()[0].ContextMap()["stack"]).To(ContainSubstring("contain_test.go"))
	})

	It("that fails or succeeds does so as ever", func() {
		panics := &contain.Panics{Log: zap.NewNop()}
		failure := errors.New("no")
		Expect(panics.Do("x", func() error { return failure })).To(Equal(failure))
		Expect(panics.Do("x", func() error { return nil })).To(Succeed())
		Expect(panics.Keep(context.Background(), "x", func(context.Context) error { return failure })).To(Equal(failure))
		Expect(panics.Count()).To(BeZero())
	})

	It("that is kept is begun again after each panic, after longer pauses", func() {
		panics := &contain.Panics{Log: zap.NewNop(), Pause: 10 * time.Millisecond}
		var begun []time.Time
		Expect(panics.Keep(context.Background(), "x", func(context.Context) error {
			if begun = append(begun, time.Now()); len(begun) < 4 {
				panic("again")
			}
			return nil
		})).To(Succeed())
		Expect(panics.Count()).To(BeEquivalentTo(3))
		for i, pause := range []time.Duration{10, 20, 40} {
			Expect(begun[i+1].Sub(begun[i])).To(BeNumerically(">=", pause*time.Millisecond))
		}
	})

	It("that is kept ends with its context", func() {
		panics := &contain.Panics{Log: zap.NewNop(), Pause: time.Hour}
		ctx, cancel := context.WithCancel(context.Background())
		Expect(panics.Keep(ctx, "x", func(context.Context) error { cancel(); panic("no more") })).
			To(MatchError(context.Canceled))
	})
})
