package messages

import "strings"

// Queue is a logical queue name: the last part of a routing key.
type Queue string

// The logical queues (docs/messaging.md#topology).
const (
	QueueOverseer              Queue = "overseer"
	QueueSystemModules         Queue = "system_modules"
	QueueWorkflowOrchestration Queue = "workflow_orchestration"
	QueueDeployer              Queue = "deployer"
	QueueDeployOA              Queue = "deploy_oa"
	QueueBuilder               Queue = "builder"
	QueueFleetManager          Queue = "fleet_manager"
	QueueNotificationsEmail    Queue = "notifications_email"
	QueueNotificationsHipchat  Queue = "notifications_hipchat"
)

// SystemModulesTTL is the lifetime in milliseconds of a heartbeat in its queue: two beats,
// so that a backlog never revives the dead.
const SystemModulesTTL = 60_000

// DeliveryLimit is how often a work queue hands out one message before it is dead-lettered.
const DeliveryLimit = 20

// Address says how one MessagingExchange is reached: the root of its hierarchy and its own place in it.
type Address struct {
	Name       string // name of the MessagingExchange itself
	Root       string // name of its topmost ancestor, itself without parents
	RoutingKey string // fragments from the root joined with '.', may be empty
}

// Key is the routing key under which a queue of the exchange is bound, e.g. "aws.us-east-1.overseer".
func (a Address) Key(q Queue) string {
	if a.RoutingKey == "" {
		return string(q)
	}
	return a.RoutingKey + "." + string(q)
}

// QueueName is the name of a queue of the exchange, e.g. "aws:us-east-1.overseer".
func (a Address) QueueName(q Queue) string { return a.QueuePrefix() + "." + string(q) }

// QueuePrefix is what the names of all queues of the exchange begin with, before a dot. An exchange whose whole key is
// empty uses its name. The root is no part of it: on one broker no two exchanges may have the same prefix.
func (a Address) QueuePrefix() string {
	if a.RoutingKey == "" {
		return a.Name
	}
	return strings.ReplaceAll(a.RoutingKey, ".", ":")
}

// BindingKey binds a child exchange to its parent: everything under the child's routing key.
func BindingKey(childRoutingKey string) string {
	if childRoutingKey == "" {
		return "#"
	}
	return childRoutingKey + ".#"
}

// JoinFragments computes a routing key from the fragments of an exchange and its ancestors,
// root first. Empty fragments add no dot.
func JoinFragments(fragments ...string) string {
	kept := make([]string, 0, len(fragments))
	for _, f := range fragments {
		if f != "" {
			kept = append(kept, f)
		}
	}
	return strings.Join(kept, ".")
}
