// Package times holds every duration of design section 5 "Times" in one struct: two named profiles and their
// relations. It is configuration only; nobody reads a clock here.
package times

import (
	"fmt"
	"time"
)

// Times are the durations by which OpenAperture waits, checks and gives up. Units are Go durations ("60m").
type Times struct {
	CheckInterval    time.Duration `mapstructure:"check_interval"`    // between two automatic checks of an hourly component
	Heartbeat        time.Duration `mapstructure:"heartbeat"`         // between two beats after the first minute
	InactiveAfter    time.Duration `mapstructure:"inactive_after"`    // covered silence after which a module is inactive
	DeleteAfter      time.Duration `mapstructure:"delete_after"`      // covered silence after which a module is deleted
	Sweep            time.Duration `mapstructure:"sweep"`             // between two sweeps over silent modules
	LiveWithin       time.Duration `mapstructure:"live_within"`       // a module heard within this time is live
	Lease            time.Duration `mapstructure:"lease"`             // time to live of the overseer's lease; renewed at a third
	Claim            time.Duration `mapstructure:"claim"`             // time to live of an executor's claim; renewed at a third
	MinHealthy       time.Duration `mapstructure:"min_healthy"`       // how long an instance must be healthy without a break
	HealthDeadline   time.Duration `mapstructure:"health_deadline"`   // how long one instance may take to become healthy
	ProgressDeadline time.Duration `mapstructure:"progress_deadline"` // how long a running upgrade may show no progress
	OrderDeadline    time.Duration `mapstructure:"order_deadline"`    // how long an executor works on one order without hearing from manager-api
	Unclaimed        time.Duration `mapstructure:"unclaimed"`         // an order unclaimed for so long is sent again
	Settle           time.Duration `mapstructure:"settle"`            // how long manager-api must have consumed before deadlines run
	TickGap          time.Duration `mapstructure:"tick_gap"`          // a gap between two ticks of manager-api above this was an absence
	RequestExpiry    time.Duration `mapstructure:"request_expiry"`    // a request that nobody started expires
	AbandonAfter     time.Duration `mapstructure:"abandon_after"`     // an upgrade whose clock stood still for so long is abandoned
	QuarantineExpiry time.Duration `mapstructure:"quarantine_expiry"` // 0 keeps a quarantine until an operator clears it
	OrderAttempts    int           `mapstructure:"order_attempts"`    // claims that may expire before an order has failed
}

// Profile names a set of times.
type Profile string

// The two profiles: default is for production, fast for demonstrations and specs.
const (
	Default Profile = "default"
	Fast    Profile = "fast"
)

// Named returns the times of a profile.
func Named(p Profile) (Times, error) {
	switch p {
	case Default, "":
		return Times{
			CheckInterval: time.Hour, Heartbeat: 30 * time.Second, InactiveAfter: 10 * time.Minute, DeleteAfter: 20 * time.Minute,
			Sweep: 30 * time.Second, LiveWithin: 90 * time.Second, Lease: 15 * time.Second, Claim: 30 * time.Second,
			MinHealthy: 10 * time.Second, HealthDeadline: time.Minute, ProgressDeadline: 10 * time.Minute, OrderDeadline: 30 * time.Minute,
			Unclaimed: time.Minute, Settle: time.Minute, TickGap: 10 * time.Second,
			RequestExpiry: 24 * time.Hour, AbandonAfter: 72 * time.Hour, OrderAttempts: 5,
		}, nil
	case Fast:
		return Times{
			CheckInterval: 15 * time.Second, Heartbeat: time.Second, InactiveAfter: 10 * time.Minute, DeleteAfter: 20 * time.Minute,
			Sweep: time.Second, LiveWithin: 5 * time.Second, Lease: 3 * time.Second, Claim: 6 * time.Second,
			MinHealthy: 2 * time.Second, HealthDeadline: 20 * time.Second, ProgressDeadline: time.Minute, OrderDeadline: 3 * time.Minute,
			Unclaimed: 5 * time.Second, Settle: 3 * time.Second, TickGap: 5 * time.Second,
			RequestExpiry: 24 * time.Hour, AbandonAfter: 72 * time.Hour, OrderAttempts: 5,
		}, nil
	default:
		return Times{}, fmt.Errorf("unknown times profile %q: use %q or %q", p, Default, Fast)
	}
}

// Override returns t with every value of o that is not zero.
func (t Times) Override(o Times) Times {
	set := func(dst *time.Duration, v time.Duration) {
		if v != 0 {
			*dst = v
		}
	}
	set(&t.CheckInterval, o.CheckInterval)
	set(&t.Heartbeat, o.Heartbeat)
	set(&t.InactiveAfter, o.InactiveAfter)
	set(&t.DeleteAfter, o.DeleteAfter)
	set(&t.Sweep, o.Sweep)
	set(&t.LiveWithin, o.LiveWithin)
	set(&t.Lease, o.Lease)
	set(&t.Claim, o.Claim)
	set(&t.MinHealthy, o.MinHealthy)
	set(&t.HealthDeadline, o.HealthDeadline)
	set(&t.ProgressDeadline, o.ProgressDeadline)
	set(&t.OrderDeadline, o.OrderDeadline)
	set(&t.Unclaimed, o.Unclaimed)
	set(&t.Settle, o.Settle)
	set(&t.TickGap, o.TickGap)
	set(&t.RequestExpiry, o.RequestExpiry)
	set(&t.AbandonAfter, o.AbandonAfter)
	set(&t.QuarantineExpiry, o.QuarantineExpiry)
	if o.OrderAttempts != 0 {
		t.OrderAttempts = o.OrderAttempts
	}
	return t
}

// Validate checks the relations between the times.
func (t Times) Validate() error {
	for _, r := range []struct {
		ok   bool
		text string
	}{
		{t.Heartbeat > 0 && t.Heartbeat < t.InactiveAfter, "heartbeat must be above 0 and below inactive_after"},
		{t.InactiveAfter < t.DeleteAfter, "inactive_after must be below delete_after"},
		{t.LiveWithin > 2*t.Heartbeat, "live_within must be more than two heartbeats"},
		{t.Lease >= time.Second, "lease must be at least 1s"},
		{t.Claim >= time.Second, "claim must be at least 1s"},
		{t.MinHealthy < t.HealthDeadline, "min_healthy must be below health_deadline"},
		{t.HealthDeadline < t.ProgressDeadline, "health_deadline must be below progress_deadline"},
		{t.ProgressDeadline <= t.OrderDeadline, "order_deadline must not be below progress_deadline"},
		{t.CheckInterval > 0 && t.Sweep > 0 && t.TickGap > 0 && t.Unclaimed > 0, "check_interval, sweep, tick_gap and unclaimed must be above 0"},
		{t.OrderAttempts > 0, "order_attempts must be above 0"},
	} {
		if !r.ok {
			return fmt.Errorf("times: %s", r.text)
		}
	}
	return nil
}
