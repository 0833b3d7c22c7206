package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/blame"
	"github.com/openaperture/openaperture/pkg/deploy"
	"github.com/openaperture/openaperture/pkg/deploy/failure"
	"github.com/openaperture/openaperture/pkg/deploy/render"
	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	"github.com/openaperture/openaperture/pkg/rabbit"
	"github.com/openaperture/openaperture/pkg/roll"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// breaks makes every definition of a version unhealthy.
func breaks(s *site, versions ...string) {
	s.cluster.Health = func(d messages.UnitDefinition) roll.Health {
		for _, v := range versions {
			if d.Options[0].Value == "/bin/overseer "+v {
				return roll.Starting
			}
		}
		return roll.Healthy
	}
}

func impatient(o *messages.Order) { o.HealthDeadlineMS = 60 }

var _ = Describe("A deploy", func() {
	It("replaces what differs, one at a time, removes what is too much, and reports", func() {
		s := newSite()
		s.running("old", 4)
		s.start()
		order := s.put()
		r := s.result(order)
		Expect(r.EventType).To(Equal(messages.EventMilestoneCompleted))
		Expect(r.Instances).To(Equal(3))
		Expect(r.Touched).To(BeTrue())
		Expect(r.Token).To(Equal(int64(1)))
		Expect(r.ReplacedUnits()).To(HaveLen(4))
		Expect(r.ReplacedUnits()[3].Name).To(Equal("overseer@4.service"))
		Expect(r.ReplacedUnits()[3].Options).To(Equal(unitOf("old").Options))
		Expect(r.Steps).NotTo(BeEmpty())
		Expect(s.shows()).To(Equal([]string{"1:new", "2:new", "3:new"}))
		Eventually(s.workFiles).Should(BeEmpty())
		var m rabbit.Message
		s.set(func(s *site) { m = s.results[0] })
		Expect([]string{m.Exchange, m.Key, m.Type, m.CorrelationID,
			m.AppID}).To(Equal([]string{"root", "a.workflow_orchestration", "milestone_result", "w1", "deployer-oa/" + host}))
	})

	It("is told of within the trace of its order, also by the process after a killed one", func() {
		s := newSite()
		s.running("old", 3)
		s.applied = func() { s.kill() }
		killed := s.start()
		order := s.put(func(o *messages.Order) { o.ProgressDeadlineMS = 1 })
		Eventually(killed.dead).Should(BeClosed())
		Expect(s.reported(order)).To(BeEmpty())
		s.set(func(s *site) { s.applied = func() {} })
		s.start()
		s.result(order)
		s.set(func(s *site) { Expect(s.published).To(HaveEach(delivered.TraceID())) })
	})

	It("changes nothing when it is done twice", func() {
		s := newSite()
		s.start()
		s.result(s.put())
		starts := s.cluster.Starts()
		r := s.result(s.put())
		Expect(s.cluster.Starts()).To(Equal(starts))
		Expect(r.EventType).To(Equal(messages.EventMilestoneCompleted))
		Expect(r.Touched).To(BeFalse())
	})

	DescribeTable("removes what runs of units that its release does not have, and of no others, and that last",
		func(runs, units, leaving, want []string) {
			s := newSite()
			for _, name := range runs {
				d := unitOf("old")
				d.Name = name
				Expect(s.cluster.Apply(context.Background(), d, 0, false)).To(Succeed())
			}
			s.start()
			one := 1
			order := s.put(func(o *messages.Order) {
				o.FleetConfig, o.DeployableUnits, o.LeavingUnits = &messages.FleetConfig{InstanceCount: &one}, nil, leaving
				for _, name := range units {
					d := unitOf("new")
					d.Name = name
					o.DeployableUnits = append(o.DeployableUnits, d)
				}
			})
			r := s.result(order)
			Expect([]any{r.EventType, r.Touched}).To(Equal([]any{messages.EventMilestoneCompleted, true}))
			all, err := s.cluster.List(context.Background(), []string{"app", "app2", "worker", "stranger"})
			Expect(err).NotTo(HaveOccurred())
			var names []string
			for _, i := range all {
				names = append(names, i.Sighting.Name)
			}
			Expect(names).To(Equal(want))
			s.set(func(s *site) {
				Expect(slices.Contains(s.trace[slices.Index(s.trace, "remove"):], "apply")).To(BeFalse())
			})
		},
		Entry("dropped", []string{"app@1.service", "stranger@1.service", "worker@1.service"}, []string{"app@.service"},
			[]string{"worker@.service"}, []string{"app@1.service", "stranger@1.service"}),
		Entry("renamed", []string{"app@1.service", "app@2.service"}, []string{"app2@.service"}, []string{"app@.service"},
			[]string{"app2@1.service"}),
		Entry("renamed back", []string{"app@1.service", "app2@1.service"}, []string{"app@.service"},
			[]string{"app2@.service"}, []string{"app@1.service"}),
		Entry("a plain one dropped, another one added", []string{"app.service"}, []string{"worker.service"},
			[]string{"app.service"}, []string{"worker.service"}),
	)

	big := func(s *site, same bool) {
		for i := range 40 {
			d := unitOf("old")
			d.Name = fmt.Sprintf("overseer@%d.service", i+1)
			d.Options = append(d.Options, messages.Option{Section: "Service", Name: "Environment",
				Value: strings.Repeat("v", 20_000)})
			if !same {
				d.Options[1].Value += d.Name
			}
			Expect(s.cluster.Apply(context.Background(), d, 0, false)).To(Succeed())
		}
	}

	It("tells what it replaced, each definition once", func() {
		s := newSite()
		big(s, true)
		s.start()
		r := s.result(s.put())
		Expect(r.Replaced).To(HaveLen(1))
		Expect(r.ReplacedUnits()).To(HaveLen(40))
	})

	It("does not begin where it could not tell what it replaced", func() {
		s := newSite()
		big(s, false)
		s.start()
		r := s.result(s.put())
		Expect(reasons(r)).To(Equal(failed(failure.UnitInvalid)))
		Expect(r.Message).To(ContainSubstring("nothing is touched"))
		Expect(s.cluster.Starts()).To(HaveLen(40))
	})

	It("begins whatever the size of what it replaces, where it is known what to return to", func() {
		s := newSite()
		big(s, false)
		s.start()
		r := s.result(s.put(func(o *messages.Order) { o.ReplacedKnown = true }))
		Expect(r.EventType).To(Equal(messages.EventMilestoneCompleted), r.Message)
		Expect(r.Replaced).To(BeEmpty())
		Expect(s.shows()).To(Equal([]string{"1:new", "2:new", "3:new"}))
	})

	DescribeTable("goes by the time that is left, whatever the clocks say",
		func(off time.Duration, step messages.Milestone) {
			s := newSite()
			s.extension = time.Minute
			s.render = func(render.Request) (render.Release, error) { return render.Release{}, nil }
			s.start(func(c *deploy.Config) { c.Now = func() time.Time { return time.Now().Add(off) } })
			order := s.put(func(o *messages.Order) {
				o.CurrentStep, o.Deadline, o.MinHealthyMS = step, time.Now().Add(time.Minute), 30
			})
			Expect(s.result(order).EventType).To(Equal(messages.EventMilestoneCompleted))
		},
		Entry("ahead", 2*time.Hour, messages.MilestoneDeployOA),
		Entry("ahead, while repositories are fetched", 2*time.Hour, messages.MilestoneConfig),
	)

	It("gets no time beyond what is left, on a clock that is behind", func() {
		s := newSite()
		breaks(s, "new")
		s.start(func(c *deploy.Config) { c.Now = func() time.Time { return time.Now().Add(-2 * time.Hour) } })
		order := s.put(func(o *messages.Order) {
			o.HealthDeadlineMS, o.Deadline = time.Hour.Milliseconds(), time.Now().Add(300*time.Millisecond)
		})
		Expect(reasons(s.result(order))).To(Equal(failed(failure.NoProgress)))
	})

	It("runs one instance per machine when the order has no count", func() {
		s := newSite()
		s.cluster.Hosts = 2
		s.start()
		Expect(s.result(s.put(func(o *messages.Order) { o.FleetConfig = nil })).Instances).To(Equal(2))
		Expect(s.shows()).To(Equal([]string{"1:new", "2:new"}))
	})

	It("puts back what it replaced and stops, when an instance does not get healthy (D7)", func() {
		s := newSite()
		s.running("old", 3)
		breaks(s, "new")
		s.cluster.Log = "opened amqp://u:pw@box\npassword=hunter2 token: 'abc'\npanic: no luck\x1b\n"
		s.start()
		r := s.result(s.put(impatient))
		Expect(reasons(r)).To(Equal(failed(blame.DeployUnhealthy)))
		Expect([]bool{r.Restored, r.Touched}).To(Equal([]bool{true, true}))
		Expect(r.Message).To(Equal("overseer@1.service did not get healthy within 60ms and what ran before is back: " +
			"look at its log"))
		Expect(r.Log).To(Equal("opened amqp://…@box\npassword=… token: '…'\npanic: no luck"))
		Expect(s.shows()).To(Equal([]string{"1:old", "2:old", "3:old"}))
	})

	DescribeTable("blames no version for what happened while others were away",
		func(want failure.Reason, disturb func(*site), componentType string) {
			s := newSite()
			s.running("old", 1)
			breaks(s, "new")
			s.start()
			order := s.put(func(o *messages.Order) { o.HealthDeadlineMS, o.ComponentType = 300, componentType })
			Eventually(s.shows).Should(Equal([]string{"1:new"}))
			s.set(disturb)
			time.AfterFunc(150*time.Millisecond, func() { s.set(func(s *site) { s.down = false }) })
			r := s.result(order)
			Expect(reasons(r)).To(Equal(failed(want)))
			Expect([]bool{r.Restored, r.Touched}).To(Equal([]bool{true, true}))
		},
		Entry("nobody was", blame.DeployUnhealthy, func(*site) {}, "overseer"),
		Entry("the broker", blame.Disturbed, func(s *site) { s.session++ }, "overseer"),
		Entry("the broker, which is back before anybody looked", blame.Disturbed, func(s *site) {
			s.brokerDown = true
			time.AfterFunc(50*time.Millisecond, func() { s.set(func(s *site) { s.brokerDown = false }) })
		}, "overseer"),
		Entry("manager-api", blame.Disturbed, func(s *site) { s.down = true }, "overseer"),
		Entry("manager-api, which was replaced itself", blame.DeployUnhealthy, func(s *site) { s.down = true }, "manager"),
	)

	It("that is resumed by a start blames the version nevertheless: subscribing anew is no outage", func() {
		s := newSite()
		s.running("old", 1)
		breaks(s, "new")
		p := s.start()
		order := s.put(func(o *messages.Order) { o.HealthDeadlineMS = 400 })
		Eventually(s.shows).Should(Equal([]string{"1:new"}))
		s.set(func(s *site) { s.kill() })
		Eventually(p.dead).Should(BeClosed())
		s.set(func(s *site) { s.brokerDown = true }) // as it seems while connections are being opened
		time.AfterFunc(30*time.Millisecond, func() { s.set(func(s *site) { s.brokerDown = false; s.session++ }) })
		s.start()
		Expect(reasons(s.result(order))).To(Equal(failed(blame.DeployUnhealthy)))
	})

	It("may take longer than its deadline while it makes progress (D16)", func() {
		s := newSite()
		s.running("old", 1)
		s.set(func(s *site) { s.extension = time.Hour })
		s.start()
		r := s.result(s.put(func(o *messages.Order) {
			o.MinHealthyMS, o.Deadline = 150,
				time.Now().Add(300*time.Millisecond)
		}))
		Expect(r.EventType).To(Equal(messages.EventMilestoneCompleted), r.Message)
	})

	DescribeTable("that outlived its order together with a killed executor puts back what is half done",
		func(componentType string) {
			s := newSite()
			s.running("old", 1)
			breaks(s, "new")
			p := s.start()
			order := s.put(func(o *messages.Order) { o.ComponentType = componentType })
			Eventually(s.shows).Should(Equal([]string{"1:new"}))
			s.set(func(s *site) { s.kill() })
			Eventually(p.dead).Should(BeClosed())
			s.set(func(s *site) { s.orders[order].Order.Deadline = time.Now().Add(-time.Second) })
			s.start()
			r := s.result(order)
			Expect(reasons(r)).To(Equal(failed(failure.NoProgress)))
			Expect([]bool{r.Touched, r.Restored}).To(Equal([]bool{true, true}))
			Expect(s.shows()).To(Equal([]string{"1:old"}))
		},
		Entry("manager-api", "manager"),
		Entry("another service", "overseer"),
	)

	It("blames no version that ran here before and has lost what it needs", func() {
		s := newSite()
		s.running("new", 3)
		breaks(s, "new")
		s.start()
		r := s.result(s.put(impatient))
		Expect(reasons(r)).To(Equal(failed(blame.StillUnhealthy)))
		Expect(r.Message).To(Equal("overseer@1.service did not get healthy within 60ms, and this definition ran here " +
			"before: look at its log, host, broker and database"))
		Expect(s.shows()).To(Equal([]string{"1:new", "2:new", "3:new"}))
	})

	It("that fails at the third of five is a failure: that one is put back, the next are left alone (D8)", func() {
		s := newSite()
		s.running("old", 5)
		s.cluster.Health = func(d messages.UnitDefinition) roll.Health {
			if d.Name == "overseer@3.service" && d.Options[0].Value == "/bin/overseer new" {
				return roll.Starting
			}
			return roll.Healthy
		}
		s.start()
		five := 5
		r := s.result(s.put(impatient, func(o *messages.Order) {
			o.FleetConfig = &messages.FleetConfig{InstanceCount: &five}
		}))
		Expect(reasons(r)).To(Equal(failed(blame.DeployUnhealthy)))
		Expect([]bool{r.Touched, r.Restored}).To(Equal([]bool{true, true}))
		Expect(r.Deployed).To(BeEmpty())
		Expect(s.shows()).To(Equal([]string{"1:new", "2:new", "3:old", "4:old", "5:old"}))
	})

	It("takes a new instance away again, when it does not get healthy", func() {
		s := newSite()
		breaks(s, "new")
		s.start()
		r := s.result(s.put(impatient))
		Expect(reasons(r)).To(Equal(failed(blame.DeployUnhealthy)))
		Expect(r.Touched).To(BeTrue())
		Expect(s.shows()).To(BeEmpty())
	})

	It("blames the environment, when what it put back is not healthy either", func() {
		s := newSite()
		s.running("old", 1)
		breaks(s, "new", "old")
		s.start()
		Expect(reasons(s.result(s.put(impatient)))).To(Equal(failed(blame.RestoredUnhealthy)))
		Expect(s.shows()).To(Equal([]string{"1:old"}))
	})

	It("waits until an instance was healthy for long enough without a break", func() {
		s := newSite()
		s.running("new", 1)
		s.start()
		one := 1
		order := s.put(func(o *messages.Order) {
			o.MinHealthyMS, o.FleetConfig = 150, &messages.FleetConfig{InstanceCount: &one}
		})
		began := time.Now()
		for range 5 { // five crashes, each 30 ms after the other
			Consistently(func() int { return len(s.reported(order)) }, "30ms").Should(BeZero())
			s.cluster.Crash("overseer@1.service")
		}
		Expect(s.result(order).EventType).To(Equal(messages.EventMilestoneCompleted))
		Expect(time.Since(began)).To(BeNumerically(">=", 300*time.Millisecond))
	})

	DescribeTable("is refused with a reason",
		func(reason failure.Reason, change func(*site, *messages.Order)) {
			s := newSite()
			s.running("old", 1)
			s.start()
			r := s.result(s.put(func(o *messages.Order) { change(s, o) }))
			Expect(reasons(r)).To(Equal(failed(reason)))
			Expect(r.Touched).To(BeFalse())
			Expect(s.shows()).To(Equal([]string{"1:old"}))
		},
		Entry("no units", failure.NoUnits, func(_ *site, o *messages.Order) { o.DeployableUnits = nil }),
		Entry("no machines", failure.NoMachines, func(s *site,
			o *messages.Order) {
			s.cluster.Hosts = 0
			o.FleetConfig = nil
		}),
		Entry("no place for an instance, and nothing is stopped for it (fault 21)", failure.Unplaced,
			func(s *site, o *messages.Order) {
				impatient(o)
				s.cluster.Offer(map[string]string{"role": "db"})
				o.DeployableUnits[0].Options = append(o.DeployableUnits[0].Options,
					messages.Option{Section: "X-Fleet", Name: "MachineMetadata", Value: "role=app"})
			}),
		Entry("no cluster", failure.RuntimeRefused, func(_ *site, o *messages.Order) { o.Cluster = nil }),
		Entry("a unit that must not be sent", failure.UnitInvalid,
			func(_ *site, o *messages.Order) { o.DeployableUnits[0].Options = nil }),
		Entry("a unit that is an instance", failure.UnitInvalid, func(_ *site,
			o *messages.Order) {
			o.DeployableUnits[0].Name = "overseer@1.service"
		}),
		Entry("an unknown milestone (D20)", failure.MilestoneUnknown,
			func(_ *site, o *messages.Order) { o.CurrentStep = "dance" }),
		Entry("the peer's milestone", failure.MilestoneUnknown, func(_ *site,
			o *messages.Order) {
			o.CurrentStep = messages.MilestoneDeploy
		}),
		Entry("itself, by its own plain unit (D2)", failure.ExecutorIsTarget,
			func(_ *site, o *messages.Order) { o.DeployableUnits[0].Name = "deployer-oa-1.service" }),
		Entry("itself, by its own unit (D2)", failure.ExecutorIsTarget,
			func(_ *site, o *messages.Order) { o.DeployableUnits[0].Name = "deployer-oa@.service" }),
		Entry("an order whose deadline has passed", failure.NoProgress,
			func(_ *site, o *messages.Order) { o.Deadline = time.Now().Add(-time.Second) }),
	)

	It("leaves itself alone, where an earlier release had its own unit by mistake", func() {
		s := newSite()
		own := unitOf("own")
		own.Name = "deployer-oa@1.service"
		Expect(s.cluster.Apply(context.Background(), own, 0, false)).To(Succeed())
		s.start()
		r := s.result(s.put(func(o *messages.Order) { o.LeavingUnits = []string{"deployer-oa@.service"} }))
		Expect(r.EventType).To(Equal(messages.EventMilestoneCompleted), r.Message)
		Expect(s.shows()).To(Equal([]string{"1:new", "2:new", "3:new"}))
		Expect(s.cluster.List(context.Background(), []string{"deployer-oa"})).To(HaveLen(1))
	})

	DescribeTable("replaces its peer, whatever the name of its repository",
		func(repo string) {
			s := newSite()
			s.start()
			Expect(s.result(s.put(func(o *messages.Order) {
				o.ComponentType, o.DeploymentRepo = "deployer",
					repo
			})).EventType).To(Equal(messages.EventMilestoneCompleted))
		},
		Entry("a plain name", "org/deployer"), Entry("one that ends as the second phase's", "org/deployer_oa.git"),
	)

	// demanding has the order's instances demand role=app of their machines.
	demanding := func(o *messages.Order) {
		o.DeployableUnits[0].Options = append(o.DeployableUnits[0].Options,
			messages.Option{Section: "X-Fleet", Name: "MachineMetadata", Value: "role=app"})
	}
	app, db := map[string]string{"role": "app"}, map[string]string{"role": "db"}

	It("in which no machine takes an instance any more blames the environment, and puts back what ran (fault 21)", func() {
		s := newSite()
		s.running("old", 3)
		s.cluster.Offer(app)
		starts := 0
		s.applied = func() {
			if starts++; starts == 2 {
				s.cluster.Offer(db)
			}
		}
		s.start()
		r := s.result(s.put(demanding, impatient))
		Expect(reasons(r)).To(Equal(failed(blame.Unplaced)))
		Expect(r.Message).To(MatchRegexp(`^overseer@[12].service cannot be placed: it demands MachineMetadata=role=app\. ` +
			`Machine m1 offers role=db: change its demands in the deployment repository, or the machines; `))
		Expect([]bool{r.Touched, r.Restored}).To(Equal([]bool{true, true}))
		Expect(s.shows()).To(Or(Equal([]string{"1:new", "2:old", "3:old"}), Equal([]string{"1:old", "2:new", "3:old"})))
	})

	It("waits for a machine that is away for a moment, and does not count that time (fault 21)", func() {
		s := newSite()
		s.running("old", 1)
		s.cluster.Offer(app)
		breaks(s, "new")
		var ahead atomic.Int64
		s.start(func(c *deploy.Config) {
			c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		})
		one := 1
		order := s.put(demanding, func(o *messages.Order) {
			o.HealthDeadlineMS, o.FleetConfig = 60_000, &messages.FleetConfig{InstanceCount: &one}
		})
		Eventually(s.shows).Should(Equal([]string{"1:new"}))
		looks := func() { // with what the cluster offers now, twice: the first of them may have begun before
			for range 2 {
				seen := s.count("list")()
				s.cluster.Crash("overseer@1.service")
				Eventually(s.count("list")).Should(BeNumerically(">", seen))
			}
		}
		looks()
		s.cluster.Offer(db)
		looks()
		ahead.Store(int64(58 * time.Second))
		s.cluster.Offer(app)
		looks()
		ahead.Store(int64(65 * time.Second))
		looks()
		s.set(func(s *site) { s.cluster.Health = nil })
		s.cluster.Crash("overseer@1.service")
		Expect(s.result(order).EventType).To(Equal(messages.EventMilestoneCompleted))
	})

	It("begins when a machine that was away is back, as a way back to the proven release must (fault 21)", func() {
		s := newSite()
		s.running("old", 1)
		s.cluster.Offer(db)
		s.start()
		order := s.put(demanding)
		Eventually(s.count("unplaced")).Should(BeNumerically(">", 1))
		Expect(s.reported(order)).To(BeEmpty())
		Expect(s.shows()).To(Equal([]string{"1:old"}), "nothing is stopped for it")
		s.cluster.Offer(app)
		Expect(s.result(order).EventType).To(Equal(messages.EventMilestoneCompleted))
	})

	It("leaves the wait for a machine to another executor when it is stopped", func() {
		s := newSite()
		s.cluster.Offer(db)
		p := s.start()
		order := s.put(demanding)
		Eventually(s.count("unplaced")).Should(BeNumerically(">", 1))
		p.stop()
		Expect(s.reported(order)).To(BeEmpty())
		Expect(s.released).To(Equal([]string{order}))
	})

	It("goes on when the cluster was away for a while", func() {
		s := newSite()
		s.running("old", 2)
		s.start(func(c *deploy.Config) {
			c.Open = func(messages.Cluster) (runtime.Runtime, error) { return &flaky{Runtime: watched{s.cluster, s}}, nil }
		})
		r := s.result(s.put())
		Expect(r.EventType).To(Equal(messages.EventMilestoneCompleted))
		Expect(s.shows()).To(Equal([]string{"1:new", "2:new", "3:new"}))
	})

	It("holds no outage of the cluster against the version", func() {
		s := newSite()
		s.running("old", 1)
		breaks(s, "new")
		var ahead atomic.Int64
		s.start(func(c *deploy.Config) {
			c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		})
		one := 1
		order := s.put(func(o *messages.Order) {
			o.HealthDeadlineMS, o.FleetConfig = 60_000, &messages.FleetConfig{InstanceCount: &one}
		})
		Eventually(s.shows).Should(Equal([]string{"1:new"}))
		looks := func() { // with what the cluster says now, twice: the first of them may have begun before
			for range 2 {
				seen := s.count("list")()
				s.cluster.Crash("overseer@1.service")
				Eventually(s.count("list")).Should(BeNumerically(">", seen))
			}
		}
		looks()
		s.set(func(s *site) { s.clusterSays = runtime.Unreachable(errors.New("no route")) })
		looks()
		ahead.Store(int64(58 * time.Second))
		s.set(func(s *site) { s.clusterSays = nil })
		looks()
		ahead.Store(int64(65 * time.Second))
		looks()
		s.set(func(s *site) { s.cluster.Health = nil })
		s.cluster.Crash("overseer@1.service")
		Expect(s.result(order).EventType).To(Equal(messages.EventMilestoneCompleted))
	})

	It("says so when the cluster does not answer", func() {
		s := newSite()
		s.start(func(c *deploy.Config) {
			c.Open = func(messages.Cluster) (runtime.Runtime, error) { return silent{}, nil }
		})
		Expect(reasons(s.result(s.put(impatient)))).To(Equal(failed(failure.RuntimeUnreachable)))
	})
})

// flaky is a cluster that answers every second time only.
type flaky struct {
	runtime.Runtime
	calls int
}

func (f *flaky) fails() bool { f.calls++; return f.calls%2 == 1 }

func (f *flaky) List(ctx context.Context, bases []string) ([]runtime.Instance, error) {
	if f.fails() {
		return nil, runtime.Unreachable(errors.New("connection reset"))
	}
	return f.Runtime.List(ctx, bases)
}

func (f *flaky) Apply(ctx context.Context, d messages.UnitDefinition, token int64, restart bool) error {
	err := f.Runtime.Apply(ctx, d, token, restart) // done, but the answer is lost
	if f.fails() {
		return runtime.Unreachable(errors.New("connection reset"))
	}
	return err
}

// silent is a cluster that does not answer.
type silent struct{ runtime.Runtime }

func (silent) List(context.Context, []string) ([]runtime.Instance, error) {
	return nil, runtime.Unreachable(errors.New("connection refused"))
}

var _ = Describe("The other milestones", func() {
	It("config yields the release", func() {
		s := newSite()
		one := 1
		s.render = func(r render.Request) (render.Release, error) {
			Expect(r).To(Equal(render.Request{ComponentType: "overseer", ExchangeID: 7, DeploymentRepo: "org/repo",
				DeploymentRef: "v1", SourceRepo: "org/src", SourceRef: "v2"}))
			return render.Release{Units: []messages.UnitDefinition{unitOf("v2")}, EtcdToken: "c",
				FleetConfig: &messages.FleetConfig{InstanceCount: &one}, SourceCommit: "s", DeploymentCommit: "d"}, nil
		}
		s.start()
		r := s.result(s.put(func(o *messages.Order) {
			o.CurrentStep, o.MessagingExchangeID, o.DeploymentRepoGitRef, o.SourceRepo,
				o.SourceRepoGitRef = messages.MilestoneConfig, 7, "v1", "org/src", "v2"
		}))
		Expect(r.EventType).To(Equal(messages.EventMilestoneCompleted))
		Expect([]string{r.EtcdToken, r.SourceCommitHash, r.DeploymentCommitHash}).To(Equal([]string{"c", "s", "d"}))
		Expect(r.DeployableUnits).To(Equal([]messages.UnitDefinition{unitOf("v2")}))
		Expect(*r.FleetConfig.InstanceCount).To(Equal(1))
		Expect(s.workFiles()).To(BeEmpty())
	})

	It("config tells why it failed, and tries an unreachable repository more than once", func() {
		s := newSite()
		tries := 0
		s.render = func(render.Request) (render.Release, error) {
			if tries++; tries == 1 {
				return render.Release{}, failure.New(failure.GitUnreachable, "no answer")
			}
			return render.Release{}, failure.New(failure.GitRefUnknown, "no ref v2")
		}
		s.start()
		r := s.result(s.put(func(o *messages.Order) { o.CurrentStep = messages.MilestoneConfig }))
		Expect(reasons(r)).To(Equal(failed(failure.GitRefUnknown)))
		Expect(r.Message).To(Equal("no ref v2"))
	})

	It("config renders the commits that were planned", func() {
		s := newSite()
		s.render = func(r render.Request) (render.Release, error) {
			Expect([]string{r.SourceCommit, r.DeploymentCommit}).To(Equal([]string{"s1", "d1"}))
			return render.Release{}, nil
		}
		s.start()
		s.result(s.put(func(o *messages.Order) {
			o.CurrentStep, o.SourceCommitHash, o.DeploymentCommitHash = messages.MilestoneConfig, "s1", "d1"
		}))
	})

	resolve := func(ref string) func(*messages.Order) {
		return func(o *messages.Order) {
			o.CurrentStep, o.Resolve = messages.MilestoneResolve, []messages.GitRef{{Repo: "org/src", Ref: ref}}
		}
	}

	It("resolve says what refs stand for, beside orders that fill the room, and is announced (fault 20)", func() {
		s := newSite()
		free := stuck(s, "app")
		s.start(func(c *deploy.Config) { c.Parallel = 1 })
		long := s.put(of("app", "v1"))
		Eventually(s.runsOf("app")).Should(Equal("v1"))
		r := s.result(s.put(resolve("main")))
		Expect(r.EventType).To(Equal(messages.EventMilestoneCompleted))
		Expect(r.Resolved).To(Equal([]messages.Resolved{{Repo: "org/src", Ref: "main", Kind: "branch", Commit: "c-main"}}))
		s.set(func(s *site) { Expect(s.announced["claim"]).To(ContainElement("resolve")) })
		free()
		s.result(long)
	})

	It("resolve is given back at a stop: nobody waits for a git host that does not answer", func() {
		s := newSite()
		s.gitHost = make(chan struct{})
		p := s.start()
		order := s.put(resolve("main"))
		Eventually(s.get(func(s *site) int { return len(s.tokens) })).Should(Equal(1))
		p.stop()
		s.set(func(s *site) { Expect(s.released).To(Equal([]string{order})) })
		Expect(s.reported(order)).To(BeEmpty())
	})

	It("probe is answered at once", func() {
		s := newSite()
		s.start()
		Expect(s.result(s.put(probe)).EventType).To(Equal(messages.EventMilestoneCompleted))
	})
})

var _ = Describe("Deliveries", func() {
	deliver := func(body string) error {
		s := newSite()
		bodies := make(chan error, 1)
		s.start(func(c *deploy.Config) { c.Broker = once{s, []byte(body), bodies} })
		var err error
		Eventually(bodies).Should(Receive(&err))
		return err
	}

	It("that are no orders are dead-lettered", func() {
		err := deliver(`{"order_id": 7}`)
		Expect(err).To(MatchError(messages.ErrInvalid))
		Expect(err).To(BeAssignableToTypeOf(rabbit.Reject(err)))
	})

	It("of orders that are gone are forgotten", func() {
		Expect(deliver(`{"order_id":"gone","workflow_id":"w","attempt":1,"current_step":"probe",` +
			`"deadline":"2030-01-01T00:00:00Z"}`)).To(Succeed())
	})
})

// once is a broker with one delivery.
type once struct {
	*site
	body []byte
	out  chan error
}

func (o once) Consume(ctx context.Context, c rabbit.Consumer) error {
	o.out <- c.Handle(ctx, &rabbit.Delivery{Body: o.body})
	<-ctx.Done()
	return nil
}

var _ = Describe("Results", func() {
	It("wait in the work file until the broker takes them", func() {
		s := newSite()
		s.set(func(s *site) { s.brokerDown = true })
		p := s.start()
		order := s.put()
		Eventually(func() any {
			if len(s.workFiles()) == 0 {
				return nil
			}
			return s.file(order)["stage"]
		}).Should(Equal("reported"))
		p.stop()
		starts := s.cluster.Starts()
		s.set(func(s *site) { s.brokerDown = false; s.down = true })
		s.start()
		Expect(s.result(order).EventType).To(Equal(messages.EventMilestoneCompleted))
		Expect(s.cluster.Starts()).To(Equal(starts))
	})

	It("of a long deploy are preceded by signs of progress", func() {
		s := newSite()
		s.running("old", 3)
		s.start()
		order := s.put(func(o *messages.Order) { o.MinHealthyMS, o.ProgressDeadlineMS = 50, 40 })
		s.result(order)
		kinds := map[string]int{}
		s.set(func(s *site) {
			for _, m := range s.results {
				r, _, err := messages.DecodeResult(m.Body)
				Expect(err).NotTo(HaveOccurred())
				kinds[r.EventType]++
			}
		})
		Expect(kinds[messages.EventMilestoneProgress]).To(BeNumerically(">=", 2))
	})
})

var _ = Describe("A damaged work file", func() {
	It("is set aside, and the next order is taken", func() {
		s := newSite()
		Expect(os.MkdirAll(filepath.Join(s.dir, "work"), 0o700)).To(Succeed())
		Expect(os.WriteFile(filepath.Join(s.dir, "work", "x.json"), []byte("{"), 0o600)).To(Succeed())
		s.start()
		s.result(s.put())
		Expect(filepath.Join(s.dir, "work", "x.json.damaged")).To(BeAnExistingFile())
	})
})
