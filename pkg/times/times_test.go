package times_test

import (
	"reflect"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/times"
)

func named(p times.Profile, changes ...func(*times.Times)) times.Times {
	GinkgoHelper()
	t, err := times.Named(p)
	Expect(err).NotTo(HaveOccurred())
	for _, c := range changes {
		c(&t)
	}
	return t
}

var _ = Describe("Times", func() {
	DescribeTable("of a profile are valid in all their relations",
		func(p times.Profile) { Expect(named(p).Validate()).To(Succeed()) },
		Entry("default", times.Default), Entry("fast", times.Fast), Entry("none named", times.Profile("")),
	)

	It("of the default profile are those that are published", func() {
		t := named(times.Default)
		Expect([]time.Duration{t.CheckInterval, t.Heartbeat, t.InactiveAfter, t.DeleteAfter, t.LiveWithin, t.Lease, t.Claim,
			t.RequestExpiry, t.AbandonAfter}).
			To(Equal([]time.Duration{time.Hour, 30 * time.Second, 10 * time.Minute, 20 * time.Minute, 90 * time.Second,
				15 * time.Second, 30 * time.Second,
				24 * time.Hour, 72 * time.Hour}))
		Expect(named("")).To(Equal(t))
	})

	It("of an unknown profile are an error that names those there are", func() {
		_, err := times.Named("slow")
		Expect(err).To(MatchError(`unknown times profile "slow": use "default" or "fast"`))
	})

	It("can each be overridden alone, by zero as well", func() {
		fields := reflect.TypeFor[times.Times]()
		for i := range fields.NumField() {
			for _, value := range []int64{int64(7 * time.Minute), 0} {
				var o times.Overrides
				set := reflect.ValueOf(&o).Elem().Field(i)
				set.Set(reflect.New(set.Type().Elem()))
				set.Elem().SetInt(value)
				want := named(times.Default)
				reflect.ValueOf(&want).Elem().Field(i).SetInt(value)
				Expect(named(times.Default).Override(o)).To(Equal(want), fields.Field(i).Name)
			}
		}
		Expect(named(times.Default).Override(times.Overrides{})).To(Equal(named(times.Default)))
	})

	It("have a key each in configuration", func() {
		fields := reflect.TypeFor[times.Times]()
		for i := range fields.NumField() {
			Expect(fields.Field(i).Tag.Get("mapstructure")).To(MatchRegexp(`^[a-z_]+$`), fields.Field(i).Name)
		}
	})

	DescribeTable("may be at the ends of their bounds",
		func(change func(*times.Times)) { Expect(named(times.Default, change).Validate()).To(Succeed()) },
		Entry("a lease as long as live_within", func(t *times.Times) {
			t.Lease, t.LiveWithin, t.Heartbeat = 20*time.Second, 20*time.Second, 5*time.Second
		}),
		Entry("a lease of a minute", func(t *times.Times) { t.Lease = time.Minute }),
		Entry("one beat that suffices", func(t *times.Times) { t.MinHealthy = 0 }),
		Entry("nothing to settle", func(t *times.Times) { t.Settle = 0 }),
		Entry("a quarantine until it is cleared", func(t *times.Times) { t.QuarantineExpiry = 0 }),
	)

	DescribeTable("that contradict each other are refused",
		func(change func(*times.Times), want string) {
			Expect(named(times.Default, change).Validate()).To(MatchError(HavePrefix("times: " + want)))
		},
		Entry("no heartbeat", func(t *times.Times) { t.Heartbeat = 0 }, "heartbeat"),
		Entry("a heartbeat as rare as inactivity", func(t *times.Times) { t.Heartbeat = t.InactiveAfter }, "heartbeat"),
		Entry("deletion before inactivity", func(t *times.Times) { t.DeleteAfter = t.InactiveAfter }, "inactive_after"),
		Entry("live within two heartbeats", func(t *times.Times) { t.LiveWithin = 2 * t.Heartbeat }, "live_within"),
		Entry("missing before it is silent", func(t *times.Times) { t.MissingAfter = t.LiveWithin },
			"missing_after must be above live_within"),
		Entry("a lease below a second", func(t *times.Times) { t.Lease = time.Second - 1 }, "lease"),
		Entry("a lease above a minute, which manager-api refuses", func(t *times.Times) { t.Lease = time.Minute + 1 },
			"lease must be 1s to 1m"),
		Entry("a lease above live_within", func(t *times.Times) {
			t.Lease, t.LiveWithin, t.Heartbeat = 20*time.Second, 20*time.Second-1, 5*time.Second
		},
			"lease must not be above live_within"),
		Entry("a claim below a second", func(t *times.Times) { t.Claim = time.Second - 1 }, "claim"),
		Entry("healthy later than the deadline for it", func(t *times.Times) { t.MinHealthy = t.HealthDeadline },
			"min_healthy"),
		Entry("healthy before it began", func(t *times.Times) { t.MinHealthy = -1 }, "min_healthy must be at least 0"),
		Entry("one instance that may take all the time there is",
			func(t *times.Times) { t.HealthDeadline = t.ProgressDeadline }, "health_deadline"),
		Entry("an order that ends before its progress is due",
			func(t *times.Times) { t.OrderDeadline = t.ProgressDeadline - 1 }, "order_deadline"),
		Entry("no check interval", func(t *times.Times) { t.CheckInterval = 0 }, "check_interval"),
		Entry("no time after which a request starves", func(t *times.Times) { t.StarveAfter = 0 }, "starve_after"),
		Entry("nobody may cover at no time", func(t *times.Times) { t.UncoveredAfter = 0 },
			"starve_after and uncovered_after"),
		Entry("no sweep", func(t *times.Times) { t.Sweep = 0 }, "check_interval"),
		Entry("requests that expire at once", func(t *times.Times) { t.RequestExpiry = 0 }, "request_expiry"),
		Entry("requests that have expired", func(t *times.Times) { t.RequestExpiry = -1 }, "request_expiry"),
		Entry("upgrades that are abandoned at once", func(t *times.Times) { t.AbandonAfter = -1 },
			"request_expiry and abandon_after must be above 0"),
		Entry("settled before it consumed", func(t *times.Times) { t.Settle = -1 }, "settle"),
		Entry("a quarantine that has expired", func(t *times.Times) { t.QuarantineExpiry = -1 },
			"settle and quarantine_expiry must be at least 0"),
		Entry("no attempts", func(t *times.Times) { t.OrderAttempts = 0 }, "order_attempts"),
	)
})
