package overseer

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/rabbit"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/overseer/internal/erlang"
)

// Requests is where a request that came over AMQP becomes an Upgrade; *managerapi.Client is one.
type Requests interface {
	// RequestUpgrade makes the component's open upgrade or finds it.
	RequestUpgrade(ctx context.Context, r managerapi.UpgradeRequest) (managerapi.Upgrade, error)
}

// Doorbell handles the overseer queue: every message wakes the pass, and an upgrade request that refers to no Upgrade
// yet makes one first. Force is not read from here: AMQP carries no caller.
type Doorbell struct {
	Requests Requests
	Exchange component.ExchangeID
	Wake     func()
	Log      *zap.Logger
	Metrics  *Metrics
}

// Handle is a rabbit.Consumer's handler.
func (b *Doorbell) Handle(ctx context.Context, d *rabbit.Delivery) error {
	body, err := erlang.JSON(d.Body) // modules of the predecessor publish so
	if err != nil {
		b.count("invalid", "rejected")
		return rabbit.Reject(err)
	}
	m, known, err := messages.DecodeOverseerMessage(body)
	if err != nil {
		b.count("invalid", "rejected")
		return rabbit.Reject(err)
	}
	if !known {
		b.count("unknown", "ignored")
		return nil
	}
	if m.Action == messages.ActionUpgradeRequest && m.Options.RequestID == "" {
		if err := b.request(ctx, m.Options); err != nil {
			b.count(m.Action, fault.KindOf(err).String())
			return err
		}
	}
	b.count(m.Action, "ok")
	b.Wake()
	return nil
}

// request makes the upgrade. A repeat finds it open. While manager-api is away the message is kept; what it refuses for
// good is dead-lettered, where somebody can see it.
func (b *Doorbell) request(ctx context.Context, o messages.OverseerOptions) error {
	r := managerapi.UpgradeRequest{Trigger: upgrade.TriggerRequest, RequestedBy: o.RequestedBy, Reason: o.Reason,
		Quiet: true}
	if o.ComponentID != 0 {
		r.ComponentID = component.ID(o.ComponentID)
	} else {
		r.ExchangeID, r.ComponentType = b.Exchange, component.Type(o.ComponentType)
	}
	u, err := b.Requests.RequestUpgrade(ctx, r)
	switch {
	case err == nil:
		b.Log.Info("upgrade requested by message", append(boot.TraceFields(ctx), zap.String("type", o.ComponentType),
			zap.String("upgrade_id", string(u.ID)))...)
		return nil
	case fault.Is(err, fault.Conflict):
		return nil // one is open already, or another request was quicker
	case fault.Is(err, fault.NotFound), fault.Is(err, fault.Invalid):
		return rabbit.Reject(fmt.Errorf("request upgrade of %s: %w", o.ComponentType, err))
	default:
		return rabbit.Hold(fmt.Errorf("request upgrade of %s: %w", o.ComponentType, err))
	}
}

func (b *Doorbell) count(action, result string) {
	b.Metrics.doorbells.WithLabelValues(action, result).Inc()
}
