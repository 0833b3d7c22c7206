package deploy_test

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/deploy"
	"github.com/openaperture/openaperture/pkg/deploy/failure"
	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	messages "github.com/openaperture/openaperture/proto-messages"
)

var _ = Describe("Claims", func() {
	It("are renewed while the work goes on, and the work goes on while manager-api is away", func() {
		s := newSite()
		s.running("old", 1)
		s.start()
		order := s.put(func(o *messages.Order) { o.MinHealthyMS = 150 })
		Eventually(s.get(func(s *site) int { return s.renewals })).Should(BeNumerically(">", 1))
		s.set(func(s *site) { s.down = true })
		Expect(s.result(order).EventType).To(Equal(messages.EventMilestoneCompleted))
		Expect(s.shows()).To(Equal([]string{"1:new", "2:new", "3:new"}))
	})

	It("that are superseded, as by a cancel, end the work: nothing more is touched or reported (D15)", func() {
		s := newSite()
		s.running("old", 3)
		s.set(func(s *site) { s.superseded = true })
		s.start()
		order := s.put(func(o *messages.Order) { o.MinHealthyMS = 10_000 })
		Eventually(s.workFiles).ShouldNot(BeEmpty())
		Eventually(s.workFiles).Should(BeEmpty())
		shown := s.shows()
		Expect(shown).To(ContainElements("2:old", "3:old"))
		Consistently(func() int { return len(s.reported(order)) }, "100ms").Should(BeZero())
		Expect(s.shows()).To(Equal(shown))
	})

	It("are fenced by the cluster: a higher token there, of a newer order, ends the work as well (D18)", func() {
		s := newSite()
		d := unitOf("other")
		d.Name = "overseer@1.service"
		Expect(s.cluster.Apply(context.Background(), d, 99, false)).To(Succeed())
		s.set(func(s *site) { s.superseded = true })
		s.start()
		order := s.put()
		Eventually(s.get(func(s *site) int { return len(s.tokens) })).ShouldNot(BeZero()) // perhaps twice
		Eventually(func() bool { return len(s.workFiles()) == 0 }).Should(BeTrue())
		Consistently(func() int { return len(s.reported(order)) }, "100ms").Should(BeZero())
		Expect(s.shows()).To(Equal([]string{"1:other"}))
	})

	DescribeTable("are reported to be behind, when the cluster has seen a higher token and manager-api no higher claim",
		func(runs string, n int, touched bool) {
			s := newSite()
			s.running("old", 3)
			d := unitOf(runs)
			d.Name = fmt.Sprintf("overseer@%d.service", n)
			Expect(s.cluster.Apply(context.Background(), d, 99, true)).To(Succeed())
			s.start()
			r := s.result(s.put())
			Expect(reasons(r)).To(Equal(failed(failure.TokensBehind)))
			Expect(r.Touched).To(Equal(touched))
			Expect(r.Message).To(And(ContainSubstring("holds token 99, which is higher than 1"),
				ContainSubstring("setval('lease_tokens'")))
		},
		Entry("at the first apply", "old", 1, false),
		Entry("half way", "old", 2, true),
		Entry("at what is left as it is", "new", 2, false),
	)

	It("fence what they leave as it is", func() {
		s := newSite()
		s.running("new", 3)
		s.start()
		r := s.result(s.put())
		Expect(r.Touched).To(BeFalse())
		d := unitOf("older")
		d.Name = "overseer@2.service"
		Expect(s.cluster.Apply(context.Background(), d, r.Token-1, false)).To(MatchError(runtime.ErrSuperseded))
	})

	It("are given back at a stop, even if the instance in hand does not get healthy in time", func() {
		s := newSite()
		breaks(s, "new")
		p := s.start(func(c *deploy.Config) { c.StopLimit = 50 * time.Millisecond })
		order := s.put()
		Eventually(s.shows).Should(Equal([]string{"1:new"}))
		p.stop()
		s.set(func(s *site) { Expect(s.released).To(Equal([]string{order})) })
		Expect(s.workFiles()).To(HaveLen(1))
		Expect(s.reported(order)).To(BeEmpty())
	})

	It("are taken again by who had them first, when the other one gives them back too", func() {
		s := newSite()
		s.running("old", 1)
		hasty := func(c *deploy.Config) { c.StopLimit = 50 * time.Millisecond }
		first := s.start(hasty)
		order := s.put(func(o *messages.Order) { o.MinHealthyMS = 60_000 })
		Eventually(s.shows).Should(ContainElement("1:new"))
		first.stop()
		again := func() { s.set(func(s *site) { s.queue <- *s.orders[order].Order }) }
		again()
		second := s.start(hasty, func(c *deploy.Config) {
			c.Hostname, c.StateDir = "other.deployer-oa-1",
				GinkgoT().TempDir()
		})
		Eventually(s.get(func(s *site) int { return len(s.tokens) })).Should(Equal(2))
		s.start()
		Eventually(s.workFiles).Should(BeEmpty())
		second.stop()
		s.set(func(s *site) { s.orders[order].Order.MinHealthyMS = 0 })
		again()
		Expect(s.result(order).Token).To(Equal(int64(3)))
	})

	It("wait for manager-api, with the delivery kept", func() {
		s := newSite()
		s.set(func(s *site) { s.down = true })
		s.start()
		order := s.put()
		Consistently(func() int { return len(s.reported(order)) }, "100ms").Should(BeZero())
		s.set(func(s *site) { s.down = false })
		Expect(s.result(order).EventType).To(Equal(messages.EventMilestoneCompleted))
	})

	It("that another host holds are forgotten, and the next order is taken", func() {
		s := newSite()
		s.start()
		other := s.put()
		s.set(func(s *site) { s.orders[other].Holder = "elsewhere" })
		s.result(s.put())
	})

	It("of this host are resumed at a start, under a new token", func() {
		s := newSite()
		order := s.put()
		<-s.queue // acked by the process that died
		s.set(func(s *site) { s.orders[order].State, s.orders[order].Holder, s.token = "claimed", host, 5 })
		s.start()
		Expect(s.result(order).Token).To(Equal(int64(6)))
	})

	It("of a process that crashed are resumed as soon as that process is seen not to renew them (E11)", func() {
		s := newSite()
		order := s.put()
		<-s.queue // acked by the process that died
		s.set(func(s *site) {
			s.orders[order].State, s.orders[order].Holder, s.token, s.bootAlive = "claimed", host, 5, 3
		})
		s.start()
		Expect(s.result(order).Token).To(Equal(int64(6)))
	})

	It("of a process that was killed amid a deploy go on at once: its work file has their token (D1)", func() {
		s := newSite()
		s.running("old", 3)
		s.applied = func() { s.kill(); s.applied = func() {} }
		killed := s.start()
		order := s.put()
		Eventually(killed.dead).Should(BeClosed())
		s.set(func(s *site) { s.bootAlive = 1000 })
		began := time.Now()
		s.start(func(c *deploy.Config) { c.Patience = time.Minute })
		Expect(s.result(order).Token).To(Equal(int64(1)))
		Expect(time.Since(began)).To(BeNumerically("<", 30*time.Second))
	})

	It("are given back at a graceful stop, after the instance in hand", func() {
		s := newSite()
		s.running("old", 3)
		p := s.start()
		order := s.put(func(o *messages.Order) { o.MinHealthyMS = 100 })
		Eventually(s.shows).Should(ContainElement("1:new"))
		p.stop()
		Expect(s.shows()).To(Equal([]string{"1:new", "2:old", "3:old"}))
		s.set(func(s *site) { Expect(s.released).To(Equal([]string{order})) })
		Expect(s.workFiles()).To(HaveLen(1))
		s.start() // finds the file, and what to return to
		r := s.result(order)
		Expect(r.EventType).To(Equal(messages.EventMilestoneCompleted))
		Expect(r.Token).To(Equal(int64(2)))
		Expect(r.ReplacedUnits()[0].Options).To(Equal(unitOf("old").Options))
	})
})
