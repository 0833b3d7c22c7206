package deploy_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/deploy"
	messages "github.com/openaperture/openaperture/proto-messages"
)

var _ = Describe("Orders in line", func() {
	DescribeTable("have their turn",
		func(room int, want []string, places ...string) {
			Expect(deploy.Turns(room, places...)).To(Equal(want))
		},
		Entry("nobody", 4, []string{}),
		Entry("one", 4, []string{"a"}, "a waiting x"),
		Entry("several that share nothing", 4, []string{"a", "b"}, "a waiting x", "b waiting y"),
		Entry("as many as there is room", 2, []string{"a", "b"}, "a waiting x", "b waiting y", "c waiting z"),
		Entry("beside those in hand", 2, []string{"b"}, "a inhand x", "b waiting y", "c waiting z"),
		Entry("not without room", 1, []string{}, "a inhand x", "b waiting y"),
		Entry("not while one with the same key is in hand", 4, []string{}, "a inhand x", "b waiting x"),
		Entry("the first of those that share a key", 4, []string{"a"}, "a waiting x", "b waiting x", "c waiting x"),
		Entry("also past one that waits", 4, []string{"c"}, "a inhand x", "b waiting x", "c waiting y"),
		Entry("in order, also where only the second key is shared", 4, []string{"d"},
			"a inhand x,k", "b waiting y,k", "c waiting y", "d waiting z"),
		Entry("without keys, side by side", 4, []string{"a", "b"}, "a waiting", "b waiting"),
		Entry("not before it is known that they are ours", 4, []string{"b"}, "a claiming", "b waiting x"),
		Entry("beside a probe", 1, []string{"b"}, "a probing", "b waiting x"),
		Entry("without room, if they need none", 1, []string{"b"}, "a inhand x", "b waiting* r", "c waiting y"),
		Entry("one at a time of those that need no room", 1, []string{"d"}, "a inhand x", "b inhand* r", "c waiting* r",
			"d waiting* q"),
		Entry("beside one that needs no room", 1, []string{"b"}, "a inhand* r", "b waiting x"),
	)

	It("are told apart by their component, and by the base names of all units that they are about", func() {
		Expect(deploy.KeysOf(messages.Order{ComponentType: "builder", LeavingUnits: []string{"old.service", "app@.service"},
			DeployableUnits: []messages.UnitDefinition{{Name: "app@.service"}, {Name: "worker@.service"}}})).
			To(Equal([]string{"component builder", "unit app", "unit worker", "unit old"}))
		Expect(deploy.KeysOf(messages.Order{})).To(BeEmpty())
		Expect(deploy.KeysOf(messages.Order{ComponentType: "builder",
			CurrentStep: messages.MilestoneResolve})).To(Equal([]string{"resolve"}))
	})
})
