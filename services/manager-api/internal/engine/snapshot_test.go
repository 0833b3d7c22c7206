package engine_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/eligibility"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/module"
	"github.com/openaperture/openaperture/pkg/upgrade"
)

var _ = Describe("A snapshot", func() {
	It("tells who has stayed as it is through the proof of the recorded version from who came after it", func() {
		w := newWorld()
		c := w.component(component.Builder)
		u := w.verifying(c)
		w.beat(component.Builder, "", "v2", "b1", "b2")
		w.beat(component.Builder, "", "v1", "renamed")
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed(), "two of v2 are enough")
		w.beat(component.Builder, "", "v1", "renamed", "back")
		counted := func() []module.Count {
			GinkgoHelper()
			s, err := w.Snapshot(ctx(), w.exchange, false)
			Expect(err).NotTo(HaveOccurred())
			return s.Counts
		}
		of := func(ref string, stayed int) module.Count {
			return module.Count{Type: component.Builder, SourceRepoGitRef: ref, Status: module.Active, Live: 2, Total: 2,
				Stayed: stayed}
		}
		Expect(counted()).To(Equal([]module.Count{of("v1", 1), of("v2", 2)}))
		w.exec(`UPDATE system_components SET source_repo_git_ref = 'v1'`)
		Expect(counted()).To(Equal([]module.Count{of("v1", 0), of("v2", 0)}), "no upgrade has brought v1")
		w.exec(`UPDATE upgrades SET to_source_repo_git_ref = 'v1', state = 'rolled_back', verdict_code = 'not_proven',
			finished_at = now()`)
		Expect(counted()).To(Equal([]module.Count{of("v1", 2), of("v2", 2)}),
			"a repair that could not be proven is not tried for ever")
	})

	It("shows what a pass decides on, and what a verification needs", func() {
		w := newWorld()
		w.exec(`INSERT INTO system_component_refs (type, source_repo, source_repo_git_ref, auto_upgrade_enabled)
			VALUES ('builder', 'src', 'v2', true)`)
		c := w.component(component.Builder)
		u := w.verifying(c)
		w.request(w.component(component.Notifications))
		w.beat(component.Builder, "", "v2", "b1", "b2")
		w.beat(component.Notifications, "", "v1", "n1")
		s, err := w.Snapshot(ctx(), w.exchange, false)
		Expect(err).NotTo(HaveOccurred())
		Expect([]any{s.Exchange.RoutingKey, s.Lease.Term, s.Lease.Covering, len(s.Refs), len(s.Components), len(s.Upgrades),
			len(s.Counts)}).To(Equal(
			[]any{"here", w.term, true, 1, 2, 2, 2}))
		Expect(s.Modules).To(HaveLen(2), "rows only of types with a running upgrade")
		Expect(s.Counts[0].Live).To(Equal(2))
		need := s.Upgrades[0].Need
		Expect([]any{s.Upgrades[0].ID, need.Count, need.Ref, need.Commit, need.LeaderHostname}).
			To(Equal([]any{u, 2, "v2", "abc123", "overseer-1"}))
		Expect(upgrade.Prove(*need, s.Modules).OK()).To(BeTrue())
		all, err := w.Snapshot(ctx(), w.exchange, true)
		Expect(err).NotTo(HaveOccurred())
		Expect(all.Modules).To(HaveLen(3))
		_, err = w.Snapshot(ctx(), 99, false)
		Expect(fault.Is(err, fault.NotFound)).To(BeTrue())
	})
})

// Strays are counted in SQL, because an exchange may have 100,000 modules; their rule is pkg/eligibility. This spec
// holds the two together, over random upgrades and modules.
var _ = Describe("The counts of a snapshot and pkg/eligibility", func() {
	It("agree on which modules have stayed as they are", func() {
		w := newWorld()
		c := w.component(component.Builder)
		draw := rand.New(rand.NewPCG(uint64(GinkgoRandomSeed()), 3))
		var now time.Time
		Expect(w.db.Get(&now, `SELECT now()`)).To(Succeed())
		minute := func(n int) time.Time { return now.Add(-time.Duration(n) * time.Minute) }
		recorded := upgrade.Version{SourceRepo: "src", SourceRepoGitRef: "v1"}
		stayed, silent := 0, w.times.LiveWithin+time.Hour
		for range 40 {
			w.exec(`DELETE FROM upgrades`)
			w.exec(`DELETE FROM messaging_exchange_modules`)
			var attempts []eligibility.Attempt
			for range draw.IntN(5) {
				a := eligibility.Attempt{To: upgrade.Version{SourceRepo: []string{"src", "src", "fork"}[draw.IntN(3)],
					SourceRepoGitRef: []string{"v1", "v1", "v2"}[draw.IntN(3)], SourceCommitHash: []string{"", "c2"}[draw.IntN(2)]},
					State:  []upgrade.State{upgrade.Completed, upgrade.Failed, upgrade.RolledBack}[draw.IntN(3)],
					Reason: []string{"not_proven", "deploy_unhealthy", ""}[draw.IntN(3)], Ended: minute(draw.IntN(6))}
				w.exec(`INSERT INTO upgrades (id, component_id, component_type, messaging_exchange_id, proof, trigger, state,
					to_source_repo, to_source_repo_git_ref, to_source_commit_hash, verdict_code, finished_at)
					VALUES (gen_random_uuid(), $1, 'builder', $2, 'modules', 'hourly', $3, $4, $5, $6, $7, $8)`, c, w.exchange,
					string(a.State), a.To.SourceRepo, a.To.SourceRepoGitRef, a.To.SourceCommitHash, a.Reason, a.Ended)
				attempts = append(attempts, a)
			}
			want, tried := map[string]int{}, eligibility.Tried(recorded, attempts)
			for i := range 8 {
				m := module.Module{Hostname: fmt.Sprint("m", i), Type: component.Builder,
					Status:           []string{module.Active, module.Active, module.Inactive}[draw.IntN(3)],
					SourceRepoGitRef: []string{"v1", "v2"}[draw.IntN(2)], SteadySince: minute(draw.IntN(6)),
					LastSeen: now.Add(-[]time.Duration{0, 0, silent}[draw.IntN(3)])}
				w.exec(`INSERT INTO messaging_exchange_modules (messaging_exchange_id, hostname, type, status,
					source_repo_git_ref, steady_since, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`, w.exchange, m.Hostname,
					string(m.Type), m.Status, m.SourceRepoGitRef, m.SteadySince, m.LastSeen)
				if eligibility.Stayed(m, tried, now, w.times.LiveWithin) {
					want[m.SourceRepoGitRef]++
					stayed++
				}
			}
			s, err := w.Snapshot(ctx(), w.exchange, false)
			Expect(err).NotTo(HaveOccurred())
			got := map[string]int{}
			for _, n := range s.Counts {
				if n.Stayed > 0 {
					got[n.SourceRepoGitRef] += n.Stayed
				}
			}
			Expect(got).To(Equal(want), "%v", attempts)
		}
		Expect(stayed).To(BeNumerically(">", 0))
	})
})

var _ = Describe("The snapshot", func() {
	It("reads the present of a component, however long its history is", func() {
		const components, upgrades = 20, 200
		w := newWorld()
		for n := range components {
			t := component.Type(fmt.Sprintf("t%d", n))
			w.component(t)
			w.beat(t, "", "v1", string(t))
		}
		w.exec(`INSERT INTO upgrades (id, component_id, component_type, messaging_exchange_id, proof, trigger, state,
			to_source_repo, to_source_repo_git_ref, finished_at)
			SELECT gen_random_uuid(), c.id, c.type, $1, 'units', 'hourly', CASE WHEN n % 3 = 0 THEN 'failed'
			ELSE 'completed' END, 'src', CASE WHEN n % 2 = 0 THEN 'v1' ELSE 'v2' END,
			now() - n * interval '1 hour' FROM system_components c, generate_series(1, $2) n`, w.exchange, upgrades)
		w.exec(`INSERT INTO releases (id, component_id, source_repo, source_repo_git_ref, source_commit_hash, deployment_repo,
			deployment_repo_git_ref, etcd_token, units, proven_at)
			SELECT gen_random_uuid(), c.id, 'src', CASE WHEN n % 2 = 0 THEN 'v1'
			ELSE 'v2' END, 'commit' || n, 'd', 'main', 'tok', '[]', now() - n * interval '1 hour'
			FROM system_components c, generate_series(1, $1) n`, upgrades)
		w.exec(`ANALYZE upgrades`)
		w.exec(`ANALYZE releases`)
		w.exec(`UPDATE messaging_exchange_modules SET steady_since = now() - interval '90 minutes'`)
		ofUpgrades, ofReleases := w.read("upgrades"), w.read("releases")
		snapshot, err := w.Snapshot(ctx(), w.exchange, false)
		Expect(err).NotTo(HaveOccurred())
		Expect(w.read("upgrades") - ofUpgrades).To(BeNumerically("<=", 2*components))
		Expect(w.read("releases") - ofReleases).To(BeNumerically("<=", 2*components))
		Expect(snapshot.Components).To(HaveEach(HaveField("SourceCommitHash", "commit2")))
		Expect(snapshot.Counts).To(HaveEach(HaveField("Stayed", 0)),
			"the last upgrade to v1 that was proven ended two hours ago")
	})
})

var _ = Describe("A component whose instances are all gone", func() {
	// verdict is what a check of the component finds, as the overseer asks for it.
	verdict := func(w *world, id component.ID) eligibility.Verdict {
		GinkgoHelper()
		s, err := w.Snapshot(ctx(), w.exchange, false)
		Expect(err).NotTo(HaveOccurred())
		i := slices.IndexFunc(s.Components, func(c component.Component) bool { return c.ID == id })
		c := s.Components[i]
		return eligibility.Judge(eligibility.Input{Component: c, Ref: s.Ref(c.Type), Trigger: upgrade.TriggerHourly,
			Quarantined: s.Refused(c.Type), Counts: s.Counts, Absence: s.Absence(c)})
	}
	// silent makes everything but the executors silent for so long, in an exchange that was covered all the time.
	silent := func(w *world, t component.Type, d time.Duration) {
		GinkgoHelper()
		w.exec(`UPDATE coverage SET covered_since = now() - interval '1 day', covered_until = now()`)
		w.exec(`UPDATE messaging_exchange_modules SET updated_at = covered_until - $1 * interval '1 second'
			FROM coverage WHERE type = $2`, d.Seconds(), string(t))
	}
	// worldWith is an exchange with executors, and a component at v2, which is wanted and proven.
	worldWith := func(t component.Type) (*world, component.ID) {
		GinkgoHelper()
		w := newWorld()
		w.insert(`INSERT INTO system_component_refs (type, source_repo, source_repo_git_ref, auto_upgrade_enabled)
			VALUES ($1, 'src', 'v2', true) RETURNING id`, string(t))
		w.beat(component.Deployer, "deployer", "v1", "d1")
		w.beat(component.Deployer, "deployer-oa", "v1", "d2")
		c := w.component(t)
		if t == "billing" {
			w.exec(`DELETE FROM system_components`)
			return w, w.provenByUnits()
		}
		u := w.verifying(c)
		w.beat(t, "", "v2", "b1", "b2")
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
		return w, c
	}
	// past moves what has ended so far back in time, as the specs wait for nothing.
	past := func(w *world, d time.Duration) {
		GinkgoHelper()
		w.exec(`UPDATE upgrades SET started_at = started_at - $1 * interval '1 second',
			finished_at = finished_at - $1 * interval '1 second'`, d.Seconds())
		w.exec(`UPDATE releases SET proven_at = proven_at - $1 * interval '1 second'`, d.Seconds())
	}
	// repair performs the upgrade that a check finds to be due, up to its proof.
	repair := func(w *world, c component.ID, milestone string) upgrade.ID {
		GinkgoHelper()
		v := verdict(w, c)
		Expect([]any{v.Reason, v.Repair, v.Target.SourceRepoGitRef}).
			To(Equal([]any{eligibility.Eligible, true, "v2"}), v.String())
		Expect(w.Check(ctx(), c, w.exchange, managerapi.Check{Term: w.term, Create: true, NextCheckAt: time.Now(),
			Verdict: managerapi.Verdict{Code: string(v.Reason), Message: v.String()}})).To(Succeed())
		u := upgrade.ID(w.value(`SELECT id FROM upgrades WHERE state = 'requested'`))
		Expect(w.Start(ctx(), u, w.exchange, managerapi.Judgement{Term: w.term, Target: v.Target,
			Verdict: managerapi.Verdict{Code: string(v.Reason), Message: v.String()}})).To(Succeed())
		Expect(w.value(`SELECT milestones FROM workflows WHERE upgrade_id = $1`, string(u))).
			To(Equal(fmt.Sprintf("[%q]", milestone)), "the stored release, without git")
		w.runDeploy(u, milestone)
		return u
	}

	It("is repaired once, and again only after it has come back and gone (fault 17)", func() {
		w, c := worldWith(component.Builder)
		past(w, 2*time.Hour)
		Expect(verdict(w, c).Reason).To(Equal(eligibility.AlreadyLatest), "it runs")
		silent(w, component.Builder, w.times.MissingAfter-time.Second)
		v := verdict(w, c)
		Expect(v.Reason).To(Equal(eligibility.AlreadyLatest))
		Expect(v.Note).To(ContainSubstring("the proven release is deployed again if that lasts until"))

		silent(w, component.Builder, w.times.MissingAfter)
		u := repair(w, c, "deploy_oa")
		w.beat(component.Builder, "", "v2", "b3", "b4")
		Expect(w.Prove(ctx(), u, w.exchange, w.judgement())).To(Succeed())
		Expect(w.shown(u).Verdict.Message).To(ContainSubstring("nothing of the component has been heard since"))
		Expect(w.codes(upgradeSubject(u))).To(ContainElements("requested", "eligible", "proven"))
		Expect(w.events()).To(ContainElement("upgrade_completed info"))
		Expect(verdict(w, c).Reason).To(Equal(eligibility.AlreadyLatest), "it runs again")

		w.exec(`DELETE FROM messaging_exchange_modules WHERE type = 'builder'`)
		past(w, w.times.MissingAfter+time.Minute)
		repair(w, c, "deploy_oa")
	})

	It("is not repaired for ever if a repair could not be proven (fault 17)", func() {
		w, c := worldWith(component.Builder)
		past(w, 2*time.Hour)
		silent(w, component.Builder, w.times.MissingAfter)
		u := repair(w, c, "deploy_oa")
		w.outOfTime(u) // then what ran before is restored, which is the same release
		w.runDeploy(u, "deploy_oa")
		w.outOfTime(u)
		Expect(w.state(u)).To(Equal(upgrade.RollbackFailed))
		v := verdict(w, c)
		Expect(v.Reason).To(Equal(eligibility.NotBack), v.String())
		w.beat(component.Builder, "", "v2", "b1")
		Expect(verdict(w, c).Reason).To(Equal(eligibility.AlreadyLatest))
		w.exec(`UPDATE upgrades SET finished_at = finished_at - interval '1 hour'`)
		silent(w, component.Builder, w.times.MissingAfter)
		repair(w, c, "deploy_oa")
	})

	It("is missed after its silent modules were deleted, also if its runtime proves it (fault 17)", func() {
		w, c := worldWith("billing")
		past(w, 2*time.Hour)
		silent(w, "billing", time.Hour)
		Expect(verdict(w, c).Reason).To(Equal(eligibility.AlreadyLatest), "it may send no heartbeats")
		w.beat("billing", "", "v2", "h1")
		silent(w, "billing", time.Hour)
		_, err := w.Expire(ctx(), w.exchange, managerapi.Expiry{Term: w.term})
		Expect(err).NotTo(HaveOccurred())
		Expect(w.value(`SELECT count(*) FROM messaging_exchange_modules WHERE type = 'billing'`)).To(Equal("0"))
		u := repair(w, c, "deploy")
		Expect(w.state(u)).To(Equal(upgrade.Completed))
		Expect(verdict(w, c).Reason).To(Equal(eligibility.AlreadyLatest), "its runtime says that it runs")
	})

	It("is not missed while nobody covers, and without a recorded version", func() {
		w, c := worldWith(component.Builder)
		past(w, 2*time.Hour)
		silent(w, component.Builder, time.Hour)
		w.exec(`UPDATE coverage SET covered_since = now() - $1 * interval '1 second'`,
			(w.times.MissingAfter - time.Second).Seconds())
		Expect(verdict(w, c).Reason).To(Equal(eligibility.AlreadyLatest))
		w.exec(`UPDATE coverage SET covered_since = NULL`)
		Expect(verdict(w, c).Note).To(ContainSubstring("nobody covers the exchange"))
		w.exec(`UPDATE system_components SET source_repo = '', source_repo_git_ref = ''`)
		s, err := w.Snapshot(ctx(), w.exchange, false)
		Expect(err).NotTo(HaveOccurred())
		Expect(s.Heard).To(BeEmpty())
	})
})
