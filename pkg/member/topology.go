package member

import (
	"time"

	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/rabbit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// Queues are the logical queues that every exchange has.
var Queues = []messages.Queue{
	messages.QueueOverseer, messages.QueueSystemModules, messages.QueueWorkflowOrchestration,
	messages.QueueDeployer, messages.QueueDeployOA,
	messages.QueueBuilder, messages.QueueFleetManager, messages.QueueNotificationsEmail,
	messages.QueueNotificationsHipchat,
}

// Topology is everything that an exchange needs on a broker (docs/messaging.md#topology): the topic exchanges of its
// whole chain, each bound to its parent, and all of its own queues with their dead-letter queues. Services declare it
// idempotently; manager-api does so for every exchange that it serves.
func Topology(ex managerapi.Exchange) rabbit.Topology {
	t := rabbit.Topology{}
	parent := ""
	declare := func(name, routingKey string) {
		e := rabbit.Exchange{Name: name, Parent: parent}
		if parent != "" {
			e.BindKey = messages.BindingKey(routingKey)
		}
		t.Exchanges = append(t.Exchanges, e)
		parent = name
	}
	for i := len(ex.Ancestors) - 1; i >= 0; i-- {
		declare(ex.Ancestors[i].Name, ex.Ancestors[i].RoutingKey)
	}
	declare(ex.Name, ex.RoutingKey)
	address := ex.Address()
	for _, q := range Queues {
		t.Queues = append(t.Queues, queue(address, q))
	}
	return t
}

func queue(a messages.Address, q messages.Queue) rabbit.Queue {
	out := rabbit.Queue{Name: a.QueueName(q), Kind: rabbit.Work, DeliveryLimit: messages.DeliveryLimit,
		BindExchange: a.Name, BindKey: a.Key(q)}
	if q == messages.QueueSystemModules {
		out.Kind, out.DeliveryLimit, out.TTL = rabbit.Beats, 0, messages.SystemModulesTTL*time.Millisecond
	}
	return out
}
