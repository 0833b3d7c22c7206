package deploy_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/blame"
	"github.com/openaperture/openaperture/pkg/deploy"
	"github.com/openaperture/openaperture/pkg/deploy/failure"
	"github.com/openaperture/openaperture/pkg/deploy/memory"
	"github.com/openaperture/openaperture/pkg/deploy/render"
	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/roll"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// unitNamed is a template of a service whose definition is told apart by version.
func unitNamed(base, version string) messages.UnitDefinition {
	return messages.UnitDefinition{Name: base + "@.service",
		Options: []messages.Option{{Section: "Service", Name: "ExecStart", Value: "/bin/" + base + " " + version}}}
}

// of deploys one instance of a component whose unit has the component's name.
func of(base, version string, change ...func(*messages.Order)) func(*messages.Order) {
	return func(o *messages.Order) {
		one := 1
		o.ComponentType, o.FleetConfig = base, &messages.FleetConfig{InstanceCount: &one}
		o.DeployableUnits = []messages.UnitDefinition{unitNamed(base, version)}
		for _, f := range change {
			f(o)
		}
	}
}

// runsOf says what runs as the first instance of a base: "" if none does.
func (s *site) runsOf(base string) func() string {
	return func() string {
		all, err := s.cluster.List(context.Background(), []string{base})
		Expect(err).NotTo(HaveOccurred())
		if len(all) == 0 {
			return ""
		}
		return strings.TrimPrefix(all[0].Definition.Options[0].Value, "/bin/"+base+" ")
	}
}

// runs has the first instance of a base running.
func (s *site) runs(base, version string) {
	d := unitNamed(base, version)
	d.Name = base + "@1.service"
	Expect(s.cluster.Apply(context.Background(), d, 0, false)).To(Succeed())
}

// stuck makes instances of some bases unhealthy until freed.
func stuck(s *site, bases ...string) (free func()) {
	held := make(chan struct{})
	s.cluster.Health = func(d messages.UnitDefinition) roll.Health {
		select {
		case <-held:
			return roll.Healthy
		default:
		}
		if slices.ContainsFunc(bases, func(base string) bool { return strings.HasPrefix(d.Name, base+"@") }) {
			return roll.Starting
		}
		return roll.Healthy
	}
	return func() {
		close(held)
		for _, base := range bases {
			if s.runsOf(base)() != "" {
				s.cluster.Crash(base + "@1.service") // so that it is looked at again
			}
		}
	}
}

func probe(o *messages.Order) { o.CurrentStep = messages.MilestoneProbe }

var _ = Describe("Several orders", func() {
	completed := func(s *site, orders ...string) {
		GinkgoHelper()
		for _, order := range orders {
			r := s.result(order)
			Expect(r.EventType).To(Equal(messages.EventMilestoneCompleted), r.Message)
		}
	}
	none := func(s *site, order string) {
		GinkgoHelper()
		Consistently(func() int { return len(s.reported(order)) }, "60ms").Should(BeZero())
	}

	It("of different components are worked on side by side", func() {
		s := newSite()
		free := stuck(s, "app")
		s.start()
		long := s.put(of("app", "v1"))
		Eventually(s.runsOf("app")).Should(Equal("v1"))
		completed(s, s.put(of("web", "v1")), s.put(of("db", "v1")))
		none(s, long)
		free()
		completed(s, long)
	})

	It("are worked on up to the configured bound, and the others wait", func() {
		s := newSite()
		free := stuck(s, "a", "b")
		s.start(func(c *deploy.Config) { c.Parallel = 2 })
		first := []string{s.put(of("a", "v1")), s.put(of("b", "v1"))}
		Eventually(s.runsOf("b")).Should(Equal("v1"))
		third := s.put(of("c", "v1"))
		Eventually(s.get(func(s *site) int { return len(s.tokens) })).Should(Equal(3),
			"it is claimed, so that nobody counts it as unclaimed")
		none(s, third)
		Expect(s.runsOf("c")()).To(BeEmpty())
		free()
		completed(s, append(first, third)...)
	})

	DescribeTable("that must not meet wait for each other, in order",
		func(second, third func(*messages.Order)) {
			s := newSite()
			free := stuck(s, "app")
			s.start()
			one := s.put(of("app", "v1"))
			Eventually(s.runsOf("app")).Should(Equal("v1"))
			two, three := s.put(second), s.put(third)
			Eventually(s.get(func(s *site) int { return len(s.tokens) })).Should(Equal(3))
			none(s, two)
			none(s, three)
			free()
			completed(s, one, two, three)
			s.set(func(s *site) {
				var order []string
				for _, m := range s.results {
					r, _, err := messages.DecodeResult(m.Body)
					Expect(err).NotTo(HaveOccurred())
					if r.EventType == messages.EventMilestoneCompleted {
						order = append(order, r.OrderID)
					}
				}
				Expect(order).To(Equal([]string{one, two, three}))
			})
		},
		Entry("of one component", of("app", "v2"), of("app", "v3")),
		Entry("of workflows without component, with the same unit",
			of("app", "v2", func(o *messages.Order) { o.ComponentType = "" }),
			of("app", "v3", func(o *messages.Order) { o.ComponentType = "" })),
		Entry("of a unit that another one's former release had", of("web", "v1", func(o *messages.Order) {
			o.LeavingUnits = []string{"app@.service"}
		}), of("web", "v2")),
	)

	It("that wait are renewed and told as making progress, and one that is somebody else's leaves the line", func() {
		s := newSite()
		free := stuck(s, "app")
		s.start()
		long := s.put(of("app", "v1"))
		Eventually(s.runsOf("app")).Should(Equal("v1"))
		waits := s.put(of("app", "v2", func(o *messages.Order) { o.ProgressDeadlineMS = 80 }))
		gone := s.put(of("app", "v3"))
		told := func() (n int) {
			s.set(func(s *site) {
				for _, m := range s.results {
					if r, _, err := messages.DecodeResult(m.Body); err == nil && r.OrderID == waits {
						Expect(r.EventType).To(Equal(messages.EventMilestoneProgress))
						n++
					}
				}
			})
			return n
		}
		Eventually(told).Should(BeNumerically(">", 2))
		s.set(func(s *site) { Expect(s.renewed[waits]).To(BeNumerically(">", 0)); s.orders[gone].Token += 1000 })
		renewals := func() (n int) { s.set(func(s *site) { n = s.renewed[gone] }); return n }
		seen := renewals()
		Eventually(renewals).Should(BeNumerically(">", seen))
		free()
		completed(s, long, waits)
		none(s, gone)
		Expect(s.runsOf("app")()).To(Equal("v2"))
	})

	It("that wait beyond their first deadline have the time that manager-api gives them meanwhile", func() {
		s := newSite()
		s.render = func(render.Request) (render.Release, error) { return render.Release{}, nil }
		free := stuck(s, "app")
		s.set(func(s *site) { s.extension = time.Hour })
		s.start()
		long := s.put(of("app", "v1"))
		Eventually(s.runsOf("app")).Should(Equal("v1"))
		config := s.put(of("app", "v2", func(o *messages.Order) {
			o.CurrentStep, o.Deadline = messages.MilestoneConfig, time.Now().Add(150*time.Millisecond)
		}))
		Consistently(func() int { return len(s.reported(config)) }, "300ms").Should(BeZero())
		free()
		completed(s, long, config)
	})

	Describe("and a probe", func() {
		It("is answered while orders are in hand, and while others wait (D16)", func() {
			s := newSite()
			free := stuck(s, "a")
			s.start(func(c *deploy.Config) { c.Parallel = 1 })
			orders := []string{s.put(of("a", "v1"))}
			Eventually(s.runsOf("a")).Should(Equal("v1"))
			for i := range 40 {
				orders = append(orders, s.put(of(fmt.Sprintf("x%d", i), "v1")))
			}
			completed(s, s.put(probe))
			for _, order := range orders {
				Expect(s.reported(order)).To(BeEmpty())
			}
			free()
			completed(s, orders...)
		})

		It("is answered while the claim of another order fails", func() {
			s := newSite()
			s.start()
			bad := s.put(of("a", "v1", func(o *messages.Order) { s.set(func(s *site) { s.refuses = o.OrderID }) }))
			completed(s, s.put(probe))
			none(s, bad)
			s.set(func(s *site) { s.refuses = "" })
			completed(s, bad)
		})

		It("is answered while a stop finishes the instance in hand, and nothing else is begun", func() {
			s := newSite()
			free := stuck(s, "a")
			p := s.start()
			long := s.put(of("a", "v1"))
			Eventually(s.runsOf("a")).Should(Equal("v1"))
			waits := s.put(of("a", "v2"))
			Eventually(s.get(func(s *site) int { return len(s.tokens) })).Should(Equal(2))
			stopped := make(chan struct{})
			go func() { defer close(stopped); p.stop() }()
			Eventually(s.get(func(s *site) int { return len(s.released) })).Should(Equal(1)) // the stop has begun
			late := s.put(of("b", "v1"))
			completed(s, s.put(probe))
			Expect(s.runsOf("b")()).To(BeEmpty())
			free()
			Eventually(stopped).Should(BeClosed())
			completed(s, long)
			Expect(s.reported(late)).To(BeEmpty())
			Expect(s.reported(waits)).To(BeEmpty())
			s.start()
			completed(s, late)
		})
	})

	It("are all stopped gracefully: each finishes its instance in hand, and what waits is given back", func() {
		s := newSite()
		s.runs("a", "old")
		s.runs("b", "old")
		free := stuck(s, "a", "b")
		p := s.start(func(c *deploy.Config) { c.Parallel = 2 })
		two := 2
		twice := func(o *messages.Order) { o.FleetConfig = &messages.FleetConfig{InstanceCount: &two} }
		orders := []string{s.put(of("a", "v1", twice)), s.put(of("b", "v1", twice)), s.put(of("c", "v1"))}
		Eventually(s.runsOf("a")).Should(Equal("v1"))
		Eventually(s.runsOf("b")).Should(Equal("v1"))
		Eventually(s.get(func(s *site) int { return len(s.tokens) })).Should(Equal(3))
		stopped := make(chan struct{})
		go func() { defer close(stopped); p.stop() }()
		Eventually(s.get(func(s *site) int { return len(s.released) })).Should(Equal(1))
		free()
		Eventually(stopped).Should(BeClosed())
		s.set(func(s *site) { Expect(s.released).To(ConsistOf(orders)) })
		Expect(s.workFiles()).To(HaveLen(2))
		Expect(s.cluster.Starts()).To(HaveLen(4), "two that ran, and the first instance of two")
		s.start()
		completed(s, orders[0], orders[1])
	})

	It("keep an undo from no one else, nor anyone else from an undo", func() {
		s := newSite()
		s.running("old", 1)
		free := stuck(s, "app")
		s.set(func(s *site) { s.ignores = true })
		s.start()
		manager := s.put(func(o *messages.Order) { o.ComponentType, o.ProgressDeadlineMS = "manager", 300 })
		s.result(manager)
		s.set(func(s *site) { s.ignores = false })
		long := s.put(of("app", "v1"))
		Eventually(func() bool { return s.result(manager).Undone }).Should(BeTrue())
		Expect(s.shows()).To(Equal([]string{"1:old"}))
		none(s, long)
		free()
		completed(s, long)
	})

	It("wait for an undo of the same component", func() {
		s := newSite()
		s.running("old", 1)
		s.set(func(s *site) { s.ignores = true })
		s.start()
		manager := func(o *messages.Order) { o.ComponentType, o.ProgressDeadlineMS = "manager", 300 }
		first := s.put(manager)
		s.result(first)
		s.set(func(s *site) { s.clusterSays = runtime.ErrUnreachable })
		Eventually(func() any { return s.file(first)["stage"] }, "5s").Should(Equal("undoing"))
		second := s.put(manager, func(o *messages.Order) { o.DeployableUnits = []messages.UnitDefinition{unitOf("newer")} })
		Eventually(s.get(func(s *site) int { return len(s.tokens) })).Should(Equal(2))
		none(s, second)
		s.set(func(s *site) { s.clusterSays, s.ignores = nil, false })
		completed(s, second)
		Expect(s.shows()).To(Equal([]string{"1:newer", "2:newer", "3:newer"}))
	})

	Describe("with a fault of the executor's own", func() {
		It("in rendering: that order fails with a cause, and the others go on", func() {
			s := newSite()
			s.render = func(r render.Request) (render.Release, error) {
				if r.SourceRef == "bad" {
					panic("no such template")
				}
				return render.Release{Units: []messages.UnitDefinition{unitOf("v2")}}, nil
			}
			p := s.start()
			config := func(ref string) func(*messages.Order) {
				return func(o *messages.Order) {
					o.CurrentStep, o.SourceRepoGitRef, o.ComponentType = messages.MilestoneConfig, ref, ref
				}
			}
			bad, good := s.put(config("bad")), s.put(config("good"))
			r := s.result(bad)
			Expect(reasons(r)).To(Equal(failed(failure.Panicked)))
			Expect(r.Message).To(Equal("the executor panicked: no such template: look at its log, and report it"))
			Expect(r.Touched).To(BeFalse())
			completed(s, good)
			Expect(p.dead).NotTo(BeClosed())
		})

		It("in a runtime: that order fails as touched, and the others go on", func() {
			s := newSite()
			s.applied = func() { s.applied = func() {}; panic("nil map") }
			s.start()
			bad := s.put(of("app", "v1"))
			r := s.result(bad)
			Expect(reasons(r)).To(Equal(failed(failure.Panicked)))
			Expect(r.Touched).To(BeTrue())
			completed(s, s.put(of("app", "v2")))
		})
	})

	// tell lets one order complete and another one put back, with a death at every call.
	tell := func(killAt, deaths int, after bool) *site {
		s := newSite()
		s.runs("good", "old")
		s.runs("bad", "old")
		s.cluster.Health = func(d messages.UnitDefinition) roll.Health {
			if d.Options[0].Value == "/bin/bad new" {
				return roll.Starting
			}
			return roll.Healthy
		}
		before := len(s.cluster.Starts())
		orders := []string{s.put(of("good", "new")), s.put(of("bad", "new", impatient))}
		done := func() bool {
			return len(s.reported(orders[0])) > 0 && len(s.reported(orders[1])) > 0 && len(s.workFiles()) == 0
		}
		for range deaths {
			s.set(func(s *site) { s.calls, s.killAt, s.after = 0, killAt, after })
			p := s.start()
			Eventually(func() bool {
				select {
				case <-p.dead:
					return true
				default:
					return done()
				}
			}).Should(BeTrue())
			s.set(func(s *site) { s.kill() })
			Eventually(p.dead).Should(BeClosed())
		}
		s.set(func(s *site) { s.killAt = 0 })
		s.start()
		completed(s, orders[0])
		Expect(reasons(s.result(orders[1]))).To(Equal(failed(blame.DeployUnhealthy)))
		Eventually(s.workFiles).Should(BeEmpty())
		for _, order := range orders {
			Expect(s.result(order).ReplacedUnits()).To(HaveLen(1))
			Expect(s.result(order).Touched).To(BeTrue())
		}
		Expect([]string{s.runsOf("good")(), s.runsOf("bad")()}).To(Equal([]string{"new", "old"}))
		start := func(base, version string) string {
			return fmt.Sprintf("%s@1.service %s", base, memory.Hash(unitNamed(base, version))[:6])
		}
		Expect(s.cluster.Starts()[before:]).To(ConsistOf(start("good", "new"), start("bad", "new"), start("bad", "old")),
			"nothing is started twice")
		return s
	}

	It("are finished by the next executor, when one is killed at any call with both in hand (D1)", func() {
		calls := tell(0, 1, false).get(func(s *site) int { return s.calls })()
		for _, after := range []bool{false, true} {
			for k := 1; k <= calls+2; k++ {
				By(fmt.Sprintf("call %d, after=%t", k, after))
				tell(k, 1, after)
			}
		}
	})

	It("get done, when the executor is killed again and again with both in hand (D1)", func() {
		for k := 6; k <= 16; k++ {
			tell(k, 10, k%2 == 0)
		}
	})
})

var _ = Describe("Times that are valid and close to each other", func() {
	It("blame a bad version, and its order's time does not run out: manager-api hears of every step and of long waits",
		func() {
			s := newSite()
			s.running("old", 3)
			breaks(s, "new")
			s.set(func(s *site) { s.impatience = 1500 * time.Millisecond })
			s.start()
			order := s.put(func(o *messages.Order) { // 9 m of 10 m
				o.ProgressDeadlineMS, o.HealthDeadlineMS, o.MinHealthyMS = 1500, 1350, 400
			})
			Eventually(func() int { return len(s.reported(order)) }, "10s").ShouldNot(BeZero())
			r := s.result(order)
			Expect(reasons(r)).To(Equal(failed(blame.DeployUnhealthy)))
			Expect(r.Restored).To(BeTrue())
			Expect(s.shows()).To(Equal([]string{"1:old", "2:old", "3:old"}))
			s.set(func(s *site) { Expect(s.orders[order].State).To(Equal("failed")) })
		})
})
