package engine_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

var _ = Describe("The proof of a deploy whose executor names its instances", func() {
	// deploys completes the deploy by an executor that announced its capability with the claim.
	deploys := func(w *world, u upgrade.ID, capabilities []string, named ...messages.Deployed) {
		GinkgoHelper()
		id := w.order(u, "deploy_oa")
		k, err := w.Claim(ctx(), id, w.exchange, managerapi.ClaimRequest{Attempt: 1, Hostname: "exec-1", BootID: "b",
			Capabilities: capabilities})
		Expect(err).NotTo(HaveOccurred())
		Expect(w.tell(result(k, func(r *messages.Result) {
			deployed(r)
			r.Deployed = named
		}))).To(Equal(engine.AppliedDone))
	}
	started := func(w *world) upgrade.ID {
		u := w.started(w.component(component.Builder))
		w.runConfig(u)
		return u
	}
	both := []messages.Deployed{{Host: "m", Unit: "x@1.service", Hostname: "m.x-1", Applied: true},
		{Host: "m", Unit: "x@2.service", Hostname: "m.x-2", Applied: true}}

	It("demands beats from those: two invented hosts prove nothing (trust C3)", func() {
		w := newWorld()
		u := started(w)
		deploys(w, u, []string{managerapi.CapInstances, "telepathy"}, both...)
		w.beat(component.Builder, "", "v2", "ghost-1", "ghost-2")
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).
			To(MatchError(ContainSubstring("nothing was heard of [x@1.service")))
		w.beat(component.Builder, "", "v2", "m.x-1", "m.x-2")
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
		Expect(w.state(u)).To(Equal(upgrade.Completed))
	})

	It("tells the overseer what to look for", func() {
		w := newWorld()
		u := started(w)
		deploys(w, u, []string{managerapi.CapInstances}, both...)
		s, err := w.Snapshot(ctx(), w.exchange, false)
		Expect(err).NotTo(HaveOccurred())
		Expect(s.Upgrades[0].Need.Instances).
			To(Equal([]upgrade.Instance{{Unit: "x@1.service", Hostname: "m.x-1", Applied: true},
				{Unit: "x@2.service", Hostname: "m.x-2", Applied: true}}))
	})

	It("takes any module of the type where the executor is of a release that names none: the message cannot lower the bar",
		func() {
			w := newWorld()
			u := started(w)
			deploys(w, u, nil, both...)
			w.beat(component.Builder, "", "v2", "a", "b")
			Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
		})

	It("is impossible if the executor could name them and did not: the workflow fails, and no version is blamed", func() {
		w := newWorld()
		u := started(w)
		deploys(w, u, []string{managerapi.CapInstances})
		Expect(w.state(u)).To(Equal(upgrade.Failed))
		Expect(w.value(`SELECT concat_ws(' ', cause, verdict_code, touched::text) FROM upgrades`)).
			To(Equal("environment instances_unnamed true"))
	})
})
