package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/deploy/failure"
	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/roll"
	messages "github.com/openaperture/openaperture/proto-messages"
)

const (
	logsLimit = 3 * time.Second
	maxTail   = 2 << 10 // bytes of an instance's log in a failure
)

func isSuperseded(err error) bool  { return errors.Is(err, runtime.ErrSuperseded) }
func isUnreachable(err error) bool { return errors.Is(err, runtime.ErrUnreachable) }

// rollout is one walk through the instances of a job.
type rollout struct {
	*run
	*job
	rt       runtime.Runtime
	plan     roll.Plan
	bases    []string
	watcher  roll.Watcher
	observed map[string]roll.Instance
	listed   []runtime.Instance // what observed was made of
	machines []runtime.Machine  // of the cluster, at the end of a deploy that has completed
	tail     string             // end of the failing instance's log
	told     time.Time          // when manager-api last heard of progress
	blind    time.Time          // since when the cluster has shown no instances, zero while it does
	away     string             // who was away while an instance was waited for, found before a blind time moved its clock
	answered bool               // a manager-api that was silent answers since its deploy is undone
}

// roll takes step after step until the plan is reached or has failed.
func (r *run) roll(ctx context.Context, j *job, rt runtime.Runtime) (messages.Result, error) {
	l := &rollout{run: r, job: j, rt: rt, plan: j.work.plan(), bases: bases(j.order), told: r.Now()}
	t := trouble{limit: j.order.HealthDeadline()}
	for {
		step, err := l.next(ctx)
		switch {
		case err != nil:
		case step.Kind == roll.Done || step.Kind == roll.Failed:
			if err = l.conclude(ctx, step); err == nil {
				return l.result(step), nil
			}
		default:
			err = l.take(ctx, step)
		}
		if err == nil {
			t.over()
			continue
		}
		if errors.Is(err, errStopped) {
			return messages.Result{}, err
		}
		if err := t.bear(ctx, err, r.Now()); err != nil {
			return l.broken(r.outranked(ctx, j, err))
		}
	}
}

// next looks at the cluster and decides.
func (l *rollout) next(ctx context.Context) (roll.Step, error) {
	began := l.Now()
	listed, err := l.rt.List(ctx, l.bases)
	if err != nil {
		if l.blind.IsZero() {
			l.blind = began
		}
		return roll.Step{}, err
	}
	l.listed = listed
	sightings := make([]roll.Sighting, len(listed))
	for i, instance := range listed {
		sightings[i] = instance.Sighting
	}
	now := l.Now()
	l.observed = l.watcher.See(sightings, now)
	if !l.blind.IsZero() { // an outage of the cluster is not held against the version
		for _, since := range l.work.Progress.Clocks {
			l.away = cmp.Or(l.away, l.disturbed(since))
		}
		l.work.Progress, l.blind = l.work.Progress.Blind(l.blind, now), time.Time{}
	}
	if at := l.deadline.Load(); at != nil && l.work.Stage == rolling {
		l.work.Order.Deadline, l.plan.Deadline = *at, *at
	}
	return roll.Next(l.plan, l.observed, l.work.Progress, now), nil
}

// take performs one step.
func (l *rollout) take(ctx context.Context, s roll.Step) error {
	began := l.Now()
	switch s.Kind {
	case roll.Wait:
		return l.wait(ctx, s)
	case roll.Apply, roll.Remove:
		if l.soft.Err() != nil {
			return errStopped
		}
		l.tell(ctx)
	case roll.Watch, roll.Fail, roll.Restore, roll.Done, roll.Failed:
	}
	if err := l.act(ctx, s); err != nil {
		return err
	}
	l.Log.Info("step taken", zap.String("order_id", l.order.OrderID), zap.Stringer("step", s.Kind), zap.String("unit", s.Name), zap.Stringer("why", s.Reason))
	if s.Kind != roll.Watch {
		l.timed(s.Kind.String()+" "+s.Name, began, l.Now())
	}
	before := l.work.Progress
	l.work.Progress = before.After(l.plan, s, l.Now())
	l.settled(before.Clocks, l.work.Progress.Clocks, began)
	if s.Kind == roll.Fail { // before the instance is touched again: else a restart would try the new definition once more
		if err := l.files.save(l.work, true); err != nil {
			l.Log.Error("decision not saved", zap.Error(err))
		}
	}
	return nil
}

// settled records how long the instances took to be healthy whose clocks have ended.
func (l *rollout) settled(before, after map[string]time.Time, now time.Time) {
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, runs := after[name]; !runs {
			l.away = ""
			l.timed("healthy "+name, before[name], now)
		}
	}
}

func (l *rollout) act(ctx context.Context, s roll.Step) error {
	switch s.Kind {
	case roll.Apply:
		return l.apply(ctx, s)
	case roll.Remove:
		return l.changed(l.rt.Remove(ctx, s.Name, l.token))
	case roll.Restore:
		if d, had := find(l.work.Found, s.Name); had {
			return l.changed(l.rt.Apply(ctx, d, l.token, false))
		}
		return l.changed(l.rt.Remove(ctx, s.Name, l.token))
	case roll.Fail:
		l.tail, l.work.Disturbed = l.logs(ctx, s.Name), cmp.Or(l.away, l.disturbed(l.work.Progress.Clocks[s.Name]))
		return ctx.Err() // where we end, everybody seems to be away: the next one decides
	case roll.Watch, roll.Wait, roll.Done, roll.Failed:
	}
	return nil
}

// apply gives an instance what the plan wants. That an instance is started again which had the wanted definition cannot be
// told from the definitions afterwards, so the work file says so before.
func (l *rollout) apply(ctx context.Context, s roll.Step) error {
	d, _ := l.work.definition(s.Name)
	again := s.Reason == roll.NotRunning
	if again && !slices.Contains(l.work.Restarted, s.Name) {
		l.work.Restarted = append(l.work.Restarted, s.Name)
		if err := l.files.save(l.work, true); err != nil {
			l.Log.Error("restart not saved", zap.Error(err)) // the proof then demands no new boot of this instance
		}
	}
	return l.changed(l.rt.Apply(ctx, d, l.token, again))
}

// changed notes that an instance was changed, also where the answer is lost; a token that is too low changes nothing.
func (l *rollout) changed(err error) error {
	l.acted = l.acted || !isSuperseded(err)
	return err
}

// disturbed names who was away since an instance was waited for, "" if nobody was: a service that cannot reach
// its broker or join its exchange does not get ready, whatever its version. A manager-api that is replaced is away by that.
func (l *rollout) disturbed(since time.Time) string {
	l.look()
	switch at := l.silentAt.Load(); {
	case l.hears.missing(since, l.order.HealthDeadline()):
		return "the broker"
	case at != nil && !at.Before(since) && l.order.ComponentType != string(component.Manager):
		return "manager-api"
	default:
		return ""
	}
}

// conclude asks what a result has to tell beside its step. An error means that ctx has ended.
func (l *rollout) conclude(ctx context.Context, s roll.Step) (err error) {
	if s.Kind != roll.Done {
		return nil
	}
	if l.work.Stage == undoing {
		return l.hear(ctx)
	}
	l.machines, err = l.machinesOf(ctx)
	return err
}

// hear asks the manager-api that was put back in place of a silent one whether it answers: then the silence was the
// version's, and else nobody can tell whose. An error means that ctx has ended.
func (l *rollout) hear(ctx context.Context) error {
	if !l.work.Silent {
		return nil
	}
	asking, cancel := context.WithTimeout(ctx, l.Patience)
	defer cancel()
	_ = managerapi.Retry(asking, func() error { // no answer in time is one, too
		_, err := l.Manager.Order(asking, l.order.OrderID)
		l.answered = err == nil || fault.Is(err, fault.NotFound)
		return err
	})
	return ctx.Err()
}

// wait returns when the instance may have changed, or at the step's time.
func (l *rollout) wait(ctx context.Context, s roll.Step) error {
	waiting, cancel := context.WithTimeout(ctx, s.Until.Sub(l.Now()))
	defer cancel()
	err := l.rt.Wait(waiting, s.Name)
	if waiting.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// tell sends a sign of progress if the last one is long ago. It is not repeated: the next one follows.
func (l *rollout) tell(ctx context.Context) {
	now := l.Now()
	if every := l.order.ProgressDeadline() / 4; every == 0 || now.Sub(l.told) < every || l.work.Stage != rolling {
		return
	}
	l.told = now
	ctx, cancel := context.WithTimeout(ctx, logsLimit)
	defer cancel()
	m, err := l.message(messages.Result{EventType: messages.EventMilestoneProgress, OrderID: l.order.OrderID, WorkflowID: l.order.WorkflowID,
		Attempt: l.order.Attempt, Token: l.token, At: now.UTC()})
	if err == nil {
		m.ID = "" // each one is new
		err = l.Broker.Publish(ctx, m)
	}
	if err != nil {
		l.Log.Debug("progress not told", zap.Error(err))
	}
}

// In what an instance wrote, secrets follow `name=`, `name: ` or a bare name. A password in an address may contain a slash
// or an @, so that everything up to the last @ is taken for it where a colon says that there is one.
var (
	credentials = regexp.MustCompile(`://(?:[^\s/@:]*:\S*@|[^/\s]*@)`)
	named       = regexp.MustCompile(`(?i)((?:pass(?:w(?:or)?d|phrase|[_-]|\b)|(?:pwd|secret|token|credential|bearer|(?:private|access|api)[_-]?key))[\w-]*["']?\s*[=:]\s*["']?)[^\s"',;&]+`)
	bare        = regexp.MustCompile(`(?i)((?:password|passwd|secret|token|api_?key|bearer)["']?\s+["']?)[^\s"',;&:=][^\s"',;&]*`)
)

// scrub takes secrets out of a text.
func scrub(text string) string {
	text = credentials.ReplaceAllString(text, "://…@")
	return bare.ReplaceAllString(named.ReplaceAllString(text, "${1}…"), "${1}…")
}

// logs is the end of an instance's log, fit for a message: printable, short, without credentials in addresses.
func (l *rollout) logs(ctx context.Context, name string) string {
	ctx, cancel := context.WithTimeout(ctx, logsLimit)
	defer cancel()
	text, err := l.rt.Logs(ctx, name)
	if err != nil {
		return "" // the failure itself is the news
	}
	text = strings.Map(func(c rune) rune {
		if c == '\n' || c >= ' ' && c != 0x7f && c != '\ufffd' {
			return c
		}
		return -1
	}, scrub(text))
	if len(text) > maxTail {
		text = strings.ToValidUTF8(text[len(text)-maxTail:], "")
	}
	return strings.TrimSpace(text)
}

// result is what the end of a rollout means.
func (l *rollout) result(s roll.Step) messages.Result {
	if s.Kind == roll.Done {
		l.settled(l.work.Progress.Clocks, nil, l.Now())
	}
	out := l.summary()
	if l.work.Stage == undoing {
		out.EventType, out.Undone, out.Restored, out.Touched = messages.EventMilestoneFailed, true, s.Kind == roll.Done, true
		if first := l.work.Result; out.Restored && first != nil && first.EventType == messages.EventMilestoneFailed {
			out.Cause, out.Reason, out.Message, out.Log = first.Cause, first.Reason, first.Message+"; what ran before is back", first.Log
			return out
		}
		reason := l.undoneBecause(s)
		out.Cause, out.Reason, out.Message = reason.Cause(), string(reason), l.undoneSentence(reason)
		return out
	}
	if s.Kind == roll.Done {
		out.EventType, out.Instances = messages.EventMilestoneCompleted, l.work.Count
		out.Deployed = deployed(l.work, l.listed, l.machines)
		return out
	}
	reason := l.reasonOf(s.Reason)
	out.EventType, out.Cause, out.Reason = messages.EventMilestoneFailed, reason.Cause(), string(reason)
	_, had := l.plan.Found[s.Name]
	out.Restored = s.Reason == roll.PutBack || s.Reason == roll.OrderExpired && had && !l.work.Progress.RestoredAt.IsZero()
	out.Message, out.Log = l.sentence(s), l.tail
	return out
}

// sentence says what happened and what to do about it.
func (l *rollout) sentence(s roll.Step) string {
	limit := l.order.HealthDeadline()
	if l.reasonOf(s.Reason) == failure.Disturbed {
		return fmt.Sprintf("%s did not get healthy within %s, but %s was away meanwhile: see that it is back; the version is tried again", s.Name, limit, l.work.Disturbed)
	}
	switch s.Reason { //nolint:exhaustive // the others end no rollout
	case roll.PutBack:
		return fmt.Sprintf("%s did not get healthy within %s and what ran before is back: look at its log", s.Name, limit)
	case roll.NothingToPutBack:
		return fmt.Sprintf("%s did not get healthy within %s and nothing had run there before: look at its log", s.Name, limit)
	case roll.RanBefore:
		return fmt.Sprintf("%s did not get healthy within %s, and this definition ran here before: look at its log, host, broker and database", s.Name, limit)
	case roll.PutBackUnhealthy:
		return fmt.Sprintf("%s did not get healthy within %s, nor did what ran before: look at its host, broker and database", s.Name, limit)
	case roll.OrderExpired:
		return fmt.Sprintf("the order's deadline passed at %s: look whether its host is overloaded", s.Name)
	default:
		return fmt.Sprintf("%s: %s", s.Name, s.Reason)
	}
}

// undoneBecause blames the version if manager-api could be asked, and for a silence that ended with it.
func (l *rollout) undoneBecause(s roll.Step) failure.Reason {
	switch {
	case s.Kind != roll.Done:
		return failure.RestoredUnhealthy
	case l.work.Silent && !l.answered:
		return failure.ManagerSilent
	default:
		return failure.NotSettled
	}
}

func (l *rollout) undoneSentence(r failure.Reason) string {
	limit := l.order.ProgressDeadline()
	switch {
	case r == failure.ManagerSilent:
		return fmt.Sprintf("manager-api did not answer for %s after its deploy, nor since that was undone: look at its log, host and database", limit)
	case r == failure.NotSettled && l.work.Silent:
		return fmt.Sprintf("manager-api did not answer for %s after its deploy, and what ran before is back and does: look at its log", limit)
	case r == failure.NotSettled:
		return fmt.Sprintf("manager-api answered, but did not settle the order of its own deploy within %s, and it was undone: look at its log", limit)
	default:
		return "manager-api did not settle the order of its own deploy, and what was put back does not get healthy either: look at its host, broker and database"
	}
}

func (l *rollout) reasonOf(r roll.Reason) failure.Reason {
	switch r { //nolint:exhaustive // the others end no rollout
	case roll.PutBack, roll.NothingToPutBack, roll.RanBefore:
		switch {
		case l.work.Disturbed != "":
			return failure.Disturbed
		case r == roll.RanBefore:
			return failure.StillUnhealthy
		default:
			return failure.DeployUnhealthy
		}
	case roll.OrderExpired:
		return failure.NoProgress
	default:
		return failure.RestoredUnhealthy
	}
}

func (l *rollout) summary() messages.Result {
	return messages.Result{Touched: l.acted || l.work.touched(l.observed), Replaced: l.work.replaced()}
}

// broken ends a rollout whose cluster failed; what was touched is still told.
func (l *rollout) broken(err error) (messages.Result, error) {
	if _, ok := failure.Of(err); !ok {
		return messages.Result{}, err
	}
	if l.work.Stage == undoing { // no failure to report: nobody else could do it, so it is tried again
		return messages.Result{}, errors.New("undo is not finished: " + err.Error())
	}
	return l.summary(), err
}
