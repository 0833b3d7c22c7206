package engine_test

import (
	"encoding/json"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

// git is a world in which both executors live and have announced that they ask git hosts.
func git() *world {
	GinkgoHelper()
	w := newWorld()
	for _, service := range []string{"deployer", "deployer-oa"} {
		w.beat(component.Deployer, service, "v1", service+"-1")
		w.announces(service+"-1", managerapi.CapInstances, managerapi.CapResolve)
	}
	return w
}

// announces has the process that beats under a hostname say what it can do.
func (w *world) announces(hostname string, capabilities ...string) {
	GinkgoHelper()
	Expect(w.Announce(ctx(), w.exchange, managerapi.Executor{Hostname: hostname, BootID: hostname + "v1",
		Service: "deployer", Capabilities: capabilities})).To(Succeed())
}

// wants stores the gold standard of a type: v1 of src.
func (w *world) wants(t component.Type) {
	GinkgoHelper()
	w.exec(`INSERT INTO system_component_refs (type, source_repo, source_repo_git_ref, auto_upgrade_enabled)
		VALUES ($1, 'src', 'v1', true)`, string(t))
}

// due has the next check of a component come after some milliseconds.
func (w *world) due(c component.ID, in int) {
	GinkgoHelper()
	w.exec(`UPDATE system_components SET next_check_at = now() + $2 * interval '1 millisecond' WHERE id = $1`, c, in)
}

// asks lets the sweeper ask, and lists the orders that are open then: "queue: ref of repo, …".
func (w *world) asks() []string {
	GinkgoHelper()
	Expect(w.AskRefs(ctx(), []component.ExchangeID{w.exchange})).To(Succeed())
	return w.asked()
}

func (w *world) asked() []string {
	GinkgoHelper()
	var bodies []struct{ Queue, Body string }
	Expect(w.db.Select(&bodies, `SELECT queue, body FROM orders WHERE milestone = 'resolve' ORDER BY queue`)).To(Succeed())
	list := []string{}
	for _, b := range bodies {
		text := b.Queue + ":"
		o := order(b.Body)
		Expect(o.Validate()).To(Succeed())
		for _, r := range o.Resolve {
			text += fmt.Sprintf(" %s of %s", r.Ref, r.Repo)
		}
		list = append(list, text)
	}
	return list
}

// answers claims the open resolve and answers it.
func (w *world) answers(answers ...messages.Resolved) {
	GinkgoHelper()
	k, err := w.Claim(ctx(), w.value(`SELECT id FROM orders WHERE milestone = 'resolve'`), w.exchange,
		managerapi.ClaimRequest{Attempt: 1, Hostname: "deployer-1", BootID: "deployer-1v1",
			Capabilities: []string{managerapi.CapInstances, managerapi.CapResolve}})
	Expect(err).NotTo(HaveOccurred())
	Expect(w.tell(result(k, func(r *messages.Result) { r.Resolved = answers }))).To(Equal(engine.AppliedDone))
}

// knows is what the snapshot says of the refs: "ref kind commit error".
func (w *world) knows() []string {
	GinkgoHelper()
	s, err := w.Snapshot(ctx(), w.exchange, false)
	Expect(err).NotTo(HaveOccurred())
	list := []string{}
	for _, r := range s.Resolved {
		list = append(list, fmt.Sprintf("%s %s %.3s %s", r.Ref, r.Kind, r.Commit, r.Error))
	}
	return list
}

func (w *world) resolving() bool {
	GinkgoHelper()
	s, err := w.Snapshot(ctx(), w.exchange, false)
	Expect(err).NotTo(HaveOccurred())
	return s.Resolving
}

func tip(repo, ref, kind, commit string) messages.Resolved {
	return messages.Resolved{Repo: repo, Ref: ref, Kind: kind, Commit: commit}
}

func down(repo, ref string) messages.Resolved {
	return messages.Resolved{Repo: repo, Ref: ref, Error: "git is down"}
}

const deploy = "https://git/deploy.git"

var _ = Describe("Asking git hosts (fault 20)", func() {
	It("is ordered shortly before a check, once, and the answer is what is known then", func() {
		w := git()
		w.wants("billing")
		c := w.component("billing")
		Expect(w.asks()).To(BeEmpty(), "it was never scheduled")
		w.due(c, 5000)
		Expect(w.asks()).To(BeEmpty(), "the check is far ahead")
		w.due(c, 500)
		Expect(w.asks()).To(Equal([]string{"deployer: v1 of src master of " + deploy}))
		Expect(w.resolving()).To(BeTrue())
		Expect(w.asks()).To(HaveLen(1), "one order at a time")
		w.answers(tip("src", "v1", "tag", commit("1")), tip(deploy, "master", "branch", commit("a")),
			tip("elsewhere", "main", "branch", commit("f")))
		Expect(w.knows()).To(Equal([]string{"master branch aaa ", "v1 tag 111 "}))
		Expect(w.resolving()).To(BeFalse())
		Expect(w.asks()).To(BeEmpty(), "once for a check")
		Expect(w.value(`SELECT count(*) FROM workflows`)).To(Equal("0"), "nothing of it stays")
		Expect(w.outboxed()).To(ContainElement("overseer changed"))
		w.due(c, 600)
		Expect(w.asks()).To(HaveLen(1), "the next check")
	})

	It("is one order for all components of an executor, which deploys them: each repository once", func() {
		w := git()
		for _, t := range []component.Type{"billing", "shop", component.Builder, component.Deployer} {
			w.wants(t)
			w.due(w.component(t), 0)
		}
		w.exec(`UPDATE system_components SET deployment_repo = 'shop' WHERE type = 'shop'`)
		Expect(w.asks()).To(Equal([]string{"deploy_oa: v1 of src master of " + deploy,
			"deployer: v1 of src master of " + deploy + " master of shop master of https://git/deploy_oa.git"}))
	})

	DescribeTable("is not ordered",
		func(change func(*world, component.ID)) {
			w := git()
			w.wants("billing")
			c := w.component("billing")
			w.due(c, 0)
			change(w, c)
			Expect(w.asks()).To(BeEmpty())
			Expect(w.value(`SELECT count(*) FROM workflows`)).To(Equal("0"))
		},
		Entry("for a manual component", func(w *world, _ component.ID) {
			w.exec(`UPDATE system_components SET upgrade_strategy = 'manual'`)
		}),
		Entry("for a ref that is disabled", func(w *world, _ component.ID) {
			w.exec(`UPDATE system_component_refs SET auto_upgrade_enabled = false`)
		}),
		Entry("without a ref", func(w *world, _ component.ID) { w.exec(`DELETE FROM system_component_refs`) }),
		Entry("where one live executor is of the former release", func(w *world, _ component.ID) {
			w.beat(component.Deployer, "deployer", "v0", "deployer-2")
		}),
		Entry("where the executor was started anew and has not announced itself", func(w *world, _ component.ID) {
			w.beat(component.Deployer, "deployer", "v2", "deployer-1")
		}),
		Entry("where the executor cannot do it any more", func(w *world, _ component.ID) {
			w.announces("deployer-1", managerapi.CapInstances)
		}),
		Entry("where no executor lives", func(w *world, _ component.ID) {
			w.exec(`UPDATE messaging_exchange_modules SET updated_at = now() - interval '1 hour'`)
		}),
	)

	It("is ordered again once the executors can do it", func() {
		w := git()
		w.wants("billing")
		w.due(w.component("billing"), 0)
		w.announces("deployer-1")
		Expect(w.asks()).To(BeEmpty())
		w.announces("deployer-1", managerapi.CapResolve)
		Expect(w.asks()).To(HaveLen(1))
	})

	It("is announced with every claim, too", func() {
		w := newWorld()
		w.beat(component.Deployer, "deployer", "v1", "exec-1")
		w.wants("billing")
		w.due(w.component("billing"), 0)
		u := w.started(w.component("shop"))
		Expect(w.asks()).To(BeEmpty())
		_, err := w.Claim(ctx(), w.order(u, "config"), w.exchange, managerapi.ClaimRequest{Attempt: 1, Hostname: "exec-1",
			BootID: "exec-1v1", Capabilities: []string{managerapi.CapResolve}})
		Expect(err).NotTo(HaveOccurred())
		Expect(w.asks()).To(HaveLen(1))
	})

	It("changes nothing while a git host is down, and says so once", func() {
		w := git()
		w.wants("billing")
		c := w.component("billing")
		round := func(answers ...messages.Resolved) {
			GinkgoHelper()
			w.due(c, 0)
			Expect(w.asks()).To(HaveLen(1))
			w.answers(answers...)
		}
		round(tip("src", "v1", "branch", commit("1")), tip(deploy, "master", "branch", commit("a")))
		for range 3 {
			round(down("src", "v1"), tip(deploy, "master", "branch", commit("b")))
		}
		Expect(w.knows()).To(Equal([]string{"master branch bbb ", "v1 branch 111 git is down"}))
		Expect(w.events()).To(Equal([]string{"git_unresolved warning"}))
		round(down("src", "v1"), down(deploy, "master"))
		Expect(w.events()).To(HaveLen(2), "of another repository")
		round(tip("src", "v1", "branch", commit("2")), down(deploy, "master"))
		Expect(w.knows()).To(Equal([]string{"master branch bbb git is down", "v1 branch 222 "}))
		Expect(w.events()).To(Equal([]string{"git_unresolved warning", "git_unresolved warning", "git_resolved info"}))
	})

	It("takes an answer that names no commit, or leaves a ref out, for none", func() {
		w := git()
		w.wants("billing")
		w.due(w.component("billing"), 0)
		w.asks()
		w.answers(tip("src", "v1", "branch", "main"))
		Expect(w.knows()).To(Equal([]string{"master   the executor did not say", "v1   the executor named no full commit"}))
	})

	It("ends without an answer where no executor gives one, and tells nobody", func() {
		w := git()
		w.wants("billing")
		w.due(w.component("billing"), 0)
		w.asks()
		w.exec(`UPDATE orders SET confirmed_at = now() - interval '1 hour', deadline = now() - interval '1 minute'`)
		Expect(w.resolving()).To(BeTrue())
		w.exec(`UPDATE orders SET created_at = now() - interval '1 hour'`)
		Expect(w.resolving()).To(BeFalse(), "no check waits for it any more")
		Expect(w.ResendUnclaimed(ctx(), []component.ExchangeID{w.exchange})).To(Succeed())
		Expect(w.knows()).To(HaveEach(ContainSubstring("no executor asked for it")))
		Expect(w.events()).To(BeEmpty())
		Expect(w.value(`SELECT count(*) FROM workflows`)).To(Equal("0"))
	})

	It("fails at an executor that cannot do it after all, and tells nobody", func() {
		w := git()
		w.wants("billing")
		w.due(w.component("billing"), 0)
		w.asks()
		k := w.claim(w.value(`SELECT id FROM orders`), "deployer-1")
		w.tell(result(k, failed(messages.CauseEnvironment, "milestone_unknown", false)))
		Expect(w.knows()).To(HaveEach(ContainSubstring("no executor asked for it: it says milestone_unknown")))
		Expect(w.events()).To(BeEmpty())
	})

	It("is no workflow that people see, and no line of the journal", func() {
		w := git()
		w.wants("billing")
		w.due(w.component("billing"), 0)
		before := w.lastSeq()
		w.asks()
		Expect(w.EachWorkflow(ctx(), engine.WorkflowQuery{}, func(v engine.WorkflowView) error {
			return fmt.Errorf("workflow %s is shown", v.ID)
		})).To(Succeed())
		w.answers()
		Expect(w.auditedSince(before)).To(BeEmpty())
	})

	Describe("of a tag that was moved", func() {
		moved := func(w *world, answers ...string) {
			GinkgoHelper()
			for _, a := range answers {
				w.exec(`UPDATE system_components SET next_check_at = now(), refs_asked_for = NULL`)
				Expect(w.asks()).To(HaveLen(1))
				w.answers(tip("src", "v1", "tag", commit(a)), tip(deploy, "master", "branch", commit(a)))
			}
		}

		It("raises one event for each commit", func() {
			w := git()
			w.wants("billing")
			w.component("billing")
			moved(w, "1", "1")
			Expect(w.events()).To(BeEmpty(), "it was never seen at another commit")
			moved(w, "2", "2")
			Expect(w.events()).To(Equal([]string{"tag_moved warning"}))
			moved(w, "3")
			Expect(w.events()).To(HaveLen(2))
			var data struct{ Before, Commit, Repo, Ref string }
			Expect(json.Unmarshal([]byte(w.value(`SELECT data FROM system_events ORDER BY id DESC LIMIT 1`)),
				&data)).To(Succeed())
			Expect([]string{data.Before, data.Commit, data.Repo, data.Ref}).
				To(Equal([]string{commit("2"), commit("3"), "src", "v1"}))
		})

		It("raises an event if it differs from what is recorded", func() {
			w := git()
			w.wants("billing")
			w.provenAt(commit("1"), commit("a"))
			moved(w, "2", "2")
			Expect(w.events()).To(Equal([]string{"tag_moved warning"}))
			Expect(w.value(`SELECT message FROM system_events`)).To(HavePrefix(
				"the tag v1 of src was moved from commit " + commit("1") + " to " + commit("2")))
		})
	})

	DescribeTable("is ordered by a request that depends on it",
		func(change func(*world, component.ID), force bool, orders int) {
			w := git()
			w.wants("billing")
			c := w.component("billing")
			w.exec(`UPDATE system_components SET upgrade_strategy = 'manual'`)
			change(w, c)
			if force {
				w.forced(c)
			} else {
				w.request(c)
				w.request(c)
			}
			Expect(w.asked()).To(HaveLen(orders))
			Expect(w.resolving()).To(Equal(orders > 0))
		},
		Entry("the ref is recorded already", func(*world, component.ID) {}, false, 1),
		Entry("not with force", func(*world, component.ID) {}, true, 0),
		Entry("not if another ref is wanted: config resolves that", func(w *world, _ component.ID) {
			w.exec(`UPDATE system_component_refs SET source_repo_git_ref = 'v2'`)
		}, false, 0),
		Entry("another ref is wanted that is in quarantine", func(w *world, _ component.ID) {
			w.exec(`UPDATE system_component_refs SET source_repo_git_ref = 'v2'`)
			w.exec(`INSERT INTO quarantines (id, messaging_exchange_id, component_type, source_repo, source_repo_git_ref, reason,
				message) VALUES (gen_random_uuid(), $1, 'billing', 'src', 'v2', 'r', 'm')`, w.exchange)
		}, false, 1),
		Entry("not if no executor can", func(w *world, _ component.ID) { w.announces("deployer-1") }, false, 0),
	)
})
