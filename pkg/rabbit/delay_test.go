package rabbit_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/rabbit"
)

var _ = DescribeTable("T2: the wait before the next dial",
	func(state rabbit.State, outage time.Duration, random float64, want time.Duration) {
		c := rabbit.Config{MaxRedial: 30 * time.Second, RefusedRetry: 30 * time.Second}
		Expect(rabbit.RedialDelay(state, outage, c, random)).To(Equal(want))
	},
	Entry("is short at first: at least", rabbit.Connecting, time.Duration(0), 0.0, 100*time.Millisecond),
	Entry("is short at first: at most", rabbit.Connecting, time.Duration(0), 1.0, 500*time.Millisecond),
	Entry("grows with the outage, to an eighth of it", rabbit.Connecting, 40*time.Second, 1.0, 5*time.Second),
	Entry("keeps full jitter however long the outage", rabbit.Connecting, time.Hour, 0.0, 100*time.Millisecond),
	Entry("ends at the limit", rabbit.Connecting, time.Hour, 1.0, 30*time.Second),
	Entry("is long from the start when credentials are refused", rabbit.Auth, time.Duration(0), 0.0, 30*time.Second),
	Entry("is long from the start when a queue has other arguments", rabbit.Misconfigured, time.Duration(0), 1.0,
		33*time.Second),
)

var _ = DescribeTable("T24: the wait before a message is tried again",
	func(times int, want time.Duration) { Expect(rabbit.Backoff(time.Second, times)).To(Equal(want)) },
	Entry("starts with the consumer's back-off", 0, time.Second),
	Entry("doubles", 3, 8*time.Second),
	Entry("ends at 30 s", 5, 30*time.Second),
	Entry("stays there", 1_000_000, 30*time.Second),
)
