package dispatch_test

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/rabbittest"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/dispatch"
)

// looks is how often the relay of a broker has looked into the outbox.
func (r *rig) looks(broker string) float64 {
	GinkgoHelper()
	families, err := r.metrics.Gather()
	Expect(err).NotTo(HaveOccurred())
	for _, f := range families {
		if f.GetName() != "openaperture_outbox_looks_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == "manager-api@"+broker {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func (r *rig) rung(id component.ExchangeID) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rings[id]
}

var _ = Describe("The outbox", func() {
	It("is looked into after a commit by the relay of the broker that has something to send, and by no other", func() {
		r := start(func(c *dispatch.Config) { c.Poll = time.Hour }) // so that commits alone wake
		far := rabbittest.NewHost()
		broker := r.broker("far", far, nil)
		id, name := r.registerOn("far", broker), strconv.FormatInt(broker, 10)
		Eventually(r.brokers.Ready, "10s").WithArguments(ctx()).Should(Succeed())
		Eventually(func() int { return far.Depth("far.deployer") }, "10s").Should(BeZero())
		Eventually(r.brokers.Others, "10s").WithArguments(ctx()).Should(Succeed())
		own, other := r.looks("own"), r.looks(name)

		for n := range 5 {
			r.workflow(r.exchange)
			received(r.host, "here.deployer")
			Expect(r.rung(r.exchange)).To(Equal(n + 1))
		}
		r.broker("unused", nil, nil) // a commit that leaves no message
		Expect(r.rung(r.exchange)).To(Equal(5))
		Expect(r.rung(id)).To(BeZero())
		Expect(r.looks("own")).To(BeNumerically(">", own))
		Expect(r.looks(name)).To(Equal(other))

		r.workflow(id)
		received(far, "far.deployer")
		Expect(r.rung(id)).To(Equal(1))
		Expect(r.looks(name)).To(BeNumerically(">", other))
	})
})

var _ = Describe("What can never be sent or stored", func() {
	const unpublished = `SELECT count(*) FROM outbox WHERE published_at IS NULL`

	It("fails its order at once, with the cause, if it is too large as it is sent (fault 8)", func() {
		r := start()
		id := r.value(`INSERT INTO workflows (id, milestones) VALUES (gen_random_uuid(), '["config"]') RETURNING id`)
		// Small as it comes: what the database makes of it has a space behind every comma.
		options := fmt.Sprintf(`{"deploy_messaging_exchange_id":%d,"list":[%s1]}`, r.exchange, strings.Repeat("1,", 100_000))
		Expect(len(options)).To(BeNumerically("<", 250_000))
		Expect(r.ExecuteWorkflow(ctx(), id, []byte(options))).To(Succeed())
		Expect(r.value(`SELECT failure_reason || ' ' || failure_cause FROM workflows`)).To(HavePrefix("unit_invalid"))
		Expect(r.value(`SELECT event_log::text FROM workflows`)).To(MatchRegexp(`a milestone_order of \d+ bytes exceeds`))
		Expect(r.value(unpublished)).To(Equal("0"))
	})

	It("fails its order at once if it is in the outbox already, and delays nobody (fault 8)", func() {
		host := rabbittest.NewHost()
		proxy := rabbittest.NewProxy(host.Address())
		address := proxy.Address()
		r := startAt(host, host.Through(address))
		Eventually(r.brokers.Ready, "10s").WithArguments(ctx()).Should(Succeed())
		proxy.Close()
		bad, good := r.workflow(r.exchange), r.workflow(r.exchange)
		_, err := r.db.Exec(`UPDATE outbox SET body = jsonb_build_object('x', repeat('x', 300000)) WHERE correlation_id = $1`,
			bad) // such as by a manager-api of before the rule
		Expect(err).NotTo(HaveOccurred())
		back := rabbittest.NewProxyAt(address, host.Address())
		DeferCleanup(back.Close)
		Expect(received(host, "here.deployer").WorkflowID).To(Equal(good))
		Eventually(func() string { return r.value(`SELECT coalesce(failure_reason, '') FROM workflows WHERE id = $1`, bad) },
			"5s").Should(Equal("order_unsendable"))
		Expect(r.value(`SELECT event_log::text FROM workflows WHERE id = $1`, bad)).To(
			ContainSubstring("the order for config cannot be sent: not publishable: body of 300009 bytes exceeds 262144"))
		Eventually(func() string { return r.value(unpublished) }).Should(Equal("0"))
	})

	It("is dead-lettered at once if it is a result that the database refuses, and not after 20 tries", func() {
		r := start()
		r.workflow(r.exchange)
		o := received(r.host, "here.deployer")
		good := r.answer(o)
		bad := good
		bad.EventType, bad.Message = messages.EventMilestoneProgress, "half way\x00"
		r.host.Publish("here.workflow_orchestration", publishing(bad), publishing(good))
		Eventually(func() int { return r.host.Depth("here.workflow_orchestration_error") }, "3s").Should(Equal(1))
		Eventually(func() string { return r.value(`SELECT workflow_completed::text FROM workflows`) },
			"5s").Should(Equal("true"))
	})
})
