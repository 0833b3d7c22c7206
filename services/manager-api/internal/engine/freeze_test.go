package engine_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/upgrade"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

var _ = Describe("A freeze", func() {
	frozen := func(w *world, ex component.ExchangeID) {
		GinkgoHelper()
		_, err := w.Freeze(ctx(), ex, "the database moves", nil)
		Expect(err).NotTo(HaveOccurred())
	}

	DescribeTable("lets nothing start", func(scope func(w *world) component.ExchangeID, held bool) {
		w := newWorld()
		u := w.request(w.component(component.Builder))
		frozen(w, scope(w))
		err := w.Start(ctx(), u.ID, w.exchange, w.judgement())
		if !held {
			Expect(err).NotTo(HaveOccurred())
			return
		}
		Expect(fault.CodeOf(err)).To(Equal(engine.CodeFrozen))
		Expect(err).To(MatchError(ContainSubstring("frozen until somebody ends it (the database moves): nothing starts")))
		Expect(w.state(u.ID)).To(Equal(upgrade.Requested), "it waits")
		Expect(w.Thaw(ctx(), scope(w))).To(Succeed())
		Expect(w.Start(ctx(), u.ID, w.exchange, w.judgement())).To(Succeed())
	},
		Entry("in its exchange", func(w *world) component.ExchangeID { return w.exchange }, true),
		Entry("anywhere, if it is of everything", func(*world) component.ExchangeID { return engine.Everything }, true),
		Entry("but elsewhere", func(w *world) component.ExchangeID {
			return component.ExchangeID(w.insert(`INSERT INTO messaging_exchanges
				(name, routing_key_fragment, routing_key, root_exchange_name) VALUES ('e', 'e', 'e', 'e') RETURNING id`))
		}, false),
	)

	It("lets what runs go on, and be rolled back", func() {
		w := newWorld()
		c := w.component(component.Builder)
		w.proven(c, 1)
		u := w.verifying(c)
		frozen(w, engine.Everything)
		w.outOfTime(u)
		Expect(w.state(u)).To(Equal(upgrade.RollingBack))
		w.runDeploy(u, "deploy_oa")
		w.beat(component.Builder, "", "v1", "h1", "h2")
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
		Expect(w.state(u)).To(Equal(upgrade.RolledBack))
	})

	It("lets an operator's rollback pass", func() {
		w := newWorld()
		c := w.component(component.Builder)
		first := w.proven(c, 1)
		frozen(w, w.exchange)
		u, err := w.RequestRollback(ctx(), engine.RollbackRequest{ComponentID: c, ReleaseID: first.ID})
		Expect(err).NotTo(HaveOccurred())
		Expect(w.Start(ctx(), u.ID, w.exchange, w.judgement())).To(Succeed())
	})

	It("holds workflows back, and scheduled ones wait for its end", func() {
		w := newWorld()
		w.exec(`UPDATE schema_info SET schedules_since = now() - interval '1 day'`)
		id := w.value(`INSERT INTO workflows (id, milestones, scheduled_start_time)
			VALUES (gen_random_uuid(), '["config"]', now() - interval '1 second') RETURNING id`)
		frozen(w, engine.Everything)
		Expect(fault.CodeOf(w.ExecuteWorkflow(ctx(), id, nil))).To(Equal(engine.CodeFrozen))
		Expect(w.StartScheduled(ctx())).To(Succeed())
		Expect(w.value(`SELECT count(*) FROM orders`)).To(Equal("0"))
		Expect(w.Thaw(ctx(), engine.Everything)).To(Succeed())
		Expect(w.StartScheduled(ctx())).To(Succeed())
		Expect(w.value(`SELECT count(*) FROM orders`)).To(Equal("1"))
	})

	It("costs no request its time: requests expire as long after its end as they would have without it", func() {
		w := newWorld()
		u := w.request(w.component(component.Builder))
		frozen(w, w.exchange)
		w.exec(`UPDATE upgrades SET created_at = now() - interval '25 hours'`)
		Expect(w.ExpireRequests(ctx())).To(Succeed())
		Expect(w.Thaw(ctx(), w.exchange)).To(Succeed())
		Expect(w.ExpireRequests(ctx())).To(Succeed())
		Expect(w.state(u.ID)).To(Equal(upgrade.Requested))
		w.exec(`UPDATE freezes SET until = now() - interval '25 hours'`)
		Expect(w.ExpireRequests(ctx())).To(Succeed())
		Expect(w.state(u.ID)).To(Equal(upgrade.Expired))
	})

	It("ends by itself at its time", func() {
		w := newWorld()
		until := time.Now().Add(time.Hour)
		_, err := w.Freeze(ctx(), w.exchange, "a demonstration", &until)
		Expect(err).NotTo(HaveOccurred())
		s, err := w.Snapshot(ctx(), w.exchange, false)
		Expect(err).NotTo(HaveOccurred())
		Expect(s.Freeze.Reason).To(Equal("a demonstration"))
		w.exec(`UPDATE freezes SET until = now() - interval '1 second'`)
		s, err = w.Snapshot(ctx(), w.exchange, false)
		Expect(err).NotTo(HaveOccurred())
		Expect(s.Freeze).To(BeNil())
		Expect(fault.Is(w.Thaw(ctx(), w.exchange), fault.NotFound)).To(BeTrue())
	})

	It("wakes the overseer of who waits, and is told to people and in the journal", func() {
		w := newWorld()
		w.request(w.component(component.Builder))
		frozen(w, engine.Everything)
		Expect(w.Thaw(ctx(), engine.Everything)).To(Succeed())
		Expect(w.events()).To(Equal([]string{"frozen warning", "thawed warning"}))
		Expect(w.codes("platform")).To(Equal([]string{"frozen", "thawed"}))
		Expect(w.outboxed()).To(ContainElement("overseer changed"))
	})
})
