package bench

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// upgrades measures an in-place upgrade of three trivial instances, from the POST to `completed`, against writing the
// three units and stopping and starting them one after the other with nobody looking.
func (b *bench) upgrades(ctx context.Context) error {
	if err := b.stack.LaunchHello(ctx, b.api); err != nil {
		return err
	}
	for _, ref := range []string{"v2", "v3"} {
		if err := b.stack.BuildHello(ctx, ref); err != nil {
			return err
		}
	}
	c, err := stack.FindComponent(ctx, b.api, stack.Hello.Type)
	if err != nil {
		return err
	}
	if err := b.manual(ctx, c); err != nil {
		return err
	}
	plain := &fleet{dir: b.stack.Dir, listen: b.stack.Listen[stack.Hello.Name] + 5}
	if err := plain.start(ctx, b.stack.Binary("v2", stack.Hello)); err != nil {
		return err
	}
	defer plain.stop()
	var ours, bare, ratios []float64
	steps := map[string][]float64{}
	for round := range pairs {
		u, err := b.upgrade(ctx, c, []string{"v2", "v3"}[round%2])
		if err != nil {
			return err
		}
		o := u.FinishedAt.Sub(u.CreatedAt)
		for _, s := range u.Steps {
			steps[s.Name] = append(steps[s.Name], float64(s.MS))
		}
		r, err := plain.replace(ctx, b.stack.Binary([]string{"v3", "v2"}[round%2], stack.Hello))
		if err != nil {
			return err
		}
		ours, bare = append(ours, ms(o)), append(bare, ms(r))
		ratios = append(ratios, float64(o)/float64(r))
	}
	b.line("upgrade of 3 instances, ours", "%8.0f ms   %s", median(ours), spread(ours))
	b.line("upgrade of 3 instances, bare", "%8.0f ms   %s", median(bare), spread(bare))
	b.line("upgrade of 3 instances, ratio", "%8.1f      %s   goal ≤ 10", median(ratios), spread(ratios))
	return b.whereTimeGoes(steps, median(ours))
}

// manual keeps the automatic check away from the component that is measured.
func (b *bench) manual(ctx context.Context, c stack.Component) error {
	return b.api.Do(ctx, "PUT", fmt.Sprintf("/system_components/%d", c.ID), map[string]any{
		"type": stack.Hello.Type, "messaging_exchange_id": b.stack.ExchangeID(), "upgrade_strategy": "manual",
		"deployment_repo": b.stack.DeploymentRepo(stack.Hello), "deployment_repo_git_ref": stack.Deployed}, nil)
}

func (b *bench) upgrade(ctx context.Context, c stack.Component, ref string) (managerapi.Upgrade, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := stack.SetGoldStandard(ctx, b.api, stack.Hello.Type, b.stack.SourceRepo(stack.Hello), ref); err != nil {
		return managerapi.Upgrade{}, err
	}
	u, err := b.api.RequestUpgrade(ctx, managerapi.UpgradeRequest{ComponentID: c.ID})
	for err == nil && u.State.Open() {
		select {
		case <-ctx.Done():
			return u, fmt.Errorf("the upgrade %s is %s: %w", u.ID, u.State, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
		u, err = b.api.Upgrade(ctx, u.ID)
	}
	if err == nil && u.State != upgrade.Completed {
		err = fmt.Errorf("the upgrade %s ended as %s: %s", u.ID, u.State, u.Verdict.Message)
	}
	return u, err
}

// whereTimeGoes prints the executors' own steps; the rest is waiting for messages, commits and judgement.
func (b *bench) whereTimeGoes(steps map[string][]float64, total float64) error {
	rest := total
	var table []messages.Step
	for name, took := range steps {
		sum := 0.0
		for _, ms := range took {
			sum += ms
		}
		each := sum / pairs
		rest -= each
		table = append(table, messages.Step{Name: name, MS: int64(each)})
	}
	slices.SortFunc(table, func(a, b messages.Step) int { return cmp.Compare(b.MS, a.MS) })
	for _, s := range table {
		b.line("  "+s.Name, "%8d ms", s.MS)
	}
	b.line("  messages, commits, judgement", "%8.0f ms", rest)
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
