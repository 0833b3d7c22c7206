package engine_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/lease"
	"github.com/openaperture/openaperture/pkg/managerapi"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

var _ = Describe("Orders and claims", func() {
	running := func(w *world) string {
		GinkgoHelper()
		return w.order(w.started(w.component(component.Builder)), "config")
	}
	ask := func(w *world, id, host, boot string, attempt int) (managerapi.Claim, error) {
		return w.Claim(ctx(), id, w.exchange, managerapi.ClaimRequest{Attempt: attempt, Hostname: host, BootID: boot})
	}

	// missedRenewal lets time pass in which the holder of a claim has not renewed it.
	missedRenewal := func(w *world) {
		GinkgoHelper()
		w.exec(`UPDATE leases SET expires_at = now() + interval '3.6 seconds' WHERE name LIKE 'order/%'`) // of 6
	}

	It("A7 of two executors one gets the order; the same process keeps its token, a restarted one gets a new one", func() {
		w := newWorld()
		id := running(w)
		first, err := ask(w, id, "a", "boot-1", 1)
		Expect(err).NotTo(HaveOccurred())
		_, err = ask(w, id, "b", "boot-1", 1)
		Expect(fault.CodeOf(err)).To(Equal(db.CodeHeld))
		again, err := ask(w, id, "a", "boot-1", 1)
		Expect(err).NotTo(HaveOccurred())
		Expect(again.Token).To(Equal(first.Token))
		missedRenewal(w)
		restarted, err := ask(w, id, "a", "boot-2", 1)
		Expect(err).NotTo(HaveOccurred())
		Expect(restarted.Token).To(BeNumerically(">", first.Token))
		_, err = w.Renew(ctx(), id, 0, first.Token)
		Expect(fault.CodeOf(err)).To(Equal(lease.CodeSuperseded))
		Expect(w.tell(result(first, configured))).To(Equal(engine.AppliedSuperseded))
		mine, err := w.ClaimsOf(ctx(), "a", w.exchange)
		Expect(err).NotTo(HaveOccurred())
		Expect(mine).To(HaveLen(1))
		Expect([]any{mine[0].Holder, mine[0].Token, mine[0].State}).To(Equal([]any{"a", restarted.Token, "claimed"}))
	})

	It("E11 of two hosts with one hostname the first keeps the order while it renews; a restart gets it after one "+
		"renewal that did not come", func() {
		w := newWorld()
		id := running(w)
		first, err := ask(w, id, "a", "boot-1", 1)
		Expect(err).NotTo(HaveOccurred())
		for range 3 {
			_, err = ask(w, id, "a", "boot-2", 1)
			Expect(fault.CodeOf(err)).To(Equal(engine.CodeBootAlive))
			Expect(fault.Is(err, fault.Unavailable)).To(BeTrue(), "an executor asks again, and forgets no work for it")
			w.exec(`UPDATE leases SET expires_at = now() + interval '4.2 seconds' WHERE name LIKE 'order/%'`) // 1.8 s later
			_, err = ask(w, id, "a", "boot-2", 1)
			Expect(fault.CodeOf(err)).To(Equal(engine.CodeBootAlive), "the renewal at a third may be on its way")
			_, err = w.Renew(ctx(), id, 0, first.Token)
			Expect(err).NotTo(HaveOccurred())
		}
		missedRenewal(w)
		restarted, err := ask(w, id, "a", "boot-2", 1)
		Expect(err).NotTo(HaveOccurred())
		Expect(restarted.Token).To(BeNumerically(">", first.Token))
		Expect(w.value(`SELECT taken_over FROM orders WHERE id = $1`, id)).To(Equal("false"))
		_, err = w.Renew(ctx(), id, 0, first.Token)
		Expect(fault.CodeOf(err)).To(Equal(lease.CodeSuperseded))
	})

	It("refuses old attempts, what is past its deadline, foreign exchanges and unknown orders", func() {
		w := newWorld()
		id := running(w)
		_, err := ask(w, id, "a", "b", 2)
		Expect(fault.CodeOf(err)).To(Equal(engine.CodeOldAttempt))
		_, err = w.Claim(ctx(), id, w.exchange+1, managerapi.ClaimRequest{Attempt: 1, Hostname: "a", BootID: "b"})
		Expect(fault.Is(err, fault.NotFound)).To(BeTrue())
		w.exec(`UPDATE orders SET deadline = now() - interval '1 second'`)
		_, err = ask(w, id, "a", "b", 1)
		Expect(fault.CodeOf(err)).To(Equal(engine.CodePastDeadline))
		_, err = ask(w, "0198c0de-0000-7000-8000-000000000000", "a", "b", 1)
		Expect(fault.Is(err, fault.NotFound)).To(BeTrue())
	})

	It("D1 an expired claim is the next one's, and the late result counts while nobody has it", func() {
		w := newWorld()
		id := running(w)
		k, err := ask(w, id, "a", "boot-1", 1)
		Expect(err).NotTo(HaveOccurred())
		w.exec(`UPDATE leases SET expires_at = now() - interval '1 second' WHERE name LIKE 'order/%'`)
		Expect(w.ExpireClaims(ctx(), nil)).To(Succeed())
		Expect(w.value(`SELECT state || attempt FROM orders`)).To(Equal("claimed1"),
			"results of that exchange may be on their way")
		Expect(w.ExpireClaims(ctx(), []component.ExchangeID{w.exchange})).To(Succeed())
		Expect(w.value(`SELECT state || attempt FROM orders`)).To(Equal("open2"))
		Expect(w.outboxed()).To(HaveLen(3), "request, order, and the order again")
		Expect(w.tell(result(k, configured))).To(Equal(engine.AppliedDone))
		Expect(w.value(`SELECT count(*) FROM orders WHERE milestone = 'deploy_oa'`)).To(Equal("1"))
	})

	It("an expired claim that nobody took over is renewed", func() {
		w := newWorld()
		id := running(w)
		k, err := ask(w, id, "a", "boot-1", 1)
		Expect(err).NotTo(HaveOccurred())
		w.exec(`UPDATE leases SET expires_at = now() - interval '1 second' WHERE name LIKE 'order/%'`)
		Expect(w.ExpireClaims(ctx(), []component.ExchangeID{w.exchange})).To(Succeed())
		renewed, err := w.Renew(ctx(), id, 0, k.Token)
		Expect(err).NotTo(HaveOccurred())
		Expect(renewed.ExpiresInMS).To(BeNumerically(">", 1000))
		Expect(w.value(`SELECT state FROM orders`)).To(Equal("claimed"))
		_, err = ask(w, id, "b", "boot-1", 2)
		Expect(fault.CodeOf(err)).To(Equal(db.CodeHeld))
	})

	It("after so many lost executors the workflow has failed", func() {
		w := newWorld()
		id := running(w)
		for attempt := 1; attempt <= w.times.OrderAttempts; attempt++ {
			_, err := ask(w, id, "a", "boot", attempt)
			Expect(err).NotTo(HaveOccurred())
			w.exec(`UPDATE leases SET expires_at = now() - interval '1 second' WHERE name LIKE 'order/%'`)
			Expect(w.ExpireClaims(ctx(), []component.ExchangeID{w.exchange})).To(Succeed())
		}
		Expect(w.value(`SELECT state || cause || verdict_code FROM upgrades`)).To(Equal("failedenvironmentexecutor_lost"))
		Expect(w.value(`SELECT verdict_message FROM upgrades`)).To(Equal(
			"milestone config was claimed 5 times and given up in silence, the last time by a: look at its log, and whether " +
				"it reaches manager-api"))
	})

	It("after an absence of manager-api every claim has its full time", func() {
		w := newWorld()
		_, err := ask(w, running(w), "a", "boot-1", 1)
		Expect(err).NotTo(HaveOccurred())
		Expect(w.RecordPresence(ctx())).To(BeFalse())
		w.exec(`UPDATE leases SET expires_at = now() - interval '1 second' WHERE name LIKE 'order/%'`)
		w.exec(`UPDATE ticks SET ticked_at = now() - interval '6 seconds'`)
		Expect(w.RecordPresence(ctx())).To(BeTrue())
		Expect(w.ExpireClaims(ctx(), []component.ExchangeID{w.exchange})).To(Succeed())
		Expect(w.value(`SELECT state || attempt FROM orders`)).To(Equal("claimed1"))
		Expect(w.RecordPresence(ctx())).To(BeFalse())
	})

	DescribeTable("after an absence of manager-api nobody is kept from what no one holds",
		func(attempt int, leave func(w *world, id string, k managerapi.Claim) error) {
			w := newWorld()
			id := running(w)
			k, err := ask(w, id, "a", "boot-1", 1)
			Expect(err).NotTo(HaveOccurred())
			Expect(w.RecordPresence(ctx())).To(BeFalse())
			Expect(leave(w, id, k)).To(Succeed())
			w.exec(`UPDATE ticks SET ticked_at = now() - interval '6 seconds'`)
			Expect(w.RecordPresence(ctx())).To(BeTrue())
			_, err = ask(w, id, "b", "boot-2", attempt)
			Expect(err).NotTo(HaveOccurred())
		},
		Entry("a claim that was released", 1, func(w *world, id string, k managerapi.Claim) error {
			return w.ReleaseClaim(ctx(), id, w.exchange, k.Token)
		}),
		Entry("an order that is open to the next one", 2, func(w *world, _ string, _ managerapi.Claim) error {
			w.exec(`UPDATE leases SET expires_at = now() - interval '1 second' WHERE name LIKE 'order/%'`)
			return w.ExpireClaims(ctx(), []component.ExchangeID{w.exchange})
		}),
	)

	It("a released claim is sent again at once, under a new message id", func() {
		w := newWorld()
		id := running(w)
		k, err := ask(w, id, "a", "boot-1", 1)
		Expect(err).NotTo(HaveOccurred())
		Expect(w.ReleaseClaim(ctx(), id, 0, k.Token)).To(Succeed())
		Expect(w.value(`SELECT count(*) FROM outbox WHERE order_id = $1`, id)).To(Equal("2"))
		_, err = ask(w, id, "b", "boot-1", 1)
		Expect(err).NotTo(HaveOccurred())
	})

	It("an order that was confirmed and not claimed is sent again", func() {
		w := newWorld()
		id := running(w)
		due, err := w.DueMessages(ctx(), []component.ExchangeID{w.exchange}, 10, time.Minute)
		Expect(err).NotTo(HaveOccurred())
		for _, m := range due {
			Expect(w.MessagesConfirmed(ctx(), []string{m.ID})).To(Succeed())
		}
		resend := func() { Expect(w.ResendUnclaimed(ctx(), []component.ExchangeID{w.exchange})).To(Succeed()) }
		resend()
		Expect(w.value(`SELECT count(*) FROM outbox WHERE order_id = $1`, id)).To(Equal("1"))
		w.exec(`UPDATE orders SET confirmed_at = now() - interval '6 seconds'`)
		resend()
		resend()
		Expect(w.value(`SELECT count(*) FROM outbox WHERE order_id = $1`, id)).To(Equal("2"))
	})

	It("one message has one effect, however often it comes", func() {
		w := newWorld()
		k := w.claim(running(w), "a")
		r := result(k, configured)
		for i, want := range []engine.Applied{engine.AppliedDone, engine.AppliedDuplicate} {
			applied, err := w.ApplyResult(ctx(), engine.Delivered{MessageID: "the-same-id"}, r)
			Expect(err).NotTo(HaveOccurred())
			Expect(applied).To(Equal(want), "delivery %d", i)
		}
		Expect(w.value(`SELECT count(*) FROM orders`)).To(Equal("2"))
		r.OrderID = "no-order"
		Expect(w.tell(r)).To(Equal(engine.AppliedUnknown))
	})

	DescribeTable("takes no result under a token that nobody was given", func(claimed bool, more int64) {
		w := newWorld()
		id := running(w)
		k := managerapi.Claim{Order: messages.Order{OrderID: id, WorkflowID: w.value(`SELECT workflow_id
			FROM orders`), Attempt: 1}}
		if claimed {
			k = w.claim(id, "a")
		}
		k.Token += more
		Expect(w.tell(result(k, configured))).To(Equal(engine.AppliedForeign))
		Expect(w.value(`SELECT count(*) FROM orders WHERE ended_at IS NULL`)).To(Equal("1"))
		Expect(w.codes("workflow/" + k.Order.WorkflowID)).To(ContainElement("token_unknown"))
	},
		Entry("above the claim's", true, int64(1)),
		Entry("of an order that was never claimed", false, int64(7)),
		Entry("of one that was never claimed, and none", false, int64(0)),
	)

	It("takes no result from another exchange's queue, nor lets that use up the id of a true one", func() {
		w := newWorld()
		k := w.claim(running(w), "a")
		from := func(queue string) (engine.Applied, error) {
			return w.ApplyResult(ctx(), engine.Delivered{MessageID: "the-same-id", Queue: queue}, result(k, configured))
		}
		Expect(from("elsewhere.workflow_orchestration")).To(Equal(engine.AppliedForeign))
		Expect(w.value(`SELECT state FROM orders`)).To(Equal("claimed"))
		Expect(w.codes("workflow/" + k.Order.WorkflowID)).To(ContainElement("queue_foreign"))
		Expect(from("here.workflow_orchestration")).To(Equal(engine.AppliedDone))
	})

	It("progress resets the clock and the order's deadline", func() {
		w := newWorld()
		k := w.claim(running(w), "a")
		w.exec(`UPDATE upgrades SET clock_left = 5`)
		w.exec(`UPDATE orders SET deadline = now() + interval '1 second'`)
		Expect(w.tell(result(k, func(r *messages.Result) {
			r.EventType, r.Message = messages.EventMilestoneProgress,
				"1 of 2"
		}))).To(Equal(engine.AppliedDone))
		Expect(w.value(`SELECT clock_left FROM upgrades`)).To(Equal("60000"))
		Expect(w.value(`SELECT (deadline > now() + interval '1 minute')::text FROM orders`)).To(Equal("true"))
		Expect(w.value(`SELECT event_log->>-1 FROM workflows`)).To(HaveSuffix("1 of 2"))
	})
})
