package unit_test

import (
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/unit"
)

// placeables takes units as "name Key=Value; Key=Value".
func placeables(texts ...string) []unit.Placeable {
	var list []unit.Placeable
	for _, text := range texts {
		name, rest, _ := strings.Cut(text, " ")
		parsed, err := unit.ParseName(name)
		Expect(err).NotTo(HaveOccurred())
		var options []unit.Option
		for field := range strings.SplitSeq(rest, "; ") {
			if key, value, ok := strings.Cut(field, "="); ok {
				options = append(options, unit.Option{Section: "X-Fleet", Name: key, Value: value})
			}
		}
		list = append(list, unit.NewPlaceable(parsed, options))
	}
	return list
}

// tenants takes units as "machine name Key=Value; Key=Value".
func tenants(texts ...string) []unit.Tenant {
	var list []unit.Tenant
	for _, text := range texts {
		machine, rest, _ := strings.Cut(text, " ")
		list = append(list, unit.Tenant{Placeable: placeables(rest)[0], Machines: []string{machine}})
	}
	return list
}

func apps(count int, options string) []unit.Placeable {
	var texts []string
	for i := range count {
		texts = append(texts, fmt.Sprintf("app@%d.service %s", i+1, options))
	}
	return placeables(texts...)
}

var _ = Describe("Units that no machine takes", func() {
	app := unit.Machine{ID: "m1", Metadata: map[string]string{"role": "app", "zone": "a"}}
	db := unit.Machine{ID: "m2", Metadata: map[string]string{"role": "db"}}
	bare := unit.Machine{ID: "m3"}
	all := []unit.Machine{app, db, bare}

	DescribeTable("are named with what they demand and what the machines offer",
		func(machines []unit.Machine, others []unit.Tenant, wanted []unit.Placeable, sentence string) {
			Expect(unit.Unplaced(machines, others, wanted)).To(Equal(sentence))
		},
		Entry("no demand", all, nil, apps(9, ""), ""),
		Entry("nothing wanted", nil, nil, nil, ""),
		Entry("no machine", nil, nil, apps(1, ""), "app@1.service cannot be placed: the cluster has no machine"),
		Entry("metadata that a machine has", all, nil, apps(2, "MachineMetadata=role=app"), ""),
		Entry("metadata of which a machine has one value", all, nil,
			apps(1, "MachineMetadata=role=web; MachineMetadata=role=db"), ""),
		Entry("metadata that no machine has", all, nil, apps(2, "MachineMetadata=role=web"),
			"app@1.service cannot be placed: it demands MachineMetadata=role=web. Machine m1 offers role=app, zone=a. "+
				"Machine m2 offers role=db. Machine m3 offers no metadata"),
		Entry("metadata of which no machine has both", all, nil, apps(1, "MachineMetadata=role=db; MachineMetadata=zone=a"),
			"app@1.service cannot be placed: it demands MachineMetadata=role=db, MachineMetadata=zone=a. "+
				"Machine m1 offers role=app, zone=a. Machine m2 offers role=db. Machine m3 offers no metadata"),
		Entry("an old name of the key", all, nil, apps(1, "X-ConditionMachineMetadata=role=web"),
			"app@1.service cannot be placed: it demands MachineMetadata=role=web. Machine m1 offers role=app, zone=a. "+
				"Machine m2 offers role=db. Machine m3 offers no metadata"),
		Entry("metadata of the instance's own number", all, nil, apps(1, "MachineMetadata=rank=%i"),
			"app@1.service cannot be placed: it demands MachineMetadata=rank=1. Machine m1 offers role=app, zone=a. "+
				"Machine m2 offers role=db. Machine m3 offers no metadata"),
		Entry("a machine that is there", all, nil, apps(1, "MachineID=m3"), ""),
		Entry("a machine that is not there", []unit.Machine{db}, nil, apps(1, "MachineID=m9"),
			"app@1.service cannot be placed: it demands MachineID=m9. Machine m2 offers role=db"),
		Entry("a peer that runs", all, tenants("m2 side.service"), apps(1, "MachineOf=side.service"), ""),
		Entry("a peer that is wanted too", all, nil, placeables("a.service MachineOf=b.service", "b.service"), ""),
		Entry("a peer that is nowhere", []unit.Machine{app, db}, nil, apps(1, "MachineOf=side.service"),
			"app@1.service cannot be placed: it demands MachineOf=side.service. Machine m1 does not run side.service. "+
				"Machine m2 does not run side.service"),
		Entry("a peer on a machine that lacks something else", []unit.Machine{app, db}, tenants("m2 side.service"),
			apps(1, "MachineOf=side.service; MachineMetadata=role=app"),
			"app@1.service cannot be placed: it demands MachineOf=side.service, MachineMetadata=role=app. "+
				"Machine m1 does not run side.service. Machine m2 offers role=db"),
		Entry("a wanted peer on a machine that lacks something else", []unit.Machine{app, db}, nil,
			placeables("a.service MachineOf=b.service; MachineID=m1", "b.service MachineID=m2"),
			"a.service cannot be placed: it demands MachineOf=b.service, MachineID=m1. Machine m1 does not run b.service. "+
				"Machine m2 offers role=db"),
		Entry("a conflict on one machine", []unit.Machine{app, db}, tenants("m1 x.service"), apps(1, "Conflicts=x.service"),
			""),
		Entry("a conflict on the only machine", []unit.Machine{app}, tenants("m1 x.service"), apps(1, "Conflicts=x.*"),
			"app@1.service cannot be placed: it demands Conflicts=x.*. Machine m1 runs x.service, which excludes it"),
		Entry("a conflict that the other unit states", []unit.Machine{app}, tenants("m1 x.service Conflicts=app@*"),
			apps(1, ""),
			"app@1.service cannot be placed: it demands nothing. Machine m1 runs x.service, which excludes it"),
		Entry("a conflict with a unit that has no place", []unit.Machine{app}, tenants("m7 x.service"),
			apps(1, "Conflicts=x.*"), ""),
		Entry("as many as machines, which exclude each other", all, nil, apps(3, "Conflicts=%p@*"), ""),
		Entry("more than machines, which exclude each other", all, nil, apps(4, "Conflicts=%p@*"),
			"app@4.service cannot be placed: it demands Conflicts=app@*. This deploy has 4 units that exclude each "+
				"other; machines that may run them: 3"),
		Entry("more than the machines that fit", all, nil, apps(2, "Conflicts=%p@*; MachineMetadata=role=db"),
			"app@2.service cannot be placed: it demands Conflicts=app@*, MachineMetadata=role=db. This deploy has 2 units "+
				"that exclude each other; machines that may run them: 1"),
		Entry("units that must make room for each other", all, nil,
			placeables("a.service Conflicts=*", "b.service MachineID=m1", "c.service Conflicts=*; MachineMetadata=role=db"), ""),
		Entry("two templates, each one a machine", []unit.Machine{app, db}, nil,
			append(apps(2, "Conflicts=%p@*"), placeables("web@1.service Conflicts=%p@*", "web@2.service Conflicts=%p@*")...),
			""),
		Entry("many machines",
			append([]unit.Machine{app, db, bare}, []unit.Machine{{ID: "m4"}, {ID: "m5"}, {ID: "m6"}, {ID: "m7"}}...), nil,
			apps(1, "MachineMetadata=role=web"),
			"app@1.service cannot be placed: it demands MachineMetadata=role=web. Machine m1 offers role=app, zone=a. "+
				"Machine m2 offers role=db. Machine m3 offers no metadata. Machine m4 offers no metadata. "+
				"Machine m5 offers no metadata. 2 machines more are alike"),
	)

	It("are found at once among hundreds", func() {
		machines := make([]unit.Machine, 299)
		for i := range machines {
			machines[i].ID = fmt.Sprint(i)
		}
		Expect(unit.Unplaced(machines, nil,
			apps(300, "Conflicts=app@*"))).To(HavePrefix("app@300.service cannot be placed"))
		half := append(apps(150, "Conflicts=app@*"), placeables("x.service")...)
		Expect(unit.Unplaced(machines, nil, half)).To(BeEmpty())
	})
})
