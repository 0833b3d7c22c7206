package engine_test

import (
	"encoding/json"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/engine"
)

var _ = Describe("A deploy order", func() {
	units := func(names string) (list []messages.UnitDefinition) {
		for name := range strings.FieldsSeq(names) {
			list = append(list, messages.UnitDefinition{Name: name + ".service",
				Options: []messages.Option{{Section: "Service", Name: "ExecStart", Value: "/bin/x"}}})
		}
		return list
	}
	adopt := func(w *world, id component.ID, cluster, names string) {
		_, err := w.Adopt(ctx(), managerapi.Release{ComponentID: id, SourceRepo: "src", SourceRepoGitRef: "v1",
			EtcdToken: cluster, Units: units(names)})
		Expect(err).NotTo(HaveOccurred())
	}
	renders := func(w *world, u upgrade.ID, names string) {
		Expect(w.tell(result(w.claim(w.order(u, "config"), "exec-1"), func(r *messages.Result) {
			configured(r)
			r.DeployableUnits = units(names)
		}))).To(Equal(engine.AppliedDone))
	}
	leaving := func(w *world, u upgrade.ID) string {
		var list []string
		Expect(json.Unmarshal([]byte(w.value(`SELECT coalesce(body->'leaving_units', '[]') FROM orders
			WHERE id = $1`, w.order(u, "deploy_oa"))), &list)).To(Succeed())
		return strings.ReplaceAll(strings.Join(list, " "), ".service", "")
	}

	DescribeTable("names the units that a release leaves behind, and its restoration those of the failed release",
		func(was, is, forward, back string) {
			w := newWorld()
			c := w.component(component.Builder)
			adopt(w, c, "elsewhere", "former@")
			adopt(w, c, "tok", was)
			w.exec(`INSERT INTO releases (id, component_id, source_repo, source_repo_git_ref, deployment_repo,
				deployment_repo_git_ref, etcd_token, units, proven_at)
				VALUES (gen_random_uuid(), $1, '', '', '', '', 'tok', '[{"name": "taken@.service"}]', now())`,
				w.component("neighbour")) // as before the rule that a name has one owner
			u := w.started(c)
			renders(w, u, is)
			Expect(leaving(w, u)).To(Equal(forward))
			w.tell(result(w.claim(w.order(u, "deploy_oa"), "exec-1"), failed(messages.CauseVersion, "deploy_unhealthy", true)))
			Expect(w.state(u)).To(Equal(upgrade.RollingBack))
			Expect(leaving(w, u)).To(Equal(back))
		},
		Entry("none", "x@", "x@", "", ""),
		Entry("one added", "x@", "x@ worker@", "", "worker@"),
		Entry("one dropped", "x@ worker@", "x@", "worker@", ""),
		Entry("all renamed", "x@ y", "x2@ y2", "x@ y", "x2@ y2"),
		Entry("a template that becomes a plain unit: its name stays", "x@", "x", "", ""),
		Entry("one that another component has", "x@ taken@", "x@", "", ""),
	)

	It("is not sent for a unit name of another component: the workflow fails with nothing touched (trust C4)", func() {
		w := newWorld()
		adopt(w, w.component(component.Manager), "TOK", "manager-api@")
		u := w.started(w.component(component.Builder))
		renders(w, u, "x@ manager-api")
		Expect(w.value(`SELECT concat_ws(' ', state, cause, verdict_code, touched::text) FROM upgrades`)).
			To(Equal("failed environment unit_taken false"))
		Expect(w.value(`SELECT verdict_message FROM upgrades`)).To(MatchRegexp(
			`^the unit manager-api.service belongs to component \d+ \(manager, phase 1\) in this cluster: give the unit`))
		Expect(w.value(`SELECT count(*) FROM quarantines`)).To(Equal("0"))
		Expect(w.value(`SELECT count(*) FROM orders WHERE milestone LIKE 'deploy%'`)).To(Equal("0"))
	})

	It("of a name that the other component has given up is sent", func() {
		w := newWorld()
		other := w.component(component.Manager)
		adopt(w, other, "tok", "web@")
		adopt(w, other, "tok", "manager-api@")
		u := w.started(w.component(component.Builder))
		renders(w, u, "web@")
		Expect(w.value(`SELECT count(*) FROM orders WHERE milestone = 'deploy_oa'`)).To(Equal("1"))
	})

	It("carries the version that its instances are to run, and the recorded one", func() {
		w := newWorld()
		c := w.component(component.Builder)
		w.proven(c, 1)
		w.exec(`UPDATE releases SET source_commit_hash = 'c1'`)
		u := w.started(c)
		w.runConfig(u)
		Expect(w.value(`SELECT concat_ws(' ', body->>'source_repo_git_ref', body->>'source_commit_hash',
			body->>'deployment_commit_hash', body->'recorded'->>'source_repo_git_ref', body->'recorded'->>'source_commit_hash')
			FROM orders WHERE id = $1`, w.order(u, "deploy_oa"))).To(Equal("v2 abc123 def456 v1 c1"))
	})

	It("is refused for a stored release whose unit name another component has (trust C4)", func() {
		w := newWorld()
		adopt(w, w.component(component.Manager), "tok", "manager-api@")
		_, err := w.Adopt(ctx(), managerapi.Release{ComponentID: w.component(component.Builder), EtcdToken: "tok",
			Units: units("manager-api@")})
		Expect(fault.CodeOf(err)).To(Equal(engine.CodeUnitTaken))
	})

	It("names the units of earlier failures too, until a release is proven", func() {
		w := newWorld()
		c := w.component(component.Builder)
		w.proven(c, 1)
		u := w.started(c)
		renders(w, u, "x@ worker@")
		w.tell(result(w.claim(w.order(u, "deploy_oa"), "exec-1"), failed(messages.CauseEnvironment, "runtime_unreachable",
			true)))
		w.tell(result(w.claim(w.order(u, "deploy_oa"), "exec-1"), failed(messages.CauseEnvironment, "runtime_unreachable",
			true)))
		Expect(w.state(u)).To(Equal(upgrade.RollbackFailed))
		u = w.started(c)
		w.runConfig(u)
		Expect(leaving(w, u)).To(Equal("worker@"))
		w.runDeploy(u, "deploy_oa")
		w.beat(component.Builder, "", "v2", "h1", "h2")
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
		w.exec(`UPDATE system_components SET source_repo_git_ref = 'v1' WHERE id = $1`, c)
		u = w.started(c)
		w.runConfig(u)
		Expect(leaving(w, u)).To(BeEmpty())
	})

	DescribeTable("names the units of a release that was not proven only where its deploy may have touched something",
		func(end func(*world, upgrade.ID), next string) {
			w := newWorld()
			c := w.component(component.Builder)
			w.proven(c, 1)
			u := w.started(c)
			renders(w, u, "x@ redis@")
			end(w, u)
			if w.state(u) != upgrade.RollingBack {
				Expect(w.state(u)).To(Equal(upgrade.Failed))
				u = w.started(c)
				w.runConfig(u)
			}
			Expect(leaving(w, u)).To(Equal(next))
		},
		Entry("its executor says that it did not", func(w *world, u upgrade.ID) {
			w.tell(result(w.claim(w.order(u, "deploy_oa"), "exec-1"),
				failed(messages.CauseEnvironment, "runtime_unreachable", false)))
		}, ""),
		Entry("nobody began it", func(w *world, u upgrade.ID) { w.outOfTime(u) }, ""),
		Entry("its executor says nothing", func(w *world, u upgrade.ID) {
			w.claim(w.order(u, "deploy_oa"), "exec-1")
			w.outOfTime(u)
		}, "redis@"),
		Entry("its executor is lost", func(w *world, u upgrade.ID) {
			for range w.times.OrderAttempts {
				w.claim(w.order(u, "deploy_oa"), "exec-1")
				w.exec(`UPDATE leases SET expires_at = now() - interval '1 second' WHERE name LIKE 'order/%'`)
				Expect(w.ExpireClaims(ctx(), []component.ExchangeID{w.exchange})).To(Succeed())
			}
		}, "redis@"),
		Entry("its executor can speak for itself alone", func(w *world, u upgrade.ID) {
			k := w.claim(w.order(u, "deploy_oa"), "exec-1")
			Expect(w.ReleaseClaim(ctx(), k.Order.OrderID, 0, k.Token)).To(Succeed())
			w.tell(result(w.claim(k.Order.OrderID, "exec-2"), failed(messages.CauseEnvironment, "runtime_unreachable", false)))
		}, "redis@"),
		Entry("it was complete, with everything found as wanted", func(w *world, u upgrade.ID) {
			w.tell(result(w.claim(w.order(u, "deploy_oa"), "exec-1"), func(r *messages.Result) { r.Instances = 2 }))
			w.outOfTime(u)
		}, "redis@"),
	)

	It("names nothing while a component of its exchange has no release: what runs may be its own", func() {
		w := newWorld()
		c := w.component(component.Builder)
		adopt(w, c, "tok", "x@ worker@")
		fresh := w.component("worker")
		there := w.insert(`INSERT INTO messaging_exchanges (name, routing_key, root_exchange_name)
			VALUES ('there', 'there', 'there') RETURNING id`)
		w.exec(`UPDATE system_components SET messaging_exchange_id = $1 WHERE id = $2`, there, w.component("elsewhere"))
		u := w.started(c)
		renders(w, u, "x@")
		Expect(leaving(w, u)).To(BeEmpty())
		w.outOfTime(u)
		Expect(w.state(u)).To(Equal(upgrade.Failed))
		adopt(w, fresh, "tok", "other@")
		u = w.started(c)
		renders(w, u, "x@")
		Expect(leaving(w, u)).To(Equal("worker@"))
	})

	It("tells at every claim and renewal how much time is left, as clocks differ", func() {
		w := newWorld()
		u := w.started(w.component(component.Builder))
		k := w.claim(w.order(u, "config"), "exec-1")
		left := w.times.OrderDeadline.Milliseconds()
		Expect(k.DeadlineInMS).To(BeNumerically("~", left, 10_000))
		w.exec(`UPDATE orders SET deadline = now() + interval '7 seconds' WHERE id = $1`, k.Order.OrderID)
		k, err := w.Renew(ctx(), k.Order.OrderID, w.exchange, k.Token)
		Expect(err).NotTo(HaveOccurred())
		Expect(k.DeadlineInMS).To(BeNumerically("~", 5_000, 2_000))
	})
})
