package engine_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/times"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// saw is what an overseer that judges now sees of a requested upgrade.
func (w *world) saw(id upgrade.ID) *managerapi.Saw {
	GinkgoHelper()
	s, err := w.Snapshot(ctx(), w.exchange, false)
	Expect(err).NotTo(HaveOccurred())
	saw := &managerapi.Saw{Quarantines: []string{}}
	for _, u := range s.Upgrades {
		if u.ID == id {
			saw.Trigger, saw.Force = u.Trigger, u.Force
			saw.Component.ID = u.ComponentID
		}
	}
	for _, c := range s.Components {
		if c.ID == saw.Component.ID {
			saw.Component = c
		}
	}
	for i := range s.Refs {
		if s.Refs[i].Type == saw.Component.Type {
			saw.Ref = &s.Refs[i]
		}
	}
	for _, q := range s.Quarantines {
		if q.ComponentType == saw.Component.Type {
			saw.Quarantines = append(saw.Quarantines, q.ID)
		}
	}
	return saw
}

var _ = Describe("A judgement that says what it rests on (fault 6)", func() {
	// waiting is a hourly request of a component whose type has a ref.
	waiting := func(w *world) (component.ID, upgrade.ID) {
		GinkgoHelper()
		w.exec(`INSERT INTO system_component_refs (type, source_repo, source_repo_git_ref, auto_upgrade_enabled)
			VALUES ('builder', 'src', 'v2', true)`)
		w.exec(`INSERT INTO quarantines (id, messaging_exchange_id, component_type, source_repo,
				source_repo_git_ref, reason, message)
			VALUES ('018f0000-0000-7000-8000-000000000001', $1, 'builder', 'src', 'v0', 'x', 'x')`, w.exchange)
		c := w.component(component.Builder)
		Expect(w.Check(ctx(), c, w.exchange, managerapi.Check{Term: w.term, Create: true})).To(Succeed())
		return c, upgrade.ID(w.value(`SELECT id FROM upgrades`))
	}
	request := func(w *world, c component.ID, force bool) {
		GinkgoHelper()
		_, _, err := w.RequestUpgrade(ctx(), managerapi.UpgradeRequest{ComponentID: c, RequestedBy: "bob", Force: force})
		Expect(err).NotTo(HaveOccurred())
	}
	writes := map[string]func(*world, upgrade.ID, managerapi.Judgement) error{
		"start":  func(w *world, u upgrade.ID, j managerapi.Judgement) error { return w.Start(ctx(), u, w.exchange, j) },
		"refuse": func(w *world, u upgrade.ID, j managerapi.Judgement) error { return w.Refuse(ctx(), u, w.exchange, j) },
	}

	DescribeTable("is refused once that has changed, and accepted when it is judged again",
		func(what string, change func(w *world, c component.ID)) {
			for _, write := range []string{"start", "refuse"} {
				database.Truncate()
				w := newWorld()
				c, u := waiting(w)
				stale := w.judgement()
				stale.Saw = w.saw(u)
				change(w, c)
				err := writes[write](w, u, stale)
				Expect(err).To(MatchError(ContainSubstring(what)), write)
				Expect(fault.CodeOf(err)).To(Equal("seen_changed"), write)
				Expect(fault.Is(err, fault.Conflict)).To(BeTrue())
				Expect(w.state(u)).To(Equal(upgrade.Requested), write)
				again := w.judgement()
				again.Saw = w.saw(u)
				Expect(writes[write](w, u, again)).To(Succeed(), write)
				Expect(w.state(u)).To(Equal(map[string]upgrade.State{"start": upgrade.InProgress,
					"refuse": upgrade.Ineligible}[write]))
			}
		},
		Entry("the ref was disabled", "the ref", func(w *world, _ component.ID) {
			w.exec(`UPDATE system_component_refs SET auto_upgrade_enabled = false`)
		}),
		Entry("the ref names another version", "the ref", func(w *world, _ component.ID) {
			w.exec(`UPDATE system_component_refs SET source_repo_git_ref = 'v3'`)
		}),
		Entry("the ref was deleted", "whether the type has a ref", func(w *world, _ component.ID) {
			w.exec(`DELETE FROM system_component_refs`)
		}),
		Entry("the version was quarantined", "the quarantines", func(w *world, _ component.ID) {
			w.exec(`INSERT INTO quarantines (id, messaging_exchange_id, component_type, source_repo,
				source_repo_git_ref, reason, message)
				VALUES ('018f0000-0000-7000-8000-000000000002', $1, 'builder', 'src', 'v2', 'x', 'x')`, w.exchange)
		}),
		Entry("a quarantine has ended", "the quarantines", func(w *world, _ component.ID) {
			w.exec(`UPDATE quarantines SET expires_at = now() - interval '1 second'`)
		}),
		Entry("the component has become manual", "upgrade_strategy", func(w *world, c component.ID) {
			w.exec(`UPDATE system_components SET upgrade_strategy = 'manual' WHERE id = $1`, c)
		}),
		Entry("the component is deployed from elsewhere", "deployment repository", func(w *world, c component.ID) {
			w.exec(`UPDATE system_components SET deployment_repo_git_ref = 'next' WHERE id = $1`, c)
		}),
		Entry("another version was recorded", "recorded version", func(w *world, c component.ID) {
			w.exec(`UPDATE system_components SET source_repo_git_ref = 'v1.1' WHERE id = $1`, c)
		}),
		Entry("somebody has asked for it", "the trigger", func(w *world, c component.ID) { request(w, c, false) }),
	)

	It("does not refuse a request that was forced meanwhile", func() {
		w := newWorld()
		c, u := waiting(w)
		request(w, c, false)
		stale := w.judgement()
		stale.Saw = w.saw(u)
		request(w, c, true)
		Expect(fault.CodeOf(w.Refuse(ctx(), u, w.exchange, stale))).To(Equal("seen_changed"))
		Expect(w.state(u)).To(Equal(upgrade.Requested))
	})

	It("waits for a change that is under way, and is refused then", func() {
		w := newWorldWith(3, func(*times.Times) {})
		_, u := waiting(w)
		j := w.judgement()
		j.Saw = w.saw(u)
		tx := database.Begin(`UPDATE system_component_refs SET auto_upgrade_enabled = false`)
		err := database.Behind(tx, func() error { return w.Start(ctx(), u, w.exchange, j) }, func() {})
		Expect(fault.CodeOf(err)).To(Equal("seen_changed"))
		Expect(w.state(u)).To(Equal(upgrade.Requested))
	})

	It("decides the target of an upgrade, which a later change of the ref does not move (C12)", func() {
		w := newWorld()
		w.exec(`INSERT INTO system_component_refs (type, source_repo, source_repo_git_ref, auto_upgrade_enabled)
			VALUES ('billing', 'src', 'v2', true)`)
		c := w.component("billing")
		u := w.started(c)
		w.exec(`UPDATE system_component_refs SET source_repo_git_ref = 'v3'`)
		w.runConfig(u)
		Expect(w.shown(u).To.SourceRepoGitRef).To(Equal("v2"))
		w.runDeploy(u, "deploy")
		Expect(w.recorded(c)).To(Equal("v2 upgrade_completed"))
		next := w.request(c)
		j := w.judgement()
		j.Saw, j.Target.SourceRepoGitRef = w.saw(next.ID), "v3"
		Expect(w.Start(ctx(), next.ID, w.exchange, j)).To(Succeed(), "the change is the next upgrade's")
		Expect(w.shown(next.ID).To.SourceRepoGitRef).To(Equal("v3"))
	})

	It("is not compared without what it rests on, as the former release's overseer sends it (N-1)", func() {
		w := newWorld()
		_, u := waiting(w)
		w.exec(`UPDATE system_component_refs SET auto_upgrade_enabled = false`)
		Expect(w.Start(ctx(), u, w.exchange, w.judgement())).To(Succeed())
	})

	It("expires no request that was taken over while its expiry waited for it", func() {
		w := newWorldWith(3, func(*times.Times) {})
		_, u := waiting(w)
		w.exec(`UPDATE upgrades SET created_at = now() - interval '25 hours'`)
		tx := database.Begin(`UPDATE upgrades SET trigger = 'request', created_at = now(), asked_at = now()`)
		Expect(database.Behind(tx, func() error { return w.ExpireRequests(ctx()) }, func() {})).To(Succeed())
		Expect(w.state(u)).To(Equal(upgrade.Requested))
	})
})

var _ = Describe("A snapshot's failures by the environment (fault 13)", func() {
	It("are those of the last upgrades to one target, without canceled ones", func() {
		w := newWorld()
		c := w.component("billing")
		failures := func() []managerapi.EnvironmentFailures {
			GinkgoHelper()
			s, err := w.Snapshot(ctx(), w.exchange, false)
			Expect(err).NotTo(HaveOccurred())
			return s.Failures
		}
		fails := func(cause messages.Cause) upgrade.ID {
			GinkgoHelper()
			u := w.started(c)
			w.tell(result(w.claim(w.order(u, "config"), "exec-1"), failed(cause, "git_unreachable", false)))
			Expect(w.state(u)).To(Equal(upgrade.Failed))
			return u
		}
		Expect(failures()).To(BeEmpty())
		fails(messages.CauseEnvironment)
		u := fails(messages.CauseEnvironment)
		canceled := w.started(c)
		_, err := w.Cancel(ctx(), canceled, w.exchange)
		Expect(err).NotTo(HaveOccurred())
		w.request(c) // one that waits
		Expect(failures()).To(Equal([]managerapi.EnvironmentFailures{{ComponentID: c, Target: target, Count: 2,
			Last: *w.shown(u).StartedAt}}))
		w.exec(`UPDATE upgrades SET state = 'completed', cause = NULL, finished_at = now() WHERE id = $1`, string(canceled))
		Expect(failures()).To(BeEmpty(), "a success")
	})
})

var _ = Describe("An upgrade of a newer manager-api (fault 9)", func() {
	DescribeTable("is left alone: nothing indexes what is not known here, and everything else goes on",
		func(change string) {
			w := newWorld()
			u := w.verifying(w.component(component.Builder))
			other := w.request(w.component("billing"))
			w.exec(`UPDATE upgrades SET `+change+` WHERE id = $1`, string(u))
			w.exec(`UPDATE upgrades SET asked_at = now() - interval '25 hours' WHERE id = $1`, string(other.ID))
			s, err := w.Snapshot(ctx(), w.exchange, false)
			Expect(err).NotTo(HaveOccurred())
			for _, o := range s.Upgrades {
				Expect(o.Need).To(BeNil())
			}
			Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(MatchError(ContainSubstring("is left to a newer one")))
			_, err = w.Cancel(ctx(), u, w.exchange)
			Expect(fault.Is(err, fault.Unavailable)).To(BeTrue())
			w.exec(`UPDATE upgrades SET clock_left = 1, clock_ticked_at = now() - interval '1 second' WHERE id = $1`, string(u))
			_ = w.TickUpgrades(ctx(), []component.ExchangeID{w.exchange})
			Expect(w.ExpireRequests(ctx())).To(Succeed())
			Expect(w.state(other.ID)).To(Equal(upgrade.Expired))
			Expect(w.value(`SELECT count(*) FROM upgrades WHERE id = $1 AND `+change, string(u))).To(Equal("1"))
		},
		Entry("in a phase that is not known", `phase = 3`),
		Entry("in a step that is not known", `step = 'soak'`),
	)
})
