package lease_test

import (
	"time"

	"github.com/openaperture/openaperture/pkg/lease"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("Trust", func() {
	began := time.Now()
	after := func(d time.Duration) time.Time { return began.Add(d) }

	DescribeTable("lasts from the start of the attempt for ttl less margin",
		func(do func(*lease.Trust), now time.Time, token int64, trusted bool, left time.Duration) {
			var t lease.Trust
			do(&t)
			got, ok := t.Token(now)
			Expect(ok).To(Equal(trusted))
			Expect(got).To(Equal(token))
			Expect(t.Left(now)).To(Equal(left))
		},
		Entry("nothing acquired", func(*lease.Trust) {}, began, int64(0), false, time.Duration(0)),
		Entry("just acquired", func(t *lease.Trust) { t.Extend(5, began, 15*time.Second, time.Second) }, began, int64(5), true, 14*time.Second),
		Entry("just before its end", func(t *lease.Trust) { t.Extend(5, began, 15*time.Second, time.Second) }, after(14*time.Second-1), int64(5), true, time.Duration(1)),
		Entry("at its end", func(t *lease.Trust) { t.Extend(5, began, 15*time.Second, time.Second) }, after(14*time.Second), int64(5), false, time.Duration(0)),
		Entry("renewed", func(t *lease.Trust) {
			t.Extend(5, began, 15*time.Second, time.Second)
			t.Extend(5, after(5*time.Second), 15*time.Second, time.Second)
		}, after(14*time.Second), int64(5), true, 5*time.Second),
		Entry("an older attempt ends later", func(t *lease.Trust) {
			t.Extend(5, after(5*time.Second), 15*time.Second, time.Second)
			t.Extend(5, began, 15*time.Second, time.Second)
		}, after(14*time.Second), int64(5), true, 5*time.Second),
		Entry("an attempt under an older token", func(t *lease.Trust) {
			t.Extend(6, began, 15*time.Second, time.Second)
			t.Extend(5, after(5*time.Second), 15*time.Second, time.Second)
		}, began, int64(6), true, 14*time.Second),
		Entry("dropped", func(t *lease.Trust) { t.Extend(5, began, 15*time.Second, time.Second); t.Drop() }, began, int64(5), false, time.Duration(0)),
		Entry("a margin that eats the ttl", func(t *lease.Trust) { t.Extend(5, began, time.Second, time.Second) }, began, int64(5), false, time.Duration(0)),
	)
})
