package eligibility

import (
	"fmt"
	"time"

	"github.com/openaperture/openaperture/pkg/blame"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/module"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// Attempt is an upgrade that has ended.
type Attempt struct {
	To     upgrade.Version
	State  upgrade.State
	Reason string // its verdict's code
	Ended  time.Time
}

// Tried is when the last upgrade ended that shows which modules an upgrade to the recorded version leaves alone; zero
// without one. Such an upgrade was completed, or was deployed and did not prove itself: a repair that did not help
// would not help the next time. manager-api reads the same in one statement (readCounts in
// services/manager-api/internal/engine/snapshot.go); a spec holds the two together.
func Tried(recorded upgrade.Version, attempts []Attempt) time.Time {
	var last time.Time
	for _, a := range attempts {
		shows := a.State == upgrade.Completed || a.Reason == string(blame.NotProven)
		if shows && a.To.AtRef() == recorded.AtRef() && a.Ended.After(last) {
			last = a.Ended
		}
	}
	return last
}

// Stayed tells whether a live module has stayed as it is since before the instant that Tried returns.
func Stayed(m module.Module, tried, now time.Time, liveWithin time.Duration) bool {
	return m.Live(now, liveWithin) && m.SteadySince.Before(tried)
}

// Beside looks at the live modules of a type that report another version than the recorded one. A module that came, or
// came back, after the last upgrade to the recorded version makes a repair due. A module that has stayed as it is since
// before is a stray: that upgrade did not replace the module, so the next one would not either, and so on at every
// check.
func Beside(counts []module.Count, t component.Type, ref, commit string) (due bool, strays int) {
	for _, n := range counts {
		if n.Type == t && n.Live > 0 && ReportsOther(n.SourceRepoGitRef, ref, commit) {
			due = due || n.Live > n.Stayed
			strays += n.Stayed
		}
	}
	return due, strays
}

// Strays names a number of strays in the sentence of StrayModules.
func Strays(n int) string {
	if n == 1 {
		return "1 live module"
	}
	return fmt.Sprintf("%d live modules", n)
}
