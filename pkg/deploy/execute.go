package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openaperture/openaperture/pkg/blame"
	"github.com/openaperture/openaperture/pkg/deploy/failure"
	"github.com/openaperture/openaperture/pkg/deploy/render"
	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/unit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

const (
	gitTries   = 3
	gitPause   = 500 * time.Millisecond // doubled after each try
	maxRelease = 200 << 10              // bytes of encoded units: a result must fit into a message

	firstPlacePause = 25 * time.Millisecond // between two questions whether the cluster has a place for a release,
	lastPlacePause  = time.Second           // doubled up to this
)

// execute performs the milestone. Every failure with a reason is a result; an error means that there is none:
// superseded, stopped, or killed. A panic, of a template or a runtime, is a failure with a reason, too.
func (e *Engine) execute(ctx context.Context, j *job) (messages.Result, error) {
	if j.work != nil && j.work.Stage == reported {
		return *j.work.Result, nil
	}
	var out messages.Result
	err := loop.Contain(ctx, "milestone", j.order.OrderID, func() (err error) {
		out, err = e.performMilestone(ctx, j)
		return err
	})
	if panicked, ok := errors.AsType[*loop.Panic](err); ok {
		err = e.afterPanic(j, panicked, &out)
	}
	if f, ok := failure.Of(err); ok {
		judge(blame.Facts{Failure: blame.Refused, Reason: f.Reason, Told: f.Message}, &out)
	} else if err != nil {
		return out, err
	}
	out.OrderID, out.WorkflowID, out.Attempt, out.Token = j.order.OrderID, j.order.WorkflowID, j.order.Attempt, j.token
	out.At, out.Steps = e.cfg.Now().UTC(), j.steps
	return out, nil
}

// performMilestone performs the order's milestone.
func (e *Engine) performMilestone(ctx context.Context, j *job) (messages.Result, error) {
	switch step := j.order.CurrentStep; step {
	case messages.MilestoneProbe:
		return messages.Result{EventType: messages.EventMilestoneCompleted}, nil
	case messages.MilestoneConfig:
		return e.renderRelease(ctx, j)
	case messages.MilestoneResolve:
		return e.resolveRefs(ctx, j)
	case e.cfg.Milestone:
		return e.deployRelease(ctx, j)
	default:
		return messages.Result{}, failure.New(failure.MilestoneUnknown, "%s does not know the milestone %q",
			e.cfg.Service, step)
	}
}

// resolveRefs performs resolve: it asks git hosts which commits refs stand for. What a host does not tell is part of
// the answer. A stop does not wait for the hosts: another executor asks them again.
func (e *Engine) resolveRefs(ctx context.Context, j *job) (messages.Result, error) {
	asking, cancel := until(ctx, e.stopping)
	defer cancel()
	began := e.cfg.Now()
	out := messages.Result{EventType: messages.EventMilestoneCompleted,
		Resolved: e.cfg.Renderer.Resolve(asking, j.order.Resolve)}
	j.timed("resolve", began, e.cfg.Now())
	if err := asking.Err(); err != nil {
		return messages.Result{}, errStopped
	}
	return out, nil
}

// judge tells by pkg/blame whose fault a failure is, and what people should do.
func judge(f blame.Facts, out *messages.Result) {
	v := blame.Judge(f)
	out.EventType, out.Cause, out.Reason = messages.EventMilestoneFailed, messages.Cause(v.Cause), string(v.Reason)
	out.Message = blame.Advice(v.Reason, v.Cause, f)
}

// afterPanic is the failure that a panic was. An undo is tried again: nobody else could do it.
func (e *Engine) afterPanic(j *job, p *loop.Panic, out *messages.Result) error {
	*out = messages.Result{}
	if j.work != nil {
		if j.work.Stage == undoing {
			return p
		}
		out.Touched = blame.Touched(blame.Facts{Failure: blame.Refused, Touch: blame.Touch{Unknown: true}})
		out.Replaced = j.work.replaced()
	}
	return failure.New(failure.Panicked, "the executor %w: look at its log, and report it", p)
}

// renderRelease performs config: it renders the release of an order.
func (e *Engine) renderRelease(ctx context.Context, j *job) (messages.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, j.order.Deadline.Sub(e.cfg.Now()))
	defer cancel()
	began := e.cfg.Now()
	rel, err := e.renderPatiently(ctx, j)
	j.timed("fetch and render", began, e.cfg.Now())
	if err != nil {
		if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			err = failure.New(failure.NoProgress, "the order's deadline passed while its repositories were fetched")
		}
		return messages.Result{}, err
	}
	if raw, err := json.Marshal(rel.Units); err != nil || len(raw) > maxRelease {
		return messages.Result{}, failure.New(failure.RepoInvalid, "the rendered units exceed %d bytes", maxRelease)
	}
	return messages.Result{EventType: messages.EventMilestoneCompleted, EtcdToken: rel.EtcdToken,
		DeployableUnits: rel.Units, FleetConfig: rel.FleetConfig, SourceCommitHash: rel.SourceCommit,
		DeploymentCommitHash: rel.DeploymentCommit}, nil
}

// renderPatiently tries again while a repository does not answer: a short outage should not cost an hour.
func (e *Engine) renderPatiently(ctx context.Context, j *job) (render.Release, error) {
	o, pause := j.order, gitPause
	request := render.Request{ComponentType: o.ComponentType, ExchangeID: o.MessagingExchangeID,
		DeploymentRepo: o.DeploymentRepo, DeploymentRef: o.DeploymentRepoGitRef, DeploymentCommit: o.DeploymentCommitHash,
		SourceRepo: o.SourceRepo, SourceRef: o.SourceRepoGitRef, SourceCommit: o.SourceCommitHash}
	for try := 1; ; try++ {
		e.tellIfDue(ctx, j)
		rel, err := e.cfg.Renderer.Render(ctx, request)
		f, _ := failure.Of(err)
		if err == nil || f == nil || f.Reason != failure.GitUnreachable || try == gitTries || !sleep(ctx, pause) {
			return rel, err
		}
		pause *= 2
	}
}

// sleep pauses; false means that ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// deployRelease rolls through the instances of an order, or goes on where an earlier start was killed.
func (e *Engine) deployRelease(ctx context.Context, j *job) (messages.Result, error) {
	if err := e.refuseItself(j.order); err != nil {
		return messages.Result{}, err
	}
	// A release that had our own unit by mistake was refused: its successor finds nothing of it to remove.
	j.order.LeavingUnits = slices.DeleteFunc(slices.Clone(j.order.LeavingUnits), e.isOwn)
	if j.order.Cluster == nil {
		return messages.Result{}, failure.New(failure.RuntimeRefused, "the order names no cluster")
	}
	rt, err := e.cfg.Open(*j.order.Cluster)
	if err != nil {
		return messages.Result{}, failure.New(failure.RuntimeRefused, "cluster %s: %w", j.order.Cluster.EtcdToken, err)
	}
	if j.work == nil {
		if j.work, err = e.beginWork(ctx, j, rt); err != nil {
			return messages.Result{}, err
		}
		if err := e.fenceKept(ctx, j, rt); err != nil {
			return messages.Result{}, e.outranked(ctx, j, err)
		}
	}
	return e.rollOut(ctx, j, rt)
}

// refuseItself refuses to replace this executor: the deployer is upgraded by deployer-oa and deployer-oa by the
// deployer (docs/concepts.md#the-services). The milestone sends each phase to the peer; the unit's name tells where
// that was set up wrongly.
func (e *Engine) refuseItself(o messages.Order) error {
	for _, u := range o.DeployableUnits {
		if e.isOwn(u.Name) {
			return failure.New(failure.ExecutorIsTarget, "%s does not replace its own unit %s", e.cfg.Service, u.Name)
		}
	}
	return nil
}

// isOwn tells whether this executor runs as a unit of that name.
func (e *Engine) isOwn(u string) bool {
	own := e.cfg.Hostname[strings.LastIndexByte(e.cfg.Hostname, '.')+1:] // of <host>.<unit>
	name, err := unit.ParseName(u)
	return err == nil && (own == name.Base || own == name.Module() || name.IsTemplate() && instanceOf(own, name.Module()))
}

// instanceOf tells whether a module's name is that of a template ("deployer-") and a number.
func instanceOf(module, template string) bool {
	number, ok := strings.CutPrefix(module, template)
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}

// beginWork looks at what is there and writes the work file: after that, instances may be touched.
func (e *Engine) beginWork(ctx context.Context, j *job, rt runtime.Runtime) (*work, error) {
	if len(j.order.DeployableUnits) == 0 {
		return nil, failure.New(failure.NoUnits, "the order has no units")
	}
	began := e.cfg.Now()
	var found []runtime.Instance
	count := 0
	err := e.insist(ctx, j, j.order.HealthDeadline(), func() (err error) {
		if found, err = rt.List(ctx, bases(j.order)); err != nil {
			return err
		}
		count, err = instances(ctx, rt, j.order.FleetConfig)
		return err
	})
	if err != nil {
		return nil, err
	}
	if count < 1 {
		return nil, failure.New(failure.NoMachines, "cluster %s has no machines", j.order.Cluster.EtcdToken)
	}
	w, err := newWork(j, count, found)
	if err != nil {
		return nil, err
	}
	if err := e.awaitPlaces(ctx, j, rt, w); err != nil {
		return nil, err
	}
	if raw, err := json.Marshal(w.replaced()); err != nil || len(raw) > maxRelease {
		return nil, failure.New(failure.UnitInvalid, "the definitions of what runs now exceed %d bytes, so they could "+
			"not be returned to and nothing is touched: give the instances shorter or equal ones", maxRelease)
	}
	j.timed("look", began, e.cfg.Now())
	began = e.cfg.Now()
	if err := e.works.advance(w, begun); err != nil {
		return nil, failure.New(failure.RuntimeRefused, "the work file cannot be written, so nothing is touched: %w", err)
	}
	j.timed("save", began, e.cfg.Now())
	e.works.dropOlder(w)
	return w, nil
}

// awaitPlaces waits until the cluster has a place for all that is wanted, for a health deadline at most: a machine may
// be away for a moment. Then the deploy fails, before anything is stopped for it: that is not the version's fault.
func (e *Engine) awaitPlaces(ctx context.Context, j *job, rt runtime.Runtime, w *work) error {
	pausing, cancel := until(ctx, e.stopping)
	defer cancel()
	limit := j.order.HealthDeadline()
	for began, pause := e.cfg.Now(), firstPlacePause; ; pause = min(2*pause, lastPlacePause) {
		var why string
		err := e.insist(ctx, j, limit, func() (err error) {
			why, err = rt.Unplaced(ctx, w.Wanted)
			return err
		})
		left := limit - e.cfg.Now().Sub(began)
		switch {
		case err != nil || why == "":
			return err
		case left <= 0:
			return failure.New(failure.Unplaced, "%s", why)
		case !sleep(pausing, min(pause, left)) && ctx.Err() == nil:
			return errStopped // another executor waits for the machine
		}
	}
}

// fenceKept keeps an executor with an older token from changing what this order leaves as it is; all else gets the
// token when it is applied.
func (e *Engine) fenceKept(ctx context.Context, j *job, rt runtime.Runtime) error {
	for _, d := range j.work.Found {
		if wanted, kept := find(j.work.Wanted, d.Name); !kept || hash(wanted) != hash(d) {
			continue
		}
		fence := func() error { return rt.Fence(ctx, d.Name, j.token) }
		if err := e.insist(ctx, j, j.order.HealthDeadline(), fence); err != nil {
			return err
		}
	}
	return nil
}

// outranked tells a cluster that refuses our token though manager-api says that the order is ours from an order that
// somebody else has: then nobody else would report anything.
func (e *Engine) outranked(ctx context.Context, j *job, err error) error {
	if !isSuperseded(err) {
		return err
	}
	if _, refused := e.cfg.Manager.Renew(ctx, j.order.OrderID, j.token); refused != nil {
		return err
	}
	return failure.New(failure.TokensBehind, "cluster %s has seen higher tokens than manager-api gives (%w): its "+
		"database was restored from an older backup, or another installation deploys there. In the first case run "+
		"SELECT setval('lease_tokens', n) with an n above them", j.order.Cluster.EtcdToken, err)
}

func instances(ctx context.Context, rt runtime.Runtime, c *messages.FleetConfig) (int, error) {
	if c != nil && c.InstanceCount != nil {
		return *c.InstanceCount, nil
	}
	machines, err := rt.Machines(ctx)
	return len(machines), err
}

// insist calls f until it succeeds, as long as only the cluster's silence is at fault, and no longer than limit.
func (e *Engine) insist(ctx context.Context, j *job, limit time.Duration, f func() error) error {
	t := trouble{limit: limit}
	for {
		e.tellIfDue(ctx, j)
		err := f()
		if err == nil {
			return nil
		}
		if err := t.bear(ctx, err, e.cfg.Now()); err != nil {
			return err
		}
	}
}

// trouble is a spell in which a cluster does not answer.
type trouble struct {
	limit time.Duration
	since time.Time
	pause time.Duration
}

// bear pauses after an error that may pass, or returns the failure that it is.
func (t *trouble) bear(ctx context.Context, err error, now time.Time) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted: %w", context.Cause(ctx))
	case isSuperseded(err):
		return err
	case !isUnreachable(err):
		return failure.New(failure.RuntimeRefused, "%w", err)
	}
	if t.since.IsZero() {
		t.since, t.pause = now, 25*time.Millisecond
	}
	if now.Sub(t.since) >= t.limit {
		return failure.New(failure.RuntimeUnreachable, "no answer for %s: %w", t.limit, err)
	}
	t.pause = min(2*t.pause, time.Second)
	if !sleep(ctx, t.pause) {
		return fmt.Errorf("interrupted: %w", context.Cause(ctx))
	}
	return nil
}

// over ends the spell.
func (t *trouble) over() { t.since = time.Time{} }
