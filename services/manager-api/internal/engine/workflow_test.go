package engine_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
)

var _ = Describe("A workflow that was made over REST", func() {
	workflow := func(w *world, milestones string) string {
		GinkgoHelper()
		return w.value(`INSERT INTO workflows (id, deployment_repo, milestones) VALUES (gen_random_uuid(), 'd', $1)
			RETURNING id`, milestones)
	}

	It("is executed once, by the same engine", func() {
		w := newWorld()
		id := workflow(w, `["config","deploy"]`)
		Expect(w.ExecuteWorkflow(ctx(), id, []byte(`{"force_build":true}`))).To(Succeed())
		Expect(w.ExecuteWorkflow(ctx(), id, nil)).To(MatchError("Workflow has already been started"))
		Expect(w.outboxed()).To(Equal([]string{"deployer milestone_order"}))
		w.tell(result(w.claim(w.value(`SELECT id FROM orders`), "e"), configured))
		w.tell(result(w.claim(w.value(`SELECT id FROM orders WHERE milestone = 'deploy'`), "e"), deployed))
		Expect(w.value(`SELECT workflow_completed::text || workflow_error || current_step || workflow_duration
			FROM workflows`)).To(Equal("truefalsedeploy0 second(s)"))
		Expect(w.value(`SELECT jsonb_array_length(event_log) FROM workflows`)).To(Equal("5"))
		Expect(w.ExecuteWorkflow(ctx(), id, nil)).To(MatchError("Workflow has already completed"))
	})

	DescribeTable("fails at once where it cannot be executed to its end", func(milestones, reason string) {
		w := newWorld()
		id := workflow(w, milestones)
		Expect(w.ExecuteWorkflow(ctx(), id, nil)).To(Succeed())
		Expect(w.value(`SELECT failure_reason || workflow_completed || workflow_error
			FROM workflows`)).To(Equal(reason + "truetrue"))
		Expect(w.events()).To(Equal([]string{"workflow_failed error"}))
	},
		Entry("D20 a milestone that nobody knows", `["config","build","deploy"]`, "milestone_unknown"),
		Entry("no milestones", `[]`, "milestone_unknown"),
		Entry("nothing to deploy", `["deploy"]`, "no_units"),
	)

	It("that nobody claims fails at its order's deadline", func() {
		w := newWorld()
		Expect(w.ExecuteWorkflow(ctx(), workflow(w, `["config","deploy"]`), nil)).To(Succeed())
		w.exec(`UPDATE orders SET confirmed_at = now() - interval '1 hour', deadline = now() - interval '1 second'`)
		Expect(w.ResendUnclaimed(ctx(), []component.ExchangeID{w.exchange})).To(Succeed())
		Expect(w.value(`SELECT failure_reason FROM workflows`)).To(Equal("order_unclaimed"))
		Expect(w.value(`SELECT message FROM system_events`)).To(HaveSuffix(
			"no executor claimed milestone config until its deadline: start one for the queue deployer of exchange 1, or look " +
				"at its log"))
	})
})
