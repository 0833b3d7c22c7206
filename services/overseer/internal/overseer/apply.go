package overseer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

// CodeStartRefused is the verdict on a request that manager-api can never start as it is.
const CodeStartRefused = "start_refused"

// Codes with which manager-api refuses a start because of us or of another upgrade, not of this one.
const (
	codeStaleTerm = "stale_term"
	codeSlotTaken = "slot_taken"
)

// Judge is where judgements are written; *managerapi.Client is one. Each judgement is one conditional write. Conflict:
// the term is stale or the state has moved, and nothing was changed.
type Judge interface {
	Check(ctx context.Context, id component.ID, k managerapi.Check) error
	Start(ctx context.Context, id upgrade.ID, j managerapi.Judgement) error
	Refuse(ctx context.Context, id upgrade.ID, j managerapi.Judgement) error
	Prove(ctx context.Context, id upgrade.ID, j managerapi.Judgement) error
	Expire(ctx context.Context, id component.ExchangeID, e managerapi.Expiry) (managerapi.ExpiryResult, error)
}

// apply performs the actions in their order, each within the trust window only. moved reports whether an action changed
// what the next plan depends on. An action that is refused is left to the next pass; the actions after it are
// performed. Only silence of manager-api ends the pass.
//
// Of several starts, the next one is tried only when the one before it cannot be started: a request that can never
// start must not hold up the others until it expires. If manager-api refuses a start for what the request holds, the
// request is refused with manager-api's words.
func (p *Pass) apply(ctx context.Context, plan []Action) (moved bool, err error) {
	var refused []error
	taken := false
	for _, a := range plan {
		if a.Kind == Start && taken {
			continue
		}
		if ctx.Err() != nil || !p.Term.Trusted() {
			return moved, ErrTermOver
		}
		err := p.attempt(ctx, a)
		taken = taken || a.Kind == Start && (err == nil || overtaken(err))
		unfit := a.Kind == Start && (fault.Is(err, fault.Invalid) || fault.Is(err, fault.TooLarge))
		if unfit {
			a.Kind, a.Verdict = Refuse, managerapi.Verdict{Code: CodeStartRefused,
				Message: "manager-api cannot start it: " + err.Error()}
			err = p.attempt(ctx, a)
		}
		switch {
		case err == nil:
			moved = moved || a.Kind == Prove || a.Create || unfit // the slot is still free
			p.report(a)
		case news(a, err):
			p.Log.Debug("overtaken by events", append(fields(a), zap.Error(err))...)
		default:
			refused = append(refused, fmt.Errorf("%s %s: %w", a.Kind, a.Type, err))
			if !managerapi.Answered(err) {
				return moved, errors.Join(refused...)
			}
		}
	}
	return moved, errors.Join(refused...)
}

// overtaken reports whether a start is in conflict with another start: no further one can be accepted.
func overtaken(err error) bool {
	return slices.Contains([]string{codeStaleTerm, codeSlotTaken}, fault.CodeOf(err))
}

// news reports whether an action was refused because the world has moved; the next pass judges on what is so then. A
// start may be in conflict with something that lasts, and somebody has to know that.
func news(a Action, err error) bool {
	if a.Kind == Start {
		return overtaken(err) || fault.CodeOf(err) == managerapi.CodeSeenChanged
	}
	return fault.Is(err, fault.Conflict) || fault.Is(err, fault.NotFound)
}

// attempt performs an action and counts it.
func (p *Pass) attempt(ctx context.Context, a Action) error {
	err := p.perform(ctx, a)
	p.Metrics.actions.WithLabelValues(string(a.Kind), result(err)).Inc()
	return err
}

func result(err error) string {
	if err == nil {
		return "ok"
	}
	return fault.KindOf(err).String()
}

func (p *Pass) perform(ctx context.Context, a Action) error {
	switch a.Kind {
	case Check:
		return p.Judge.Check(ctx, a.Component, managerapi.Check{Term: p.Term.ID, Verdict: a.Verdict, NextCheckAt: a.NextCheck,
			Create: a.Create})
	case Sweep:
		return p.sweep(ctx)
	case Prove, Refuse, Start:
	}
	inputs, err := json.Marshal(a.Inputs)
	if err != nil {
		return fmt.Errorf("encode inputs: %w", err)
	}
	j := managerapi.Judgement{Term: p.Term.ID, Verdict: a.Verdict, Target: a.Target, Inputs: inputs, Saw: a.Saw}
	switch a.Kind {
	case Prove:
		return p.Judge.Prove(ctx, a.Upgrade, j)
	case Refuse:
		return p.Judge.Refuse(ctx, a.Upgrade, j)
	case Start, Check, Sweep:
	}
	return p.Judge.Start(ctx, a.Upgrade, j)
}

func (p *Pass) sweep(ctx context.Context) error {
	done, err := p.Judge.Expire(ctx, p.Exchange, managerapi.Expiry{Term: p.Term.ID})
	if err != nil {
		return err
	}
	p.swept = p.Now()
	if len(done.Inactivated)+len(done.Deleted) > 0 || done.Held != p.held {
		p.Log.Info("silent modules swept", zap.Strings("inactivated", done.Inactivated), zap.Strings("deleted", done.Deleted),
			zap.Bool("held", done.Held))
	}
	p.held = done.Held
	return nil
}

// report logs what moved; a check that found nothing to do is a step.
func (p *Pass) report(a Action) {
	switch a.Kind {
	case Start:
		p.Log.Info("upgrade started", append(fields(a), zap.String("target", a.Target.SourceRepoGitRef))...)
	case Refuse:
		p.Log.Info("upgrade refused", fields(a)...)
	case Prove:
		p.Log.Info("phase proven", fields(a)...)
	case Check:
		if a.Create {
			p.Log.Info("upgrade requested by check", fields(a)...)
			return
		}
		p.Log.Debug("component checked", fields(a)...)
	case Sweep:
	}
}

func fields(a Action) []zap.Field {
	list := []zap.Field{zap.String("type", string(a.Type)), zap.String("verdict", a.Verdict.Code)}
	if a.Upgrade != "" {
		list = append(list, zap.String("upgrade_id", string(a.Upgrade)))
	}
	return list
}
