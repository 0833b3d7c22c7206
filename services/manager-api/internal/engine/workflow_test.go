package engine_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
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
		Entry("D20 a milestone that nobody knows", `["config","deploy_ecs"]`, "milestone_unknown"),
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

	It("that nobody claims waits in line while an executor of its queue works on another order", func() {
		w := newWorld()
		Expect(w.ExecuteWorkflow(ctx(), workflow(w, `["config"]`), nil)).To(Succeed())
		first := w.value(`SELECT id FROM orders`)
		Expect(w.ExecuteWorkflow(ctx(), workflow(w, `["config","deploy"]`), nil)).To(Succeed())
		w.claim(first, "exec-1")
		w.exec(`UPDATE orders SET confirmed_at = now() - interval '1 hour', deadline = now() - interval '1 second'
			WHERE id <> $1`, first)
		Expect(w.ResendUnclaimed(ctx(), []component.ExchangeID{w.exchange})).To(Succeed())
		Expect(w.value(`SELECT count(*) FROM workflows WHERE workflow_completed`)).To(Equal("0"))
		w.exec(`UPDATE orders SET confirmed_at = now() - interval '1 hour', deadline = now() - interval '1 second'
			WHERE id <> $1`, first)
		w.exec(`UPDATE leases SET expires_at = now() - interval '1 second' WHERE name LIKE 'order/%'`)
		Expect(w.ResendUnclaimed(ctx(), []component.ExchangeID{w.exchange})).To(Succeed())
		Expect(w.value(`SELECT failure_reason FROM workflows WHERE workflow_completed`)).To(Equal("order_unclaimed"))
	})

	It("in which nothing can move is abandoned in the end, also if its broker never took the order", func() {
		w := newWorld()
		Expect(w.ExecuteWorkflow(ctx(), workflow(w, `["config","deploy"]`), nil)).To(Succeed())
		Expect(w.AbandonWorkflows(ctx())).To(Succeed())
		Expect(w.value(`SELECT count(*) FROM workflows WHERE workflow_completed`)).To(Equal("0"))
		w.exec(`UPDATE workflows SET began_at = now() - interval '73 hours', step_began_at = now() - interval '73 hours'`)
		Expect(w.AbandonWorkflows(ctx())).To(Succeed())
		Expect(w.value(`SELECT count(*) FROM workflows WHERE workflow_completed`)).To(Equal("0"), "its order is young")
		w.exec(`UPDATE orders SET deadline = now() - interval '73 hours'`)
		Expect(w.AbandonWorkflows(ctx())).To(Succeed())
		Expect(w.value(`SELECT concat_ws(' ', workflow_completed::text, workflow_error::text, failure_cause, failure_reason)
			FROM workflows`)).To(Equal("true true environment abandoned"))
		Expect(w.value(`SELECT state FROM orders`)).To(Equal("closed"))
	})

	Describe("with a scheduled_start_time", func() {
		at := func(w *world, id, when string) {
			w.exec(`UPDATE workflows SET scheduled_start_time = now() + $2::interval WHERE id = $1`, id, when)
		}

		It("starts at that time, once, also if manager-api was away", func() {
			w := newWorld()
			w.exec(`UPDATE schema_info SET schedules_since = now() - interval '1 day'`)
			id := workflow(w, `["config","deploy"]`)
			at(w, id, "1 minute")
			Expect(w.StartScheduled(ctx())).To(Succeed())
			Expect(w.value(`SELECT count(*) FROM orders`)).To(Equal("0"))
			at(w, id, "-3 hours")
			Expect(w.StartScheduled(ctx())).To(Succeed())
			Expect(w.StartScheduled(ctx())).To(Succeed())
			Expect(w.outboxed()).To(Equal([]string{"deployer milestone_order"}))
			Expect(w.ExecuteWorkflow(ctx(), id, nil)).To(MatchError("Workflow has already been started"))
		})

		It("of before the rule does not start: nothing came of such a time", func() {
			w := newWorld()
			id := workflow(w, `["config","deploy"]`)
			at(w, id, "-30 days")
			Expect(w.StartScheduled(ctx())).To(Succeed())
			Expect(w.value(`SELECT count(*) FROM orders`)).To(Equal("0"))
		})

		It("waits in the milestone scheduled if it is executed before", func() {
			w := newWorld()
			id := workflow(w, `["scheduled","config"]`)
			at(w, id, "1 minute")
			Expect(w.ExecuteWorkflow(ctx(), id, nil)).To(Succeed())
			Expect(w.StartScheduled(ctx())).To(Succeed())
			w.exec(`UPDATE workflows SET began_at = now() - interval '73 hours', step_began_at = now() - interval '73 hours'`)
			Expect(w.AbandonWorkflows(ctx())).To(Succeed())
			Expect(w.value(`SELECT current_step || workflow_completed FROM workflows`)).To(Equal("scheduledfalse"))
			at(w, id, "-1 second")
			Expect(w.StartScheduled(ctx())).To(Succeed())
			Expect(w.value(`SELECT current_step FROM workflows`)).To(Equal("config"))
			Expect(w.outboxed()).To(Equal([]string{"deployer milestone_order"}))
		})

		It("fails in the milestone scheduled without a time, and if there is no exchange to run in", func() {
			w := newWorld()
			w.exec(`UPDATE schema_info SET schedules_since = now() - interval '1 day'`)
			Expect(w.ExecuteWorkflow(ctx(), workflow(w, `["scheduled"]`), nil)).To(Succeed())
			Expect(w.value(`SELECT failure_reason FROM workflows`)).To(Equal("schedule_missing"))
			id := workflow(w, `["config"]`)
			w.exec(`UPDATE workflows SET execute_options = '{"deploy_messaging_exchange_id": 99}' WHERE id = $1`, id)
			at(w, id, "-1 second")
			Expect(w.StartScheduled(ctx())).To(Succeed())
			Expect(w.value(`SELECT failure_reason FROM workflows WHERE id = $1`, id)).To(Equal("not_started"))
		})
	})

	Describe("with the milestone build", func() {
		It("orders it from the queue builder and goes on with its result, which needs no claim", func() {
			w := newWorld()
			Expect(w.ExecuteWorkflow(ctx(), workflow(w, `["build","config"]`), nil)).To(Succeed())
			Expect(w.outboxed()).To(Equal([]string{"builder milestone_order"}))
			o := order(w.value(`SELECT body FROM orders`))
			Expect(o.Token).To(BeNumerically(">", 0))
			built := messages.Result{EventType: messages.EventMilestoneCompleted, OrderID: o.OrderID, WorkflowID: o.WorkflowID,
				Attempt: 1, Token: o.Token + 1, At: time.Now()}
			Expect(w.tell(built)).To(Equal(engine.AppliedForeign), "a guessed token")
			built.Token = o.Token
			Expect(w.tell(built)).To(Equal(engine.AppliedDone))
			Expect(w.value(`SELECT current_step FROM workflows`)).To(Equal("config"))
		})

		It("is not sent again while a build takes its time, and fails at its deadline", func() {
			w := newWorld()
			Expect(w.ExecuteWorkflow(ctx(), workflow(w, `["build"]`), nil)).To(Succeed())
			w.exec(`UPDATE orders SET confirmed_at = now() - interval '20 minutes'`)
			Expect(w.ResendUnclaimed(ctx(), []component.ExchangeID{w.exchange})).To(Succeed())
			Expect(w.outboxed()).To(HaveLen(1))
			w.exec(`UPDATE orders SET deadline = now() - interval '1 second'`)
			Expect(w.ResendUnclaimed(ctx(), []component.ExchangeID{w.exchange})).To(Succeed())
			Expect(w.value(`SELECT failure_reason FROM workflows`)).To(Equal("build_unanswered"))
		})
	})
})
