package overseer_test

import (
	"context"
	"errors"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/rabbit"
	"github.com/openaperture/openaperture/services/overseer/internal/overseer"
)

type requests struct {
	got    []managerapi.UpgradeRequest
	answer error
}

func (r *requests) RequestUpgrade(_ context.Context, u managerapi.UpgradeRequest) (managerapi.Upgrade, error) {
	r.got = append(r.got, u)
	return managerapi.Upgrade{}, r.answer
}

var _ = Describe("The doorbell", func() {
	ring := func(body string, answer error) (r *requests, woken int, err error) {
		r = &requests{answer: answer}
		bell := overseer.Doorbell{Requests: r, Exchange: 7, Wake: func() { woken++ }, Log: zap.NewNop(),
			Metrics: overseer.NewMetrics(prometheus.NewRegistry())}
		err = bell.Handle(context.Background(), &rabbit.Delivery{Body: []byte(body)})
		return r, woken, err
	}
	const bare = `{"action":"upgrade_request","options":{"component_type":"overseer","requested_by":"kim",
		"reason":"hot fix","force":true}}`

	DescribeTable("wakes the pass",
		func(body string, made, wakes int) {
			r, woken, err := ring(body, nil)
			Expect(err).NotTo(HaveOccurred())
			Expect(r.got).To(HaveLen(made))
			Expect(woken).To(Equal(wakes))
		},
		Entry("a change wakes", `{"action":"changed"}`, 0, 1),
		Entry("a request that refers to an Upgrade only wakes",
			`{"action":"upgrade_request","options":{"component_type":"overseer","request_id":"u1"}}`, 0, 1),
		Entry("one that refers to none makes it first", bare, 1, 1),
		Entry("a request of the predecessor, in Erlang's format, makes it too",
			"\x83t\x00\x00\x00\x02d\x00\x06actiond\x00\x0fupgrade_requestd\x00\x07options"+
				"t\x00\x00\x00\x01d\x00\x0ecomponent_typem\x00\x00\x00\x08overseer", 1, 1),
		Entry("an unknown action is acknowledged and counted", `{"action":"dance"}`, 0, 0),
	)

	It("asks without force, and quietly, for the type in its own exchange", func() {
		r, _, _ := ring(bare, nil)
		Expect(r.got[0]).To(Equal(managerapi.UpgradeRequest{ExchangeID: 7, ComponentType: "overseer", Trigger: "request",
			RequestedBy: "kim",
			Reason:      "hot fix", Quiet: true}))
	})

	It("logs what it made under the trace of the message", func() {
		core, logs := observer.New(zap.InfoLevel)
		bell := overseer.Doorbell{Requests: &requests{}, Exchange: 7, Wake: func() {}, Log: zap.New(core),
			Metrics: overseer.NewMetrics(prometheus.NewRegistry())}
		traced := trace.ContextWithSpanContext(context.Background(),
			trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}}))
		Expect(bell.Handle(traced, &rabbit.Delivery{Body: []byte(bare)})).To(Succeed())
		Expect(logs.All()[0].ContextMap()).To(HaveKeyWithValue("trace_id", trace.TraceID{1}.String()))
	})

	DescribeTable("decides what becomes of a message that could not be handled",
		func(body string, answer error, same any) {
			_, woken, err := ring(body, answer)
			Expect(err).To(BeAssignableToTypeOf(same))
			Expect(woken).To(BeZero())
		},
		Entry("undecodable: dead-lettered", `{`, nil, rabbit.Reject(errors.New(""))),
		Entry("undecodable in Erlang's format: dead-lettered", "\x83P", nil, rabbit.Reject(errors.New(""))),
		Entry("without an action: dead-lettered", `{}`, nil, rabbit.Reject(errors.New(""))),
		Entry("no component of this type: dead-lettered", bare, fault.New(fault.NotFound, "none"),
			rabbit.Reject(errors.New(""))),
		Entry("manager-api is away: kept", bare, fault.New(fault.Unavailable, "away"), rabbit.Hold(errors.New(""))),
	)

	It("takes a request that is open already as done (C6)", func() {
		_, woken, err := ring(bare, fault.New(fault.Conflict, "open"))
		Expect(err).NotTo(HaveOccurred())
		Expect(woken).To(Equal(1))
	})
})
