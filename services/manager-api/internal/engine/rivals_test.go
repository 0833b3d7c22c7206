package engine_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
)

var _ = Describe("Two hosts with one hostname (E11)", func() {
	beat := func(w *world, m messages.ModuleStatus) int {
		GinkgoHelper()
		m.EventType, m.Type = "status", "builder"
		if m.Status == "" {
			m.Status = "active"
		}
		n, err := w.Beat(ctx(), w.exchange, []messages.ModuleStatus{m})
		Expect(err).NotTo(HaveOccurred())
		return n
	}

	It("prove nothing, and health names the hostname", func() {
		w := newWorld()
		c := w.component(component.Builder)
		u := w.verifying(c)
		w.beat(component.Builder, "", "v2", "b1")
		rogue := func() {
			beat(w, messages.ModuleStatus{Hostname: "b2", BootID: "rogue", SourceRepo: "src", SourceRepoGitRef: "v2"})
		}
		rogue()
		w.beat(component.Builder, "", "v2", "b2")
		rogue()
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(MatchError(ContainSubstring(
			"1 of 2 modules report the target, and two hosts beat under each of the hostnames [b2]")))
		s, err := w.Snapshot(ctx(), w.exchange, true)
		Expect(err).NotTo(HaveOccurred())
		Expect([]int{s.Counts[0].Live, s.Counts[0].Disputed}).To(Equal([]int{2, 1}))
		Expect(s.Modules[1].RivalBootID).To(Equal("rogue"))
		w.exec(`UPDATE messaging_exchange_modules SET rival_again = now() - interval '6 seconds'`) // live_within is 5 s
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
	})

	It("end a verification as the environment's failure: no version is blamed", func() {
		w := newWorld()
		c := w.component(component.Builder)
		w.proven(c, 1)
		u := w.verifying(c)
		beat(w, messages.ModuleStatus{Hostname: "b2", BootID: "rogue", SourceRepoGitRef: "v2"})
		w.beat(component.Builder, "", "v2", "b1", "b2")
		beat(w, messages.ModuleStatus{Hostname: "b2", BootID: "rogue", SourceRepoGitRef: "v2"})
		w.outOfTime(u)
		Expect([]any{w.shown(u).State, w.shown(u).Cause, w.shown(u).Verdict.Code}).
			To(Equal([]any{upgrade.RollingBack, upgrade.CauseEnvironment, "hostname_disputed"}))
		Expect(w.value(`SELECT count(*) FROM quarantines`)).To(Equal("0"))
	})
})
