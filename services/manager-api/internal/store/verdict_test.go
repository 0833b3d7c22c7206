package store_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	messages "github.com/openaperture/openaperture/proto-messages"
)

var _ = Describe("A verdict", func() {
	DescribeTable("is one sentence; the failing instance's log is kept with the decision and with the workflow", func(message, log string) {
		w := newWorld()
		c := w.component(component.Builder)
		w.proven(c, 1)
		u := w.started(c)
		w.runConfig(u)
		w.tell(result(w.claim(w.order(u, "deploy_oa"), "exec-1"), func(r *messages.Result) {
			failed(messages.CauseVersion, "deploy_unhealthy", true)(r)
			r.Message, r.Log = message, log
		}))
		shown, err := w.Upgrade(ctx(), u)
		Expect(err).NotTo(HaveOccurred())
		Expect(shown.Verdict.Message).To(Equal("b@1 did not get healthy: set another ref"))
		Expect(w.value(`SELECT message FROM quarantines`)).To(Equal(shown.Verdict.Message))
		Expect(w.value(`SELECT upgrade_status->>'failure_reason' FROM system_components`)).To(Equal(shown.Verdict.Message))
		Expect(w.value(`SELECT inputs->'inputs'->>'log' FROM journal WHERE subject = $1 AND code = 'deploy_unhealthy'`, upgradeSubject(u))).To(Equal("starting\npanic: no luck"))
		Expect(w.value(`SELECT event_log->>-2 FROM workflows WHERE NOT restoring`)).To(HaveSuffix("b@1 did not get healthy: set another ref"))
		Expect(w.value(`SELECT event_log->>-1 FROM workflows WHERE NOT restoring`)).To(HaveSuffix("\nstarting\npanic: no luck"))
	},
		Entry("in a field of its own", "b@1 did not get healthy: set another ref", "starting\npanic: no luck"),
		Entry("behind the message, from an executor of the former release", "b@1 did not get healthy: set another ref\nstarting\npanic: no luck", ""),
	)
})
