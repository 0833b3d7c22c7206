// Package routing decides over brokers: which one serves an exchange, whose the queues on a broker are, whether the
// messages on their way survive a change, and when messages take a broker's failover. It is pure.
package routing

import (
	"fmt"
	"slices"

	"github.com/openaperture/openaperture/pkg/component"
)

// Own is manager-api's own broker, which no row describes.
const Own int64 = 0

// Address is under which names an exchange is declared on its brokers.
type Address struct{ Name, Root, RoutingKey string }

// Exchange is an exchange with what decides where its queues are.
type Exchange struct {
	ID           component.ExchangeID
	Name         string
	Home         bool      // manager-api itself belongs to it
	Queues       string    // what the names of its queues begin with, on every broker
	Chain        []Address // its own address, and those of the exchanges above it up to the root
	RestrictedTo []int64   // registered brokers, the oldest restriction first
}

// Broker is the broker that serves the exchange: the oldest restriction counts. manager-api's own broker serves an
// exchange without restrictions, and always the home exchange.
func (e Exchange) Broker() int64 {
	if e.Home || len(e.RestrictedTo) == 0 {
		return Own
	}
	return e.RestrictedTo[0]
}

// Failovers are the brokers that have a failover, each with the broker that stands in.
type Failovers map[int64]int64

// Reach lists the brokers that may hold queues of the exchange, the lowest first: the broker that serves the exchange,
// all brokers that it is restricted to, and what these fail over to.
func (f Failovers) Reach(e Exchange) []int64 {
	reach := []int64{e.Broker()}
	for _, b := range e.RestrictedTo {
		reach = append(reach, b)
		if next, has := f[b]; has {
			reach = append(reach, next)
		}
	}
	slices.Sort(reach)
	return slices.Compact(reach)
}

// Arrangement is all exchanges, by id, and the failovers of all brokers.
type Arrangement struct {
	Exchanges []Exchange
	Failovers Failovers
}

// Sharing is two exchanges whose queues on a broker have the same names. The heartbeats of the one would prove versions
// of the other.
type Sharing struct {
	One, Other Exchange // the one with the lower id first
	Broker     int64
}

// String says what to do about it.
func (s Sharing) String() string {
	broker := "manager-api's own broker"
	if s.Broker != Own {
		broker = fmt.Sprintf("broker %d", s.Broker)
	}
	return fmt.Sprintf("MessagingExchange %d (%s) and MessagingExchange %d (%s) would share the queues %s.* on %s: give "+
		"one of them, or one above it, another routing_key_fragment, or restrict them to different brokers",
		s.One.ID, s.One.Name, s.Other.ID, s.Other.Name, s.One.Queues, broker)
}

// pair is two exchanges, the lower id first.
type pair [2]component.ExchangeID

func (s Sharing) pair() pair { return pair{s.One.ID, s.Other.ID} }

// NewlyShared finds two exchanges that share queues after a change and did not before. ok is false if there are none.
// Exchanges that shared queues before this was refused stay changeable.
func NewlyShared(before, after Arrangement) (s Sharing, ok bool) {
	known := map[pair]bool{}
	for _, s := range before.sharings() {
		known[s.pair()] = true
	}
	for _, s := range after.sharings() {
		if !known[s.pair()] {
			return s, true
		}
	}
	return Sharing{}, false
}

func (a Arrangement) sharings() []Sharing {
	type queues struct {
		prefix string
		broker int64
	}
	users := map[queues][]Exchange{}
	var found []Sharing
	for _, e := range a.Exchanges {
		for _, broker := range a.Failovers.Reach(e) {
			at := queues{e.Queues, broker}
			for _, earlier := range users[at] {
				found = append(found, Sharing{earlier, e, broker})
			}
			users[at] = append(users[at], e)
		}
	}
	return found
}

// Cut lists the exchanges whose messages on their way would be lost by a change: they have another address, or orders
// go to another broker, or results on the failover are not read any more. An exchange that is gone has no messages. A
// failover that is added takes nothing away.
func Cut(before, after Arrangement) []component.ExchangeID {
	next := map[component.ExchangeID]Exchange{}
	for _, e := range after.Exchanges {
		next[e.ID] = e
	}
	var cut []component.ExchangeID
	for _, e := range before.Exchanges {
		n, there := next[e.ID]
		failover, had := before.Failovers[e.Broker()]
		stays := n.Broker() == e.Broker() && slices.Equal(n.Chain, e.Chain) &&
			(!had || after.Failovers[n.Broker()] == failover)
		if there && !stays {
			cut = append(cut, e.ID)
		}
	}
	return cut
}
