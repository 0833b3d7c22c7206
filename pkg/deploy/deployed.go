package deploy

import (
	"context"
	"slices"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/unit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// deployed names the instances that a completed deploy has left running, for the proof of the version. An instance that
// runs on several machines is named once for each of them.
func deployed(w *work, listed []runtime.Instance, machines []runtime.Machine) []messages.Deployed {
	hosts := make(map[string]string, len(machines))
	for _, m := range machines {
		hosts[m.ID] = m.Host
	}
	var all []messages.Deployed
	for _, instance := range listed {
		wanted, ok := find(w.Wanted, instance.Definition.Name)
		if !ok {
			continue
		}
		for _, machine := range instance.Machines {
			all = append(all, messages.Deployed{Host: machine, Unit: wanted.Name,
				Hostname: hostname(wanted, hosts[machine]), Applied: w.applied(wanted)})
		}
	}
	return all
}

// hostname is the name under which an instance beats from a machine with this host name; "" if that is not known
// before.
func hostname(d messages.UnitDefinition, host string) string {
	name, err := unit.ParseName(d.Name)
	if err != nil {
		return ""
	}
	return unit.Hostname(name, host, runtime.Options(d))
}

// applied tells whether the order has started an instance anew, in any of its attempts: it gave the instance another
// definition than was found before the first attempt, or it started an instance again that had ended.
func (w *work) applied(wanted messages.UnitDefinition) bool {
	found, had := find(w.Found, wanted.Name)
	return !had || hash(found) != hash(wanted) || slices.Contains(w.Restarted, wanted.Name)
}

// machinesOf are the machines of the cluster. A cluster that does not name them keeps no deploy from being completed:
// their host names are then unknown. An error means that ctx has ended.
func (l *rollout) machinesOf(ctx context.Context) ([]runtime.Machine, error) {
	var all []runtime.Machine
	err := l.engine.insist(ctx, l.job, l.engine.cfg.Patience, func() (err error) {
		all, err = l.rt.Machines(ctx)
		return err
	})
	if err != nil && ctx.Err() == nil {
		l.engine.log.Warn("machines of the cluster are not known", zap.String("order_id", l.job.order.OrderID),
			zap.Error(err))
		return nil, nil
	}
	return all, err
}
