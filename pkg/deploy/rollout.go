package deploy

import (
	"cmp"
	"context"
	"errors"
	"maps"
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
	engine   *Engine
	job      *job
	work     *work // of the job
	rt       runtime.Runtime
	plan     roll.Plan
	bases    []string
	watcher  roll.Watcher
	observed map[string]roll.Instance
	listed   []runtime.Instance // what observed was made of
	machines []runtime.Machine  // of the cluster, at the end of a deploy that has completed
	tail     string             // end of the failing instance's log
	blind    time.Time          // since when the cluster has shown no instances, zero while it does
	homeless time.Time          // since when no machine takes an instance that is waited for, zero while one does
	unplaced map[string]string  // why no machine takes an instance that is waited for, by name
	away     string             // who was away while an instance was waited for, found before a blind time moved its clock
	answered bool               // a manager-api that was silent answers since its deploy is undone
}

// rollOut takes step after step until the plan is reached or has failed.
func (e *Engine) rollOut(ctx context.Context, j *job, rt runtime.Runtime) (messages.Result, error) {
	l := &rollout{engine: e, job: j, work: j.work, rt: rt, plan: j.work.plan(), bases: bases(j.order)}
	t := trouble{limit: j.order.HealthDeadline()}
	for {
		e.tellIfDue(ctx, j)
		step, err := l.nextStep(ctx)
		switch {
		case err != nil:
		case step.Kind == roll.Done || step.Kind == roll.Failed:
			if err = l.conclude(ctx, step); err == nil {
				return l.result(step), nil
			}
		default:
			err = l.takeStep(ctx, step)
		}
		if err == nil {
			t.over()
			continue
		}
		if errors.Is(err, errStopped) {
			return messages.Result{}, err
		}
		if err := t.bear(ctx, err, e.cfg.Now()); err != nil {
			return l.broken(e.outranked(ctx, j, err))
		}
	}
}

// nextStep looks at the cluster and decides.
func (l *rollout) nextStep(ctx context.Context) (roll.Step, error) {
	began := l.engine.cfg.Now()
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
	now := l.engine.cfg.Now()
	l.observed = l.watcher.See(sightings, now)
	if !l.blind.IsZero() { // an outage of the cluster is not held against the version
		for _, since := range l.work.Progress.Clocks {
			l.away = cmp.Or(l.away, l.whoWasAway(since))
		}
		l.work.Progress, l.blind = l.work.Progress.Blind(l.blind, now), time.Time{}
	}
	if err := l.seePlaces(ctx, began); err != nil {
		return roll.Step{}, err
	}
	if at := l.job.deadline.Load(); at != nil && l.work.Stage == rolling {
		l.work.Order.Deadline, l.plan.Deadline = *at, *at
	}
	return roll.Next(l.plan, l.observed, l.work.Progress, now), nil
}

// seePlaces looks whether the instances that are waited for have a place. The cluster may give an instance no machine
// although machines would take it: it is slow, and that is no obstacle. The time in which no machine takes an instance
// is not held against the version: an instance that gets its machine in time has its health deadline for itself. An
// error means that the cluster does not answer. What a cluster refuses to say is not known.
func (l *rollout) seePlaces(ctx context.Context, now time.Time) error {
	unplaced := map[string]string{}
	for _, instance := range l.listed {
		name := instance.Sighting.Name
		if _, waited := l.work.Progress.Clocks[name]; !waited || len(instance.Machines) > 0 ||
			l.work.Progress.Failing != "" {
			continue
		}
		d, _ := l.work.definition(name)
		why, err := l.rt.Unplaced(ctx, []messages.UnitDefinition{d})
		if isUnreachable(err) || ctx.Err() != nil {
			if l.blind.IsZero() {
				l.blind = now
			}
			return err
		}
		if why != "" {
			unplaced[name] = why
		}
	}
	switch {
	case len(unplaced) > 0 && l.homeless.IsZero():
		l.homeless = now
	case len(unplaced) == 0 && !l.homeless.IsZero():
		l.work.Progress, l.homeless = l.work.Progress.Blind(l.homeless, now), time.Time{}
	}
	l.unplaced = unplaced
	return nil
}

// takeStep performs one step, and tells manager-api of it.
func (l *rollout) takeStep(ctx context.Context, s roll.Step) error {
	e, began := l.engine, l.engine.cfg.Now()
	switch s.Kind {
	case roll.Wait:
		return l.wait(ctx, s)
	case roll.Apply, roll.Remove:
		if e.stops() {
			return errStopped
		}
	case roll.Watch, roll.Fail, roll.Restore, roll.Done, roll.Failed:
	}
	e.tellProgress(ctx, l.job)
	if err := l.act(ctx, s); err != nil {
		return err
	}
	e.log.Info("step taken", zap.String("order_id", l.job.order.OrderID), zap.Stringer("step", s.Kind),
		zap.String("unit", s.Name), zap.Stringer("why", s.Reason))
	if s.Kind != roll.Watch {
		l.job.timed(s.Kind.String()+" "+s.Name, began, e.cfg.Now())
	}
	before := l.work.Progress
	l.work.Progress = before.After(l.plan, s, e.cfg.Now())
	l.noteHealthy(before.Clocks, l.work.Progress.Clocks, began)
	if s.Kind == roll.Fail { // before the instance is touched again: else a restart would try the new definition once more
		l.saveWork("decision")
	}
	return nil
}

// saveWork writes down what the work file has to say beside its stage. The file from before leads to the same end, by
// another way.
func (l *rollout) saveWork(what string) {
	if err := l.engine.works.files.save(l.work); err != nil {
		l.engine.log.Error(what+" not saved", zap.Error(err))
	}
}

// noteHealthy records how long the instances took to be healthy whose clocks have ended.
func (l *rollout) noteHealthy(before, after map[string]time.Time, now time.Time) {
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, runs := after[name]; !runs {
			l.away = ""
			l.job.timed("healthy "+name, before[name], now)
		}
	}
}

func (l *rollout) act(ctx context.Context, s roll.Step) error {
	switch s.Kind {
	case roll.Apply:
		return l.apply(ctx, s)
	case roll.Remove:
		return l.changed(l.rt.Remove(ctx, s.Name, l.job.token))
	case roll.Restore:
		if d, had := find(l.work.Found, s.Name); had {
			return l.changed(l.rt.Apply(ctx, d, l.job.token, false))
		}
		return l.changed(l.rt.Remove(ctx, s.Name, l.job.token))
	case roll.Fail:
		l.tail = l.logs(ctx, s.Name)
		l.work.Unplaced = l.unplaced[s.Name]
		l.work.Disturbed = cmp.Or(l.away, l.whoWasAway(l.work.Progress.Clocks[s.Name]))
		return ctx.Err() // where we end, everybody seems to be away: the next one decides
	case roll.Watch, roll.Wait, roll.Done, roll.Failed:
	}
	return nil
}

// apply gives an instance what the plan wants. That an instance is started again which had the wanted definition cannot
// be told from the definitions afterwards, so the work file says so before.
func (l *rollout) apply(ctx context.Context, s roll.Step) error {
	d, _ := l.work.definition(s.Name)
	again := s.Reason == roll.NotRunning
	if again && !slices.Contains(l.work.Restarted, s.Name) {
		l.work.Restarted = append(l.work.Restarted, s.Name)
		l.saveWork("restart") // else the proof demands no new boot of this instance
	}
	return l.changed(l.rt.Apply(ctx, d, l.job.token, again))
}

// changed notes that an instance was changed, also where the answer is lost; a token that is too low changes nothing.
func (l *rollout) changed(err error) error {
	l.job.acted = l.job.acted || !isSuperseded(err)
	return err
}

// whoWasAway names who was away since an instance was waited for, "" if nobody was: a service that cannot reach its
// broker or join its exchange does not get ready, whatever its version. A manager-api that is replaced is away by that.
func (l *rollout) whoWasAway(since time.Time) string {
	l.engine.look()
	switch at := l.job.silentAt.Load(); {
	case l.engine.hears.missing(since, l.job.order.HealthDeadline()):
		return "the broker"
	case at != nil && !at.Before(since) && l.job.order.ComponentType != string(component.Manager):
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
		return l.hearManager(ctx)
	}
	l.machines, err = l.machinesOf(ctx)
	return err
}

// hearManager asks the manager-api that was put back in place of a silent one whether it answers: then the silence was
// the version's, and else nobody can tell whose. An error means that ctx has ended.
func (l *rollout) hearManager(ctx context.Context) error {
	if !l.work.Silent {
		return nil
	}
	asking, cancel := context.WithTimeout(ctx, l.engine.cfg.Patience)
	defer cancel()
	_ = managerapi.Retry(asking, func() error { // no answer in time is one, too
		_, err := l.engine.cfg.Manager.Order(asking, l.job.order.OrderID)
		l.answered = err == nil || fault.Is(err, fault.NotFound)
		return err
	})
	return ctx.Err()
}

// wait returns when the instance may have changed, at the step's time, or when manager-api is to be told of progress.
func (l *rollout) wait(ctx context.Context, s roll.Step) error {
	limit := min(s.Until.Sub(l.engine.cfg.Now()), l.engine.untilTold(l.job))
	waiting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := l.rt.Wait(waiting, s.Name)
	if waiting.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
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
