package rabbit

import (
	"context"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.opentelemetry.io/otel/propagation"
)

// tableCarrier lets the W3C traceparent travel in message headers.
type tableCarrier amqp.Table

// Get implements propagation.TextMapCarrier.
func (c tableCarrier) Get(key string) string {
	text, _ := c[key].(string)
	return text
}

// Set implements propagation.TextMapCarrier.
func (c tableCarrier) Set(key, value string) { c[key] = value }

// Keys implements propagation.TextMapCarrier.
func (c tableCarrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for k := range c {
		keys = append(keys, k)
	}
	return keys
}

// inject returns a copy of the headers with the trace of ctx; the caller's table is left alone.
func inject(ctx context.Context, headers amqp.Table) amqp.Table {
	out := make(amqp.Table, len(headers)+1)
	for k, v := range headers {
		out[k] = v
	}
	propagation.TraceContext{}.Inject(ctx, tableCarrier(out))
	return out
}

// extract returns ctx with the trace that the sender put into the headers, if any.
func extract(ctx context.Context, headers amqp.Table) context.Context {
	return propagation.TraceContext{}.Extract(ctx, tableCarrier(headers))
}
