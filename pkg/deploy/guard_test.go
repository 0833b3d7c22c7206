package deploy_test

import (
	"bytes"
	"os"
	"regexp"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/blame"
	"github.com/openaperture/openaperture/pkg/deploy"
	"github.com/openaperture/openaperture/pkg/deploy/failure"
	"github.com/openaperture/openaperture/pkg/deploy/runtime"
	messages "github.com/openaperture/openaperture/proto-messages"
)

var _ = Describe("A deploy of manager-api", func() {
	manager := func(o *messages.Order) { o.ComponentType, o.ProgressDeadlineMS = "manager", 300 }
	// unsettled is a site whose manager-api has learned of its own deploy and does not settle the order.
	unsettled := func(watched bool) (s *site, p *process, order string) {
		GinkgoHelper()
		s = newSite()
		s.running("old", 1)
		s.set(func(s *site) { s.settles, s.watched = false, watched })
		p = s.start()
		order = s.put(manager)
		s.result(order)
		return s, p, order
	}

	It("is undone when its order is not settled in time", func() {
		s := newSite()
		s.running("old", 2)
		s.set(func(s *site) { s.ignores = true }) // ready, but deaf
		s.start()
		order := s.put(manager)
		Eventually(s.shows).Should(Equal([]string{"1:new", "2:new", "3:new"}))
		Eventually(func() int { return len(s.reported(order)) }).Should(Equal(2))
		r := s.reported(order)[1]
		Expect(reasons(r)).To(Equal(failed(blame.NotSettled)))
		Expect([]bool{r.Undone, r.Restored}).To(Equal([]bool{true, true}))
		Expect(s.shows()).To(Equal([]string{"1:old", "2:old"}))
		Eventually(s.workFiles).Should(BeEmpty())
	})

	It("is undone by the next start, also while manager-api does not answer at all", func() {
		s, p, order := unsettled(false)
		Eventually(func() any { return s.file(order)["stage"] }).Should(Equal("confirmed"))
		p.stop()
		s.set(func(s *site) { s.down = true })
		s.start()
		Eventually(s.shows).Should(Equal([]string{"1:old"}))
		Eventually(func() int { return len(s.reported(order)) }).Should(Equal(2))
	})

	It("is held against a version that does not answer, as soon as the one before it does", func() {
		s, _, order := unsettled(false)
		s.set(func(s *site) { s.mute = "new" })
		Eventually(func() []string { return reasons(s.result(order)) }).Should(Equal(failed(blame.NotSettled)))
		Expect(s.result(order).Message).To(ContainSubstring("did not answer"))
		Expect(s.shows()).To(Equal([]string{"1:old"}))
	})

	It("is not held against the version while manager-api did not answer at all", func() {
		s, _, order := unsettled(false)
		s.set(func(s *site) { s.down = true })
		Eventually(func() []string { return reasons(s.result(order)) }).Should(Equal(failed(blame.ManagerSilent)))
		Expect(s.shows()).To(Equal([]string{"1:old"}))
	})

	It("stays as long as manager-api has learned of it and keeps its clock, though nobody judges", func() {
		s, _, order := unsettled(true)
		Consistently(s.shows, "700ms").Should(Equal([]string{"1:new", "2:new", "3:new"}))
		s.set(func(s *site) { s.orders[order].Watched = false })
		Eventually(s.shows).Should(Equal([]string{"1:old"}))
		Eventually(func() []string { return reasons(s.result(order)) }).Should(Equal(failed(blame.NotSettled)))
	})

	It("stays while the broker is away: nobody could have learned of it", func() {
		s := newSite()
		s.running("old", 1)
		s.set(func(s *site) { s.ignores = true })
		s.start()
		order := s.put(manager)
		s.result(order)
		s.set(func(s *site) { s.brokerDown = true })
		Consistently(s.shows, "700ms").Should(Equal([]string{"1:new", "2:new", "3:new"}))
		s.set(func(s *site) { s.brokerDown = false })
		Eventually(s.shows).Should(Equal([]string{"1:old"}))
	})

	It("is given its time again by a start: an executor that was away saw nothing of it", func() {
		s, p, order := unsettled(false)
		Eventually(func() any { return s.file(order)["stage"] }).Should(Equal("confirmed"))
		p.stop()
		s.set(func(s *site) { s.down = true })
		path := s.workFiles()[0]
		text, err := os.ReadFile(path)
		Expect(err).NotTo(HaveOccurred())
		aged := regexp.MustCompile(`"confirmed_at":"[^"]*"`).ReplaceAll(text, []byte(`"confirmed_at":"2026-01-01T00:00:00Z"`))
		aged = bytes.ReplaceAll(aged, []byte(`"progress_deadline":300`), []byte(`"progress_deadline":3000`))
		Expect(aged).NotTo(Equal(text))
		Expect(os.WriteFile(path, aged, 0o600)).To(Succeed())
		s.start()
		Consistently(s.shows, "1s").Should(Equal([]string{"1:new", "2:new", "3:new"}))
		s.set(func(s *site) { s.down, s.orders[order].Settled = false, true })
		Eventually(s.workFiles).Should(BeEmpty())
		Expect(s.shows()).To(Equal([]string{"1:new", "2:new", "3:new"}))
	})

	It("is undone later, when the cluster does not answer at first", func() {
		s := newSite()
		s.running("old", 1)
		s.set(func(s *site) { s.ignores = true })
		s.start()
		order := s.put(manager, func(o *messages.Order) { o.HealthDeadlineMS = 200 })
		s.result(order)
		s.set(func(s *site) { s.clusterSays = runtime.ErrUnreachable })
		Consistently(func() int { return len(s.reported(order)) }, "1s").Should(Equal(1), "an undo is not given up")
		s.set(func(s *site) { s.clusterSays = nil })
		Eventually(s.shows).Should(Equal([]string{"1:old"}))
		Eventually(func() bool { return s.result(order).Undone }).Should(BeTrue())
	})

	DescribeTable("that failed half way is undone, when nobody learns of that and as soon as the cluster answers again",
		func(broken error, reason failure.Reason) {
			s := newSite()
			s.running("old", 1)
			breaks(s, "new")
			s.applied = func() { s.down, s.clusterSays, s.applied = true, broken, func() {} }
			s.start()
			order := s.put(manager, impatient)
			Expect(reasons(s.result(order))).To(Equal(failed(reason)))
			Expect(s.result(order).Touched).To(BeTrue())
			Consistently(func() int { return len(s.reported(order)) }, "700ms").Should(Equal(1), "an undo is not given up")
			s.set(func(s *site) { s.clusterSays = nil })
			Eventually(s.shows).Should(Equal([]string{"1:old"}))
			Eventually(func() bool { return s.result(order).Undone }).Should(BeTrue())
			Expect(reasons(s.result(order))).To(Equal(failed(reason)), "why it failed is known")
		},
		Entry("it did not answer", runtime.ErrUnreachable, failure.RuntimeUnreachable),
		Entry("it refused", runtime.ErrRefused, failure.RuntimeRefused),
	)

	It("that failed half way is left to a manager-api that has learned of that", func() {
		s := newSite()
		s.running("old", 1)
		breaks(s, "new")
		s.applied = func() { s.clusterSays = runtime.ErrRefused }
		s.start()
		order := s.put(manager, impatient)
		s.result(order)
		Eventually(s.workFiles).Should(BeEmpty())
		Expect(s.reported(order)).To(HaveLen(1))
	})

	// again has the order's second attempt executed while the guard is over the first one.
	again := func(s *site, order string) {
		GinkgoHelper()
		var second messages.Order
		s.set(func(s *site) {
			v := s.orders[order]
			v.Attempt = 2
			second = *v.Order
		})
		second.Attempt = 2
		s.queue <- second
	}
	// guarded waits until the guard has begun.
	guarded := func(s *site) { GinkgoHelper(); Eventually(s.count("order"), "5s").ShouldNot(BeZero()) }
	// deaf is a site whose manager-api has not learned of a confirmed deploy; its clock is moved by pass.
	deaf := func() (s *site, order string, restart func(), pass func(time.Duration)) {
		var ahead atomic.Int64
		clock := func(c *deploy.Config) {
			c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		}
		s = newSite()
		s.running("old", 1)
		s.set(func(s *site) { s.ignores = true })
		p := s.start(clock)
		order = s.put(manager, func(o *messages.Order) {
			o.ProgressDeadlineMS, o.Deadline = time.Hour.Milliseconds(), time.Now().Add(24*time.Hour)
		})
		s.result(order)
		guarded(s)
		restart = func() {
			s.set(func(s *site) { s.kill() })
			Eventually(p.dead).Should(BeClosed())
			s.set(func(s *site) { s.trace = nil })
			p = s.start(clock)
		}
		return s, order, restart, func(d time.Duration) { ahead.Add(int64(d)) }
	}

	It("returns to what was there before its first attempt, and no attempt that finds it done gives it more time", func() {
		s, order, _, pass := deaf()
		pass(50 * time.Minute)
		again(s, order)
		Eventually(func() int { return len(s.reported(order)) }).Should(Equal(2))
		Expect(s.result(order).ReplacedUnits()).To(HaveLen(1))
		Expect(s.result(order).ReplacedUnits()[0].Options).To(Equal(unitOf("old").Options))
		s.set(func(s *site) { s.down = true })
		pass(20 * time.Minute)
		Eventually(s.shows, "5s").Should(Equal([]string{"1:old"}))
		Eventually(func() bool { return s.result(order).Undone }).Should(BeTrue())
	})

	It("returns to what was there before its first attempt, also when the executor is killed in the second one", func() {
		s, order, restart, pass := deaf()
		s.set(func(s *site) { s.clusterSays = runtime.ErrUnreachable })
		again(s, order)
		Eventually(func() any { return s.file(order)["stage"] }).Should(Equal("rolling"))
		s.set(func(s *site) { s.down = true })
		restart()
		s.set(func(s *site) { s.clusterSays = nil })
		guarded(s)
		Expect(s.reported(order)).To(HaveLen(2))
		pass(2 * time.Hour)
		Eventually(s.shows, "5s").Should(Equal([]string{"1:old"}))
	})

	It("is undone by the next start as soon as the cluster answers: what was due stays due", func() {
		s, order, restart, pass := deaf()
		s.set(func(s *site) { s.clusterSays = runtime.ErrUnreachable })
		pass(2 * time.Hour)
		Eventually(func() any { return s.file(order)["stage"] }, "5s").Should(Equal("undoing"))
		restart()
		Eventually(s.count("list")).Should(BeNumerically(">", 1))
		pass(time.Minute) // more than its health deadline
		guarded(s)
		s.set(func(s *site) { s.clusterSays = nil })
		Eventually(s.shows, "5s").Should(Equal([]string{"1:old"}))
	})

	It("stays under guard while its second attempt is somebody else's", func() {
		s, order, _, pass := deaf()
		s.set(func(s *site) { s.orders[order].Holder = "elsewhere" })
		again(s, order)
		s.result(s.put(probe)) // the attempt was taken from the queue
		s.set(func(s *site) { s.down = true })
		pass(2 * time.Hour)
		Eventually(s.shows, "5s").Should(Equal([]string{"1:old"}))
	})

	It("stays when its order is settled", func() {
		s := newSite()
		s.running("old", 1)
		s.start()
		order := s.put(manager)
		s.result(order)
		Eventually(s.workFiles).Should(BeEmpty())
		Consistently(s.shows, "400ms").Should(Equal([]string{"1:new", "2:new", "3:new"}))
	})

	It("is not guarded any more once a newer deploy has begun", func() {
		s := newSite()
		s.running("old", 1)
		s.set(func(s *site) { s.settles = false })
		s.start()
		s.result(s.put(manager))
		second := s.put(manager, func(o *messages.Order) {
			o.DeployableUnits = []messages.UnitDefinition{unitOf("newer")}
			o.ProgressDeadlineMS = 3_600_000
		})
		s.result(second)
		Consistently(s.shows, "400ms").Should(Equal([]string{"1:newer", "2:newer", "3:newer"}))
	})

	It("of another type is never undone", func() {
		s := newSite()
		s.running("old", 1)
		s.set(func(s *site) { s.ignores = true })
		s.start()
		order := s.put(func(o *messages.Order) { o.ProgressDeadlineMS = 50 })
		s.result(order)
		Consistently(s.shows, "300ms").Should(Equal([]string{"1:new", "2:new", "3:new"}))
	})
})
