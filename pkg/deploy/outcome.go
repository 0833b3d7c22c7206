package deploy

import (
	"github.com/openaperture/openaperture/pkg/blame"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/roll"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// result is what the end of a rollout means.
func (l *rollout) result(s roll.Step) messages.Result {
	if s.Kind == roll.Done {
		l.noteHealthy(l.work.Progress.Clocks, nil, l.engine.cfg.Now())
	}
	out := l.summary()
	if s.Kind == roll.Done && l.work.Stage != undoing {
		out.EventType, out.Instances = messages.EventMilestoneCompleted, l.work.Count
		out.Deployed = deployed(l.work, l.listed, l.machines)
		return out
	}
	f := l.facts(s)
	judge(f, &out)
	out.Touched, out.Log = blame.Touched(f), l.tail
	if f.Failure == blame.Undone {
		out.Undone, out.Restored = true, f.Back
		if f.Back && f.Reason != "" {
			out.Log = l.work.Result.Log
		}
		return out
	}
	_, had := l.plan.Found[s.Name]
	out.Restored = s.Reason == roll.PutBack || f.Failure == blame.Expired && had && !l.work.Progress.RestoredAt.IsZero()
	return out
}

// summary is what every result of a deploy tells.
func (l *rollout) summary() messages.Result {
	return messages.Result{Touched: blame.Touched(blame.Facts{Touch: l.touch()}), Replaced: l.work.replaced()}
}

func (l *rollout) touch() blame.Touch {
	return blame.Touch{Acted: l.job.acted, Failing: l.work.Progress.Failing != "", Differs: l.work.differs(l.observed)}
}

// facts are what is known of a rollout that has failed, or has taken a deploy back.
func (l *rollout) facts(s roll.Step) blame.Facts {
	order := l.job.order
	f := blame.Facts{Type: component.Type(order.ComponentType), Touch: l.touch()}
	if l.work.Stage == undoing {
		f.Failure, f.Limit, f.Back = blame.Undone, order.ProgressDeadline(), s.Kind == roll.Done
		f.ManagerSilent, f.ManagerBack = l.work.Silent, l.answered
		if first := l.work.Result; first != nil && first.EventType == messages.EventMilestoneFailed {
			f.Cause, f.Reason, f.Told = upgrade.Cause(first.Cause), blame.Reason(first.Reason), first.Message
		}
		return f
	}
	f.Failure, f.Limit, f.Unit, f.Away = blame.Unhealthy, order.HealthDeadline(), s.Name, l.work.Disturbed
	f.Unplaced = l.work.Unplaced
	switch s.Reason { //nolint:exhaustive // the others end no rollout
	case roll.OrderExpired:
		f.Failure = blame.Expired
	case roll.PutBack:
		f.Before, f.Back = blame.Another, true
	case roll.RanBefore:
		f.Before, f.Back = blame.Same, true
	case roll.NothingToPutBack:
		f.Before, f.Back = blame.Nothing, true
	case roll.PutBackUnhealthy:
		f.Before = blame.Another
	}
	return f
}
