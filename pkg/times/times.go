// Package times holds every duration (docs/operations.md#times) in one struct: two named profiles and their relations.
// For example: after 10 minutes of silence a module is inactive (InactiveAfter), after 20 it is deleted (DeleteAfter).
// The package is configuration only: nothing here reads a clock.
package times

import (
	"fmt"
	"reflect"
	"time"
)

// table lists every time once: D is a duration, N a number.
type table[D, N any] struct {
	CheckInterval    D `mapstructure:"check_interval"`    // between two automatic checks of an hourly component
	StarveAfter      D `mapstructure:"starve_after"`      // a request that waited so long goes before all types
	Heartbeat        D `mapstructure:"heartbeat"`         // between two beats after the first minute
	InactiveAfter    D `mapstructure:"inactive_after"`    // covered silence after which a module is inactive
	DeleteAfter      D `mapstructure:"delete_after"`      // covered silence after which a module is deleted
	Sweep            D `mapstructure:"sweep"`             // between two sweeps over silent modules
	LiveWithin       D `mapstructure:"live_within"`       // a module heard within this time is live
	MissingAfter     D `mapstructure:"missing_after"`     // covered silence of all instances that makes a repair due
	UncoveredAfter   D `mapstructure:"uncovered_after"`   // an exchange that nobody covers for so long raises an event
	Lease            D `mapstructure:"lease"`             // time to live of the overseer's lease; renewed at a third
	Claim            D `mapstructure:"claim"`             // time to live of an executor's claim; renewed at a third
	MinHealthy       D `mapstructure:"min_healthy"`       // how long an instance must be healthy without a break
	HealthDeadline   D `mapstructure:"health_deadline"`   // how long one instance may take to become healthy
	ProgressDeadline D `mapstructure:"progress_deadline"` // how long a running upgrade may show no progress
	OrderDeadline    D `mapstructure:"order_deadline"`    // how long an executor works on one order unheard
	Unclaimed        D `mapstructure:"unclaimed"`         // an order unclaimed for so long is sent again
	Settle           D `mapstructure:"settle"`            // how long manager-api must have consumed before deadlines run
	TickGap          D `mapstructure:"tick_gap"`          // a longer gap between two ticks was an absence
	FailoverAfter    D `mapstructure:"failover_after"`    // a broker away for so long is left for its failover
	FailbackAfter    D `mapstructure:"failback_after"`    // a broker back for so long is used again
	RequestExpiry    D `mapstructure:"request_expiry"`    // a request that nobody started expires
	AbandonAfter     D `mapstructure:"abandon_after"`     // an upgrade whose clock stood still for so long is abandoned
	QuarantineExpiry D `mapstructure:"quarantine_expiry"` // 0 keeps a quarantine until an operator clears it
	KeepHistory      D `mapstructure:"keep_history"`      // how long ended upgrades, workflows and events stay
	KeepJournal      D `mapstructure:"keep_journal"`      // how long rows of the journal stay; at least 90 days
	KeepUpgrades     N `mapstructure:"keep_upgrades"`     // upgrades and proven releases per component that stay anyway
	OrderAttempts    N `mapstructure:"order_attempts"`    // claims that may expire before an order has failed
}

// Times are the durations by which OpenAperture waits, checks and gives up. Units are Go durations ("60m").
type Times table[time.Duration, int]

// Overrides are the times that a configuration sets itself; nil leaves the profile's, which zero does not.
type Overrides table[*time.Duration, *int]

const day = 24 * time.Hour

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
			CheckInterval: time.Hour, StarveAfter: 4 * time.Hour,
			Heartbeat: 30 * time.Second, InactiveAfter: 10 * time.Minute, DeleteAfter: 20 * time.Minute,
			Sweep: 30 * time.Second, LiveWithin: 90 * time.Second, MissingAfter: 10 * time.Minute,
			UncoveredAfter: 10 * time.Minute,
			Lease:          15 * time.Second, Claim: 30 * time.Second,
			MinHealthy: 10 * time.Second, HealthDeadline: time.Minute,
			ProgressDeadline: 10 * time.Minute, OrderDeadline: 30 * time.Minute,
			Unclaimed: time.Minute, Settle: time.Minute, TickGap: 10 * time.Second,
			FailoverAfter: time.Minute, FailbackAfter: time.Minute,
			RequestExpiry: 24 * time.Hour, AbandonAfter: 72 * time.Hour, KeepHistory: 90 * day, KeepJournal: 400 * day,
			KeepUpgrades: 20, OrderAttempts: 5,
		}, nil
	case Fast:
		return Times{
			CheckInterval: 15 * time.Second, StarveAfter: time.Minute,
			Heartbeat: time.Second, InactiveAfter: 10 * time.Minute, DeleteAfter: 20 * time.Minute,
			Sweep: time.Second, LiveWithin: 5 * time.Second, MissingAfter: time.Minute,
			UncoveredAfter: time.Minute,
			Lease:          3 * time.Second, Claim: 6 * time.Second,
			MinHealthy: 2 * time.Second, HealthDeadline: 20 * time.Second,
			ProgressDeadline: time.Minute, OrderDeadline: 3 * time.Minute,
			Unclaimed: 5 * time.Second, Settle: 3 * time.Second, TickGap: 5 * time.Second,
			FailoverAfter: 3 * time.Second, FailbackAfter: 3 * time.Second,
			RequestExpiry: 24 * time.Hour, AbandonAfter: 72 * time.Hour, KeepHistory: 90 * day, KeepJournal: 400 * day,
			KeepUpgrades: 20, OrderAttempts: 5,
		}, nil
	default:
		return Times{}, fmt.Errorf("unknown times profile %q: use %q or %q", p, Default, Fast)
	}
}

// ResolveAhead is how long before an automatic check git hosts are asked for the commits that the check compares: 5
// minutes before an hourly check. All checks within that time are asked for together.
func (t Times) ResolveAhead() time.Duration { return t.CheckInterval / 12 }

// Override returns t with every value that o sets.
func (t Times) Override(o Overrides) Times {
	own, set := reflect.ValueOf(&t).Elem(), reflect.ValueOf(o) // the two have the same fields
	for i := range set.NumField() {
		if v := set.Field(i); !v.IsNil() {
			own.Field(i).Set(v.Elem())
		}
	}
	return t
}

// Validate checks the times' bounds and relations.
func (t Times) Validate() error {
	for _, r := range []struct {
		ok   bool
		text string
	}{
		{t.Heartbeat > 0 && t.Heartbeat < t.InactiveAfter, "heartbeat must be above 0 and below inactive_after"},
		{t.InactiveAfter < t.DeleteAfter, "inactive_after must be below delete_after"},
		{t.LiveWithin > 2*t.Heartbeat, "live_within must be more than two heartbeats"},
		{t.MissingAfter > t.LiveWithin, "missing_after must be above live_within"},
		{t.Lease >= time.Second && t.Lease <= time.Minute, "lease must be 1s to 1m"}, // others are refused by manager-api
		// The leader reports its coverage at every third of it, which counts for live_within.
		{t.Lease <= t.LiveWithin, "lease must not be above live_within"},
		{t.Claim >= time.Second, "claim must be at least 1s"},
		{t.MinHealthy >= 0 && t.MinHealthy < t.HealthDeadline, "min_healthy must be at least 0 and below health_deadline"},
		{t.HealthDeadline < t.ProgressDeadline, "health_deadline must be below progress_deadline"},
		{t.ProgressDeadline <= t.OrderDeadline, "order_deadline must not be below progress_deadline"},
		{t.CheckInterval > 0 && t.Sweep > 0 && t.TickGap > 0 && t.Unclaimed > 0,
			"check_interval, sweep, tick_gap and unclaimed must be above 0"},
		{t.StarveAfter > 0 && t.UncoveredAfter > 0, "starve_after and uncovered_after must be above 0"},
		{t.FailoverAfter > 0 && t.FailbackAfter > 0, "failover_after and failback_after must be above 0"},
		{t.RequestExpiry > 0 && t.AbandonAfter > 0, "request_expiry and abandon_after must be above 0"},
		{t.Settle >= 0 && t.QuarantineExpiry >= 0, "settle and quarantine_expiry must be at least 0"},
		{t.KeepHistory >= time.Hour, "keep_history must be at least 1h"},
		{t.KeepJournal >= 90*day && t.KeepJournal >= t.KeepHistory,
			"keep_journal must be at least 2160h and not below keep_history"},
		{t.KeepUpgrades > 0, "keep_upgrades must be above 0"},
		{t.OrderAttempts > 0, "order_attempts must be above 0"},
	} {
		if !r.ok {
			return fmt.Errorf("times: %s", r.text)
		}
	}
	return nil
}
