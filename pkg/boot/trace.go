package boot

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

// setupTracing makes valid ids and carries them as W3C traceparent. Nothing is
// exported: the ids join the log lines about one request or message, in the
// service that sent it and in the one that handles it, and the start of an upgrade
// with its orders and results. What no request caused, such as an hourly pass, is
// joined by the ids of upgrade, workflow and order.
func setupTracing() {
	otel.SetTextMapPropagator(propagation.TraceContext{})
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample())))
}

// TraceFields are the ids of the span in ctx for a log line, none without a span.
func TraceFields(ctx context.Context) []zap.Field {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return nil
	}
	return []zap.Field{zap.Stringer("trace_id", span.TraceID()), zap.Stringer("span_id", span.SpanID())}
}
