package member

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/rabbit"
)

const (
	failoverEvery  = time.Minute     // between two questions for the exchange's failover broker
	failoverReread = 5 * time.Minute // between two reads of its addresses: each is journalled
)

// failovers is manager-api as failover needs it; *managerapi.Client is one.
type failovers interface {
	Exchange(ctx context.Context, id component.ExchangeID) (managerapi.Exchange, error)
	BrokerConnections(ctx context.Context, broker int64) ([]managerapi.BrokerConnection, error)
}

// standby is the failover broker of a member; *rabbit.Pair is one.
type standby interface {
	SetFailover(urls []string) error
	Failover() error
}

// failover learns from manager-api which broker the exchange fails over to, and under which addresses. What it has
// learned stays while manager-api is away. A service that starts while manager-api is away has no failover yet.
type failover struct {
	api      failovers
	exchange component.ExchangeID
	broker   standby
	log      *zap.Logger
	now      func() time.Time

	known  *int64    // id of the failover broker, nil without one
	readAt time.Time // when its addresses were read last
}

// Run asks until ctx ends.
func (f *failover) Run(ctx context.Context) error {
	return loop.Loop{Interval: failoverEvery, Do: f.learn,
		OnError: func(err error) { f.log.Warn("failover broker not learned", zap.Error(err)) }}.Run(ctx)
}

// learn asks once. The addresses are read when the failover is another one than before, and now and then while it
// cannot be used: the address or the password may have changed.
func (f *failover) learn(ctx context.Context) error {
	exchange, err := f.api.Exchange(ctx, f.exchange)
	if err != nil {
		return err
	}
	id := exchange.FailoverBrokerID
	if id == nil {
		if f.known != nil {
			f.log.Info("exchange has no failover broker any more", zap.Int64("failover_broker_id", *f.known))
		}
		f.known = nil
		return f.broker.SetFailover(nil)
	}
	same := f.known != nil && *f.known == *id
	if same && (f.broker.Failover() == nil || f.now().Sub(f.readAt) < failoverReread) {
		return nil
	}
	f.readAt = f.now()
	connections, err := f.api.BrokerConnections(ctx, *id)
	if err != nil {
		return err
	}
	if err := f.broker.SetFailover(urlsOf(connections)); err != nil {
		return fmt.Errorf("broker %d: %w", *id, err)
	}
	if f.known = id; !same {
		f.log.Info("failover broker of the exchange is known", zap.Int64("failover_broker_id", *id),
			zap.Int("addresses", len(connections)))
	}
	return nil
}

func urlsOf(connections []managerapi.BrokerConnection) []string {
	urls := make([]string, len(connections))
	for i, c := range connections {
		port := 0
		if c.Port != nil {
			port = *c.Port
		}
		urls[i] = rabbit.NewAddress(c.Host, port, c.Username, c.Password.Reveal(), c.VirtualHost).URL()
	}
	return urls
}
