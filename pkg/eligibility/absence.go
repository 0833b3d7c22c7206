package eligibility

import (
	"fmt"
	"time"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/module"
	"github.com/openaperture/openaperture/pkg/silence"
)

// AbsenceReason is the enumerated reason for what follows from the silence of all instances of a component.
type AbsenceReason string

// The reasons in the order in which they are looked at. Only RepairDue makes a repair due.
const (
	NotRecorded AbsenceReason = "not_recorded" // no version is recorded, so there is nothing to bring back
	SomeLive    AbsenceReason = "some_live"
	NeverHeard  AbsenceReason = "never_heard" // the instances have sent no heartbeat since their version was deployed
	NotCovered  AbsenceReason = "not_covered" // nobody listens, so that silence says nothing
	RepairTried AbsenceReason = "repair_tried"
	RepairWaits AbsenceReason = "repair_waits" // the silence has not lasted for missing_after
	RepairDue   AbsenceReason = "repair_due"
)

// AbsenceReasons lists all reasons in the order in which they are looked at.
var AbsenceReasons = []AbsenceReason{NotRecorded, SomeLive, NeverHeard, NotCovered, RepairTried, RepairWaits, RepairDue}

// Absence says whether the instances of a component are all gone, and since when. The zero value knows nothing.
type Absence struct {
	Reason AbsenceReason
	// Since is the last heartbeat of an instance, of the last four reasons.
	Since time.Time
	// DueAt is when the repair is due, or was, of RepairWaits and RepairDue.
	DueAt time.Time
	// Checked is the last automatic check, zero without one.
	Checked time.Time
}

// Gone reports whether nothing of a component is heard that was heard before.
func (a Absence) Gone() bool {
	return a.Reason == NotCovered || a.Reason == RepairTried || a.Reason == RepairWaits || a.Reason == RepairDue
}

// Due reports whether a repair is due because all instances are gone.
func (a Absence) Due() bool { return a.Reason == RepairDue }

// CheckEarly reports whether a component is to be checked before its time: its repair has become due since the last
// check. So each disappearance has one such check, whatever the check finds.
func (a Absence) CheckEarly() bool { return a.Due() && a.Checked.Before(a.DueAt) }

// Absent judges whether the instances of a component are all gone for so long that its recorded version is to be
// deployed again. covered is the time in which the exchange was listened to: other silence is not believed.
//
// One disappearance makes one repair due: after an upgrade to the recorded version that was completed, or could not be
// proven, an instance must have been heard first. A repair that did not help would not help the next time either.
// Other failures of a repair are held back as those of every upgrade are (schedule.HeldUntil). A type that is proven by
// its runtime may send no heartbeats: it is only missed if it has sent one since its version was deployed.
func Absent(c component.Component, counts []module.Count, h component.Heard, covered silence.Covered,
	after time.Duration) Absence {
	if component.Blank(c.SourceRepo) || component.Blank(c.SourceRepoGitRef) {
		return Absence{Reason: NotRecorded}
	}
	for _, n := range counts {
		if n.Type == c.Type && n.Live > 0 {
			return Absence{Reason: SomeLive}
		}
	}
	silentSince := h.TriedAt != nil && (h.LastAt == nil || h.LastAt.Before(*h.TriedAt))
	if h.LastAt == nil || (silentSince && c.Proof == component.ProofUnits) {
		return Absence{Reason: NeverHeard}
	}
	a := Absence{Since: *h.LastAt}
	if h.CheckedAt != nil {
		a.Checked = *h.CheckedAt
	}
	switch {
	case covered.Since.IsZero() || covered.Until.IsZero():
		a.Reason = NotCovered
	case silentSince:
		a.Reason = RepairTried
	default:
		silent := covered.Silence(a.Since)
		a.Reason, a.DueAt = RepairWaits, covered.Until.Add(after-silent)
		if silent >= after {
			a.Reason = RepairDue
		}
	}
	return a
}

// String says for people what is missing and what follows, "" where nothing is.
func (a Absence) String() string {
	since := "nothing of the component has been heard since " + a.Since.UTC().Format(time.RFC3339)
	switch a.Reason {
	case NotRecorded, SomeLive, NeverHeard:
		return ""
	case NotCovered:
		return since + ", but nobody covers the exchange now: silence is not believed"
	case RepairTried:
		return since + ", and the last repair did not bring it back: look why, or request the upgrade with force"
	case RepairWaits:
		return fmt.Sprintf("%s: the proven release is deployed again if that lasts until %s", since,
			a.DueAt.UTC().Format(time.RFC3339))
	case RepairDue:
		return since + ": the proven release is deployed again"
	default:
		return ""
	}
}
