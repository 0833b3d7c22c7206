package routing_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/routing"
)

// exchange is an exchange whose queues begin with a prefix, restricted to some brokers.
func exchange(id component.ExchangeID, queues string, brokers ...int64) routing.Exchange {
	return routing.Exchange{ID: id, Name: queues + "-name", Queues: queues,
		Chain: []routing.Address{{Name: queues, Root: "root", RoutingKey: queues}}, RestrictedTo: brokers}
}

func home(e routing.Exchange) routing.Exchange { e.Home = true; return e }

func all(f routing.Failovers, exchanges ...routing.Exchange) routing.Arrangement {
	return routing.Arrangement{Exchanges: exchanges, Failovers: f}
}

var _ = Describe("The brokers of an exchange", func() {
	failovers := routing.Failovers{7: 9, 8: 7}
	DescribeTable("are",
		func(e routing.Exchange, serves int64, reach ...int64) {
			Expect(e.Broker()).To(Equal(serves))
			Expect(failovers.Reach(e)).To(Equal(reach))
		},
		Entry("without restrictions manager-api's own", exchange(1, "a"), routing.Own, routing.Own),
		Entry("the one that it is restricted to, with its failover", exchange(1, "a", 7), int64(7), int64(7), int64(9)),
		Entry("of several the oldest restriction, whatever its id, and the queues may be on all",
			exchange(1, "a", 8, 3), int64(8), int64(3), int64(7), int64(8)),
		Entry("a broker that stands in and is a restriction too, once", exchange(1, "a", 8, 7), int64(8), int64(7), int64(8),
			int64(9)),
		Entry("of the home exchange manager-api's own, whatever it is restricted to", home(exchange(1, "a", 7)),
			routing.Own, routing.Own, int64(7), int64(9)),
	)
})

var _ = Describe("A change after which two exchanges share queues", func() {
	DescribeTable("is found",
		func(want string, before, after routing.Arrangement) {
			s, ok := routing.NewlyShared(before, after)
			Expect(ok).To(Equal(want != ""))
			if ok {
				Expect(s.String()).To(ContainSubstring(want))
			}
		},
		Entry("not if the prefixes differ", "", all(nil, exchange(1, "a")), all(nil, exchange(1, "a"), exchange(2, "b"))),
		Entry("on manager-api's own broker", "(a-name) and MessagingExchange 2 (a-name) would share the queues a.* on "+
			"manager-api's own broker: give one of them", all(nil, exchange(1, "a")),
			all(nil, exchange(1, "a"), exchange(2, "a"))),
		Entry("on a registered broker", "the queues a.* on broker 7:", all(nil, exchange(1, "a", 7), exchange(2, "a")),
			all(nil, exchange(1, "a", 7), exchange(2, "a", 7))),
		Entry("not on different brokers", "", all(nil, exchange(1, "a", 7)),
			all(nil, exchange(1, "a", 7), exchange(2, "a", 8), exchange(3, "a"))),
		Entry("on a broker that a failover was set to", "the queues a.* on broker 8:",
			all(nil, exchange(1, "a", 7), exchange(2, "a", 8)),
			all(routing.Failovers{7: 8}, exchange(1, "a", 7), exchange(2, "a", 8))),
		Entry("with the home exchange, which keeps its queues on manager-api's own", "MessagingExchange 2",
			all(nil, home(exchange(1, "a", 7)), exchange(2, "a", 8)), all(nil, home(exchange(1, "a", 7)), exchange(2, "a"))),
		Entry("not if they shared before: such rows stay changeable", "",
			all(nil, exchange(1, "a"), exchange(2, "a")), all(nil, exchange(1, "b", 7), exchange(2, "b", 7))),
		Entry("if a third one joins them", "MessagingExchange 3",
			all(nil, exchange(1, "a"), exchange(2, "a")), all(nil, exchange(1, "a"), exchange(2, "a"), exchange(3, "a"))),
	)
})

var _ = Describe("A change by which messages on their way are lost", func() {
	moved := exchange(1, "a", 7)
	moved.Chain = []routing.Address{{Name: "a", Root: "root", RoutingKey: "a.b"}}
	below := exchange(1, "a", 7)
	below.Chain = append(below.Chain, routing.Address{Name: "parent", Root: "root", RoutingKey: "p"})
	DescribeTable("concerns",
		func(want []component.ExchangeID, before, after routing.Arrangement) {
			Expect(routing.Cut(before, after)).To(Equal(want))
		},
		Entry("nobody, if nothing changes", nil, all(routing.Failovers{7: 8}, exchange(1, "a", 7)),
			all(routing.Failovers{7: 8}, exchange(1, "a", 7))),
		Entry("an exchange with another address", []component.ExchangeID{1}, all(nil, exchange(1, "a", 7), exchange(2, "b")),
			all(nil, moved, exchange(2, "b"))),
		Entry("an exchange with another one above it", []component.ExchangeID{1}, all(nil, exchange(1, "a", 7)),
			all(nil, below)),
		Entry("an exchange on another broker", []component.ExchangeID{1}, all(nil, exchange(1, "a", 7)),
			all(nil, exchange(1, "a", 8))),
		Entry("an exchange that is restricted for the first time", []component.ExchangeID{1}, all(nil, exchange(1, "a")),
			all(nil, exchange(1, "a", 8))),
		Entry("not the home exchange, which stays where it is", nil, all(nil, home(exchange(1, "a"))),
			all(nil, home(exchange(1, "a", 8)))),
		Entry("not an exchange with one restriction more", nil, all(nil, exchange(1, "a", 7)),
			all(nil, exchange(1, "a", 7, 8))),
		Entry("an exchange that loses its failover", []component.ExchangeID{1},
			all(routing.Failovers{7: 8}, exchange(1, "a", 7)), all(nil, exchange(1, "a", 7))),
		Entry("an exchange that gets another failover", []component.ExchangeID{1},
			all(routing.Failovers{7: 8}, exchange(1, "a", 7)), all(routing.Failovers{7: 9}, exchange(1, "a", 7))),
		Entry("not an exchange that gets its first failover", nil, all(nil, exchange(1, "a", 7)),
			all(routing.Failovers{7: 8}, exchange(1, "a", 7))),
		Entry("not an exchange that is gone", nil, all(nil, exchange(1, "a", 7)), all(nil)),
	)
})
