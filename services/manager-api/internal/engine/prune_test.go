package engine_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/times"
)

var _ = Describe("Pruning", func() {
	It("drops messages that only ring, and keeps orders", func() {
		w := newWorld()
		w.started(w.component(component.Builder))
		w.exec(`UPDATE outbox SET created_at = now() - interval '2 minutes'`)
		Expect(w.Prune(ctx())).To(Succeed())
		Expect(w.outboxed()).To(Equal([]string{"deploy_oa milestone_order"}))
	})

	It("ends quarantines whose time is over", func() {
		w := newWorldWith(1, func(t *times.Times) { t.QuarantineExpiry = time.Hour })
		w.exec(`INSERT INTO quarantines (id, messaging_exchange_id, component_type, source_repo, source_repo_git_ref, reason,
			message, expires_at)
			VALUES (gen_random_uuid(), $1, 'builder', 's', 'v', 'r', 'm', now())`, w.exchange)
		Expect(w.Prune(ctx())).To(Succeed())
		Expect(w.value(`SELECT count(*) FROM quarantines`)).To(Equal("0"))
		Expect(w.codes("exchange/1")).To(ContainElement("quarantine_expired"))
	})
})
