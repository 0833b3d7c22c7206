package member

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/component"
)

// Learner is what learns of the failover broker, for specs that ask it step by step.
func Learner(api failovers, exchange component.ExchangeID, broker standby,
	now func() time.Time) func(context.Context) error {
	return (&failover{api: api, exchange: exchange, broker: broker, now: now, log: zap.NewNop()}).learn
}
