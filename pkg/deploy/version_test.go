package deploy_test

import (
	"context"
	"fmt"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/blame"
	"github.com/openaperture/openaperture/pkg/deploy/failure"
	"github.com/openaperture/openaperture/pkg/roll"
	"github.com/openaperture/openaperture/pkg/unit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// current is the unit of a service whose text says nothing of its version.
func current() messages.UnitDefinition {
	d := unitOf("current")
	d.Options = append(d.Options, messages.Option{Section: "Service", Name: "Environment",
		Value: "HOSTNAME=%H.overseer-%i"})
	return d
}

// to deploys that unit at a version.
func to(ref, commit string, change ...func(*messages.Order)) func(*messages.Order) {
	return func(o *messages.Order) {
		o.SourceRepoGitRef, o.SourceCommitHash, o.DeployableUnits = ref, commit, []messages.UnitDefinition{current()}
		for _, f := range change {
			f(o)
		}
	}
}

func recorded(ref, commit string) func(*messages.Order) {
	return func(o *messages.Order) {
		o.Recorded = &messages.Version{SourceRepoGitRef: ref, SourceCommitHash: commit}
	}
}

// unstampedRun has n instances running whose definitions were applied by a former release.
func (s *site) unstampedRun(n int) {
	for i := 1; i <= n; i++ {
		d := current()
		d.Name = fmt.Sprintf("overseer@%d.service", i)
		Expect(s.cluster.Apply(context.Background(), d, 0, false)).To(Succeed())
	}
}

// runsVersions lists the versions that the definitions of what runs carry, as "1:v1/c1".
func (s *site) runsVersions() []string {
	all, err := s.cluster.List(context.Background(), []string{"overseer"})
	Expect(err).NotTo(HaveOccurred())
	var list []string
	for _, i := range all {
		options := make([]unit.Option, len(i.Definition.Options))
		for j, o := range i.Definition.Options {
			options[j] = unit.Option(o)
		}
		v, _ := unit.VersionOf(options)
		list = append(list, fmt.Sprintf("%s:%s/%s",
			i.Definition.Name[len("overseer@"):len(i.Definition.Name)-len(".service")], v.Ref, v.Commit))
	}
	return list
}

var _ = Describe("Versions whose units have the same text", func() {
	// deploys performs one deploy and says which instances were started, as "1".
	deploys := func(s *site, change ...func(*messages.Order)) (started []string, r messages.Result) {
		GinkgoHelper()
		before := len(s.cluster.Starts())
		r = s.result(s.put(change...))
		Eventually(s.workFiles).Should(BeEmpty())
		for _, start := range s.cluster.Starts()[before:] {
			started = append(started, start[len("overseer@"):][:1])
		}
		return started, r
	}
	all, none := []string{"1", "2", "3"}, []string(nil)

	DescribeTable("are told apart: the next deploy",
		func(first, next func(*messages.Order), want, carry []string) {
			s := newSite()
			s.start()
			deploys(s, first)
			started, r := deploys(s, next)
			Expect(r.EventType).To(Equal(messages.EventMilestoneCompleted), r.Message)
			Expect(started).To(Equal(want))
			Expect(s.runsVersions()).To(Equal(carry))
		},
		Entry("of another ref starts every instance anew", to("v1", "c1"), to("v2", "c2"), all,
			[]string{"1:v2/c2", "2:v2/c2", "3:v2/c2"}),
		Entry("of another ref at the same commit too", to("v1", "c1"), to("v2", "c1"), all,
			[]string{"1:v2/c1", "2:v2/c1", "3:v2/c1"}),
		Entry("of another commit of the same ref too", to("main", "c1"), to("main", "c2"), all,
			[]string{"1:main/c2", "2:main/c2", "3:main/c2"}),
		Entry("of the same version leaves all alone (D14)", to("v1", "c1"), to("v1", "c1"), none,
			[]string{"1:v1/c1", "2:v1/c1", "3:v1/c1"}),
		Entry("of the same version leaves all alone, though another one is recorded", to("v1", "c1"),
			to("v1", "c1", recorded("v0", "")), none,
			[]string{"1:v1/c1", "2:v1/c1", "3:v1/c1"}),
		Entry("of the same ref at a commit that is not known leaves all alone", to("v1", "c1"), to("v1", ""), none,
			[]string{"1:v1/c1", "2:v1/c1", "3:v1/c1"}),
		Entry("without a version goes by the text", to("v1", "c1"), to("", ""), none,
			[]string{"1:v1/c1", "2:v1/c1", "3:v1/c1"}),
	)

	DescribeTable("and definitions of a former release, which carry none, count as the recorded version: a deploy",
		func(next func(*messages.Order), want, carry []string) {
			s := newSite()
			s.unstampedRun(3)
			s.start()
			started, r := deploys(s, next)
			Expect(r.EventType).To(Equal(messages.EventMilestoneCompleted), r.Message)
			Expect(started).To(Equal(want))
			Expect(s.runsVersions()).To(Equal(carry))
		},
		Entry("of another version starts every instance anew", to("v2", "c2", recorded("v1", "c1")), all,
			[]string{"1:v2/c2", "2:v2/c2", "3:v2/c2"}),
		Entry("of the recorded one, as a repair, leaves all alone", to("v1", "c1", recorded("v1", "c1")), none,
			[]string{"1:/", "2:/", "3:/"}),
		Entry("of the recorded one, whose commit nobody knows, leaves all alone", to("v1", "c1", recorded("v1", "")), none,
			[]string{"1:/", "2:/", "3:/"}),
		Entry("starts every instance anew where no version is recorded", to("v1", "c1"), all,
			[]string{"1:v1/c1", "2:v1/c1", "3:v1/c1"}),
		Entry("without a version goes by the text", to("", ""), none, []string{"1:/", "2:/", "3:/"}),
	)

	It("get back what was found as it was found, and the next try of the recorded one has nothing to do", func() {
		s := newSite()
		s.unstampedRun(3)
		bad := true
		s.cluster.Health = func(d messages.UnitDefinition) roll.Health {
			if bad && slices.Contains(d.Options, messages.Option{Section: "X-OpenAperture", Name: "Version", Value: "v2"}) {
				return roll.Starting
			}
			return roll.Healthy
		}
		s.start()
		started, r := deploys(s, to("v2", "c2", recorded("v1", "c1"), impatient))
		Expect(reasons(r)).To(Equal(failed(blame.DeployUnhealthy)))
		Expect(r.Restored).To(BeTrue())
		Expect(started).To(Equal([]string{"1", "1"}))
		Expect(s.runsVersions()).To(Equal([]string{"1:/", "2:/", "3:/"}))
		started, r = deploys(s, to("v1", "c1", recorded("v1", "c1")))
		Expect(r.EventType).To(Equal(messages.EventMilestoneCompleted))
		Expect(started).To(BeEmpty(), "a rollback to what runs already")
	})

	It("are not told apart in what was replaced: a release carries no version", func() {
		s := newSite()
		s.start()
		deploys(s, to("v1", "c1"))
		_, r := deploys(s, to("v2", "c2"))
		Expect(r.Replaced).To(HaveLen(1))
		Expect(r.Replaced[0].Options).To(Equal(current().Options))
	})

	It("are refused where they could not be written into a unit", func() {
		s := newSite()
		s.start()
		_, r := deploys(s, to("v1\nExecStart=/bin/evil", ""))
		Expect(reasons(r)).To(Equal(failed(failure.UnitInvalid)))
	})

	Describe("name their instances when they are deployed", func() {
		instance := func(n int, applied bool) messages.Deployed {
			return messages.Deployed{Host: fmt.Sprintf("m%d", n), Unit: fmt.Sprintf("overseer@%d.service", n),
				Hostname: fmt.Sprintf("box%d.overseer-%d", n, n), Applied: applied}
		}

		It("with host, unit, the name under which each will beat, and whether it was started anew", func() {
			s := newSite()
			s.cluster.Hosts = 3
			s.start()
			_, r := deploys(s, to("v1", "c1"))
			Expect(r.Deployed).To(Equal([]messages.Deployed{instance(1, true), instance(2, true), instance(3, true)}))
			_, r = deploys(s, to("v1", "c1"))
			Expect(r.Deployed).To(Equal([]messages.Deployed{instance(1, false), instance(2, false), instance(3, false)}))
		})

		It("without those that were removed, nor failures", func() {
			s := newSite()
			s.running("old", 5)
			s.start()
			_, r := deploys(s, to("v1", "c1"))
			Expect(r.Deployed).To(HaveLen(3))
			s.cluster.Health = func(messages.UnitDefinition) roll.Health { return roll.Starting }
			_, r = deploys(s, to("v2", "c2", impatient))
			Expect(r.Deployed).To(BeEmpty())
		})

		It("also one that had ended and was started again with the definition that it had", func() {
			s := newSite()
			s.start()
			deploys(s, to("v1", "c1"))
			ended := true
			s.applied = func() { ended = false }
			s.cluster.Health = func(d messages.UnitDefinition) roll.Health {
				if ended && d.Name == "overseer@2.service" {
					return roll.Down
				}
				return roll.Healthy
			}
			started, r := deploys(s, to("v1", "c1"))
			Expect(started).To(Equal([]string{"2"}))
			applied := []bool{}
			for _, d := range r.Deployed {
				applied = append(applied, d.Applied)
			}
			Expect(applied).To(Equal([]bool{false, true, false}))
		})

		It("by any attempt of their order: what a killed executor had started counts (D1)", func() {
			s := newSite()
			p := s.start()
			deploys(s, to("v1", "c1"))
			p.stop()
			s.applied = func() { s.kill(); s.applied = func() {} }
			killed := s.start()
			order := s.put(to("v2", "c2"))
			Eventually(killed.dead).Should(BeClosed())
			s.start()
			Expect(s.result(order).Deployed).To(HaveEach(HaveField("Applied", true)))
		})

		It("also where the cluster does not name its machines: their host names are then unknown", func() {
			s := newSite()
			s.set(func(s *site) { s.nameless = true })
			s.start()
			_, r := deploys(s, to("v1", "c1"))
			Expect(r.Deployed).To(HaveLen(3))
			Expect(r.Deployed).To(HaveEach(HaveField("Hostname", "")))
		})
	})

	It("are announced with every claim, and with the look for claims at the start", func() {
		s := newSite()
		s.start()
		deploys(s, to("v1", "c1"))
		s.set(func(s *site) {
			Expect(s.announced).To(HaveKeyWithValue("claim", ContainElement("instances")))
			Expect(s.announced).To(HaveKeyWithValue("claims", ContainElement("instances")))
		})
	})

	It("are not brought into work that an executor of the former release has begun: its plan is followed to the letter",
		func() {
			s := newSite()
			s.running("old", 3)
			s.applied = func() { s.kill(); s.applied = func() {} }
			killed := s.start()
			order := s.put(to("v2", "c2"))
			Eventually(killed.dead).Should(BeClosed())
			s.rewrite(order, func(w map[string]any) {
				delete(w, "restarted")
				for _, d := range w["wanted"].([]any) {
					d.(map[string]any)["options"] = current().Options
				}
			})
			s.start()
			Expect(s.result(order).EventType).To(Equal(messages.EventMilestoneCompleted))
			Expect(s.runsVersions()).To(Equal([]string{"1:/", "2:/", "3:/"}))
		})
})
