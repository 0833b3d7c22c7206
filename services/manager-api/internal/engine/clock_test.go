package engine_test

import (
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/times"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

var _ = Describe("The clocks of all upgrades", func() {
	// elsewhere is a running upgrade of another exchange.
	elsewhere := func(w *world, name string) (component.ExchangeID, upgrade.ID) {
		GinkgoHelper()
		ex := component.ExchangeID(w.insert(`INSERT INTO messaging_exchanges
			(name, routing_key_fragment, routing_key, root_exchange_name) VALUES ($1, $1, $1, $1) RETURNING id`, name))
		c := w.insert(`INSERT INTO system_components (messaging_exchange_id, type, source_repo, source_repo_git_ref,
			deployment_repo, deployment_repo_git_ref, upgrade_strategy, proof)
			VALUES ($1, 'builder', 'src', 'v1', 'https://git/deploy.git', 'master', 'hourly', 'modules') RETURNING id`, ex)
		l, err := w.Lead(ctx(), ex, managerapi.LeaseRequest{Holder: "o", TTLMS: 60_000})
		Expect(err).NotTo(HaveOccurred())
		u := w.request(component.ID(c))
		j := w.judgement()
		j.Term = l.Term
		Expect(w.Start(ctx(), u.ID, ex, j)).To(Succeed())
		return ex, u.ID
	}

	It("move although rows of two exchanges are locked, and those move over all of the time when they are free", func() {
		w := newWorldWith(4, func(*times.Times) {})
		a, locked := elsewhere(w, "a")
		b, claimed := elsewhere(w, "b")
		free := w.started(w.component(component.Builder))
		_, err := w.Claim(ctx(), w.order(claimed, "config"), b,
			managerapi.ClaimRequest{Attempt: 1, Hostname: "host-b", BootID: "boot"})
		Expect(err).NotTo(HaveOccurred())
		w.exec(`UPDATE leases SET expires_at = now() - interval '1 second' WHERE name LIKE 'order/%'`)
		tx, err := w.db.Beginx()
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func() { _ = tx.Rollback() })
		_, err = tx.Exec(`SELECT 1 FROM upgrades WHERE id = ANY(ARRAY[$1, $2]::uuid[]) FOR UPDATE`, string(locked),
			string(claimed))
		Expect(err).NotTo(HaveOccurred())
		w.exec(`UPDATE upgrades SET clock_left = 1, clock_ticked_at = now() - interval '1 second' WHERE id = $1`,
			string(free))
		all := []component.ExchangeID{a, b, w.exchange}
		Expect(w.TickUpgrades(ctx(), all)).To(Succeed())
		Expect(w.ExpireClaims(ctx(), all)).To(Succeed(), "the claim of b waits for its lock, and for nothing else")
		Expect(w.state(free)).To(Equal(upgrade.Failed))
		Expect(w.value(`SELECT state FROM orders WHERE id = $1`, w.order(claimed, "config"))).To(Equal("claimed"))
		Expect(tx.Rollback()).To(Succeed())
		w.exec(`UPDATE upgrades SET clock_left = 60000, clock_ticked_at = now() - interval '30 seconds' WHERE id = $1`,
			string(locked))
		Expect(w.TickUpgrades(ctx(), all)).To(Succeed())
		Expect(w.value(`SELECT (clock_left BETWEEN 25000 AND 30000)::text FROM upgrades WHERE id = $1`,
			string(locked))).To(Equal("true"), "longer than tick_gap, but manager-api was there")
		Expect(w.ExpireClaims(ctx(), all)).To(Succeed())
		Expect(w.value(`SELECT state FROM orders WHERE id = $1`, w.order(claimed, "config"))).To(Equal("open"))
	})

	It("move in one statement, however many there are", func() {
		w := newWorld()
		w.exec(`WITH x AS (INSERT INTO messaging_exchanges (name, routing_key_fragment, routing_key, root_exchange_name)
				SELECT 'x' || n, 'x' || n, 'x' || n, 'x' || n FROM generate_series(1, 3500) n RETURNING id),
			c AS (INSERT INTO system_components (messaging_exchange_id, type, upgrade_strategy, proof)
				SELECT id, 'builder', 'hourly', 'modules' FROM x RETURNING id, messaging_exchange_id)
			INSERT INTO upgrades (id, component_id, component_type, messaging_exchange_id, proof, trigger, state, phase, step,
				clock_left, clock_ticked_at)
			SELECT gen_random_uuid(), id, 'builder', messaging_exchange_id, 'modules', 'hourly', 'in_progress', 1, 'config',
				60000, now() - interval '1 second' FROM c`)
		var all []component.ExchangeID
		Expect(w.db.Select(&all, `SELECT id FROM messaging_exchanges`)).To(Succeed())
		commits := func() string {
			w.exec(`SELECT pg_stat_force_next_flush()`)
			return w.value(`SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()`)
		}
		before := commits()
		Expect(w.TickUpgrades(ctx(), all)).To(Succeed())
		var spent int
		Expect(w.db.Get(&spent, fmt.Sprintf(`SELECT %s - %s`, commits(), before))).To(Succeed())
		Expect(spent).To(BeNumerically("<", 10))
		Expect(w.value(`SELECT count(*) FROM upgrades WHERE clock_left < 60000 AND clock_stalled = 0`)).To(Equal("3500"))
	})

	It("stand still while an order waits in line, also that of a probe: its executor works on another order", func() {
		w := newWorld()
		u := w.started(w.component(component.Builder))
		other := w.value(`WITH x AS (INSERT INTO workflows (id, messaging_exchange_id) VALUES (gen_random_uuid(), $1)
			RETURNING id)
			INSERT INTO orders (id, workflow_id, messaging_exchange_id, queue, milestone, state, body, deadline)
			SELECT gen_random_uuid(), id, $1, 'deploy_oa', 'config', 'open', '{}', now() + interval '1 hour' FROM x
			RETURNING id`,
			w.exchange)
		_, err := w.Claim(ctx(), other, w.exchange, managerapi.ClaimRequest{Attempt: 1, Hostname: "e", BootID: "b"})
		Expect(err).NotTo(HaveOccurred())
		w.outOfTime(u)
		Expect(w.state(u)).To(Equal(upgrade.InProgress))
		w.exec(`UPDATE leases SET expires_at = now() - interval '1 second' WHERE name LIKE 'order/%'`)
		w.outOfTime(u)
		Expect(w.state(u)).To(Equal(upgrade.Failed), "nobody is at work there")
	})

	// The one statement encodes upgrade.Clock.Tick and upgrade.Upgrade.Runs: this table holds them together.
	DescribeTable("move as the rule of pkg/upgrade says",
		func(u upgrade.Upgrade, consuming, judge bool, absent time.Duration) {
			w := newWorld()
			id := w.started(w.component(component.Builder))
			if !judge {
				Expect(w.Resign(ctx(), w.exchange, w.term)).To(Succeed())
			}
			w.exec(`UPDATE upgrades SET step = $2, component_type = $3, clock_left = 60000, clock_stalled = 7000,
				clock_ticked_at = now() - interval '40 seconds' WHERE id = $1`, string(id), string(u.Step), string(u.Type))
			w.exec(`UPDATE ticks SET present_since = now() - $1 * interval '1 millisecond'`, absent.Milliseconds())
			var now time.Time
			Expect(w.db.Get(&now, `SELECT now()`)).To(Succeed())
			clock := upgrade.Clock{Left: time.Minute, Stalled: 7 * time.Second, TickedAt: now.Add(-40 * time.Second)}
			want, _ := clock.Tick(now, u.Runs(upgrade.Conditions{Consuming: consuming, Judge: judge}), now.Add(-absent),
				w.times.AbandonAfter)
			var heard []component.ExchangeID
			if consuming {
				heard = append(heard, w.exchange)
			}
			Expect(w.TickUpgrades(ctx(), heard)).To(Succeed())
			var got struct {
				Left    int64 `db:"clock_left"`
				Stalled int64 `db:"clock_stalled"`
			}
			Expect(w.db.Get(&got, `SELECT clock_left, clock_stalled FROM upgrades`)).To(Succeed())
			Expect(got.Left).To(BeNumerically("~", want.Left.Milliseconds(), 3000))
			Expect(got.Stalled).To(BeNumerically("~", want.Stalled.Milliseconds(), 3000))
		},
		Entry("a deploy that runs", upgrade.Upgrade{Type: component.Builder, Step: upgrade.StepDeploy}, true, true,
			time.Hour),
		Entry("a deploy without a judge", upgrade.Upgrade{Type: component.Builder, Step: upgrade.StepDeploy}, true, false,
			time.Hour),
		Entry("an exchange that is not heard", upgrade.Upgrade{Type: component.Builder, Step: upgrade.StepDeploy}, false,
			true, time.Hour),
		Entry("a proof with a judge", upgrade.Upgrade{Type: component.Builder, Step: upgrade.StepVerify}, true, true,
			time.Hour),
		Entry("a proof without a judge", upgrade.Upgrade{Type: component.Builder, Step: upgrade.StepVerify}, true, false,
			time.Hour),
		Entry("that of an overseer", upgrade.Upgrade{Type: component.Overseer, Step: upgrade.StepVerify}, true, false,
			time.Hour),
		Entry("an absence of manager-api until ten seconds ago",
			upgrade.Upgrade{Type: component.Builder, Step: upgrade.StepDeploy}, true, true, 10*time.Second),
	)
})
