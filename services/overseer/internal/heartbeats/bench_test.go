package heartbeats_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/rabbit"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/overseer/internal/heartbeats"
)

// sink stores nothing, so that the benchmark shows our own share of a beat.
type sink struct{}

func (sink) Beat(context.Context, component.ExchangeID, managerapi.ModuleBatch) (managerapi.BatchResult, error) {
	return managerapi.BatchResult{}, nil
}

// BenchmarkHandle measures decoding and coalescing of a full prefetch; ns/op is per beat.
func BenchmarkHandle(b *testing.B) {
	const size = 4000
	batch := make([]*rabbit.Delivery, size)
	for i := range batch {
		batch[i] = &rabbit.Delivery{Received: time.Now(), Body: fmt.Appendf(nil, `{"event_type":"status",
			"hostname":"host-%d","type":"builder","status":"active","service":"builder",
			"boot_id":"5f0e2a52-94f3-4a59-9ac2-6f1f3d9f2b11","seq":42,"workload":[],
			"source_repo":"https://git.example/builder","source_repo_git_ref":"v1.4.0"}`, i)}
	}
	r := heartbeats.Receiver{Store: sink{}, Log: zap.NewNop(), Metrics: heartbeats.NewMetrics(prometheus.NewRegistry()),
		Committed: func([]messages.ModuleStatus) {}, Failed: func(error) {}}
	b.ReportAllocs()
	for n := 0; n < b.N; n += size {
		if err := r.Handle(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
	}
}
