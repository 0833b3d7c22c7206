package engine_test

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/times"
)

var _ = Describe("Deleting an exchange with what depends on it", func() {
	// executed is a workflow without upgrade that runs in the exchange.
	executed := func(w *world) string {
		GinkgoHelper()
		id := w.value(`INSERT INTO workflows (id, deployment_repo, milestones)
			VALUES (gen_random_uuid(), 'd', '["config","deploy"]') RETURNING id`)
		Expect(w.ExecuteWorkflow(ctx(), id, nil)).To(Succeed())
		return id
	}
	remove := func(w *world) func() error {
		return func() error { return w.DeleteExchange(ctx(), w.exchange, true) }
	}
	ended := `SELECT workflow_completed::text || ' ' || workflow_error || ' ' || failure_reason FROM workflows`

	It("tells people of the workflows that end with it, as of any other that fails", func() {
		w := newWorld()
		id := executed(w)
		Expect(remove(w)()).To(Succeed())
		Expect(w.value(ended)).To(Equal("true true exchange_deleted"))
		Expect(w.events()).To(Equal([]string{"workflow_failed error"}))
		Expect(w.codes("workflow/" + id)).To(Equal([]string{"workflow_started", "exchange_deleted"}))
		Expect(w.auditedSubjects("exchange_deleted")).To(HaveExactElements(
			fmt.Sprintf("exchange/%d", w.exchange), "workflow/"+id), "the cause, then its effect")
	})

	It("ends the workflow of an upgrade, which goes with its component", func() {
		w := newWorld()
		w.started(w.component(component.Builder))
		Expect(remove(w)()).To(Succeed())
		Expect(w.value(ended)).To(Equal("true true exchange_deleted"))
		Expect(w.value(`SELECT count(*) FROM upgrades`)).To(Equal("0"))
		Expect(w.value(`SELECT count(*) FROM leases`)).To(Equal("0"))
	})

	It("leaves a workflow alone that succeeds while it waits for it", func() {
		w := newWorldWith(3, func(*times.Times) {})
		executed(w)
		tx := database.Begin(`UPDATE workflows SET workflow_completed = true, workflow_error = false`)
		Expect(database.Behind(tx, remove(w), func() {})).To(Succeed())
		Expect(w.value(ended)).To(Equal("true false "))
		Expect(w.events()).To(BeEmpty())
	})

	It("is not held up by a workflow that is deleted while it waits for it", func() {
		w := newWorldWith(3, func(*times.Times) {})
		executed(w)
		tx := database.Begin(`DELETE FROM workflows`)
		Expect(database.Behind(tx, remove(w), func() {})).To(Succeed())
		Expect(w.value(`SELECT count(*) FROM messaging_exchanges`)).To(Equal("0"))
	})

	It("waits for a result in the order in which that locks: upgrade, workflow, and the exchange of its messages", func() {
		w := newWorldWith(3, func(*times.Times) {})
		w.started(w.component(component.Builder))
		tx := database.Begin(`SELECT id FROM upgrades FOR UPDATE`)
		Expect(database.Behind(tx, remove(w), func() {
			for _, sql := range []string{`UPDATE workflows SET updated_at = now()`, `UPDATE orders SET deadline = now()`,
				`INSERT INTO outbox (id, messaging_exchange_id, queue, type, body)
				SELECT gen_random_uuid(), id, 'overseer', 'changed', '{}' FROM messaging_exchanges`} {
				_, err := tx.Exec(sql)
				Expect(err).NotTo(HaveOccurred())
			}
		})).To(Succeed())
	})
})
