package engine_test

import (
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/module"
	"github.com/openaperture/openaperture/pkg/times"
	"github.com/openaperture/openaperture/pkg/upgrade"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

var _ = Describe("Heartbeats", func() {
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

	It("update a module in place: id and first sight stay, unstated versions too", func() {
		w := newWorld()
		beat(w, messages.ModuleStatus{Hostname: "h", BootID: "b", Seq: 1, SourceRepo: "src", SourceRepoGitRef: "v1"})
		before := w.value(`SELECT id || inserted_at::text FROM messaging_exchange_modules`)
		beat(w, messages.ModuleStatus{Hostname: "h", BootID: "b", Seq: 2, Workload: []byte(`[{"description":"x"}]`)})
		Expect(w.value(`SELECT id || inserted_at::text FROM messaging_exchange_modules`)).To(Equal(before))
		Expect(w.value(`SELECT source_repo_git_ref || (workload->0->>'description')
			FROM messaging_exchange_modules`)).To(Equal("v1x"))
	})

	It("that are repeated use up no ids: a module that registers after a thousand beats gets the next id", func() {
		w := newWorld()
		beat(w, messages.ModuleStatus{Hostname: "first", BootID: "b"})
		for seq := range int64(1000) {
			beat(w, messages.ModuleStatus{Hostname: "first", BootID: "b", Seq: seq + 1})
		}
		beat(w, messages.ModuleStatus{Hostname: "second", BootID: "b"})
		Expect(w.value(`SELECT max(id) - min(id) FROM messaging_exchange_modules`)).To(Equal("1"))
	})

	It("of a new host are stored also when two batches register the host at once", func() {
		w := newWorldWith(4, func(*times.Times) {})
		status := messages.ModuleStatus{EventType: "status", Type: "builder", Status: "active", BootID: "b"}
		for i := range 50 {
			status.Hostname = fmt.Sprintf("h%d", i)
			older, newer := status, status
			older.Seq, newer.Seq = 1, 2
			done := make(chan error)
			for _, m := range []messages.ModuleStatus{older, newer} {
				go func() { _, err := w.Beat(ctx(), w.exchange, []messages.ModuleStatus{m}); done <- err }()
			}
			Expect(<-done).To(Succeed())
			Expect(<-done).To(Succeed())
		}
		Expect(w.value(`SELECT count(*) || ' at ' || string_agg(DISTINCT seq::text, ',')
			FROM messaging_exchange_modules`)).To(Equal("50 at 2"))
	})

	DescribeTable("do not lend their version to a successor on the same host", func(before, after, want string) {
		w := newWorld()
		beat(w, messages.ModuleStatus{Hostname: "h", BootID: before, SourceRepo: "src", SourceRepoGitRef: "v1",
			DeploymentRepo: "d", DeploymentRepoGitRef: "main"})
		beat(w, messages.ModuleStatus{Hostname: "h", BootID: after})
		Expect(w.value(`SELECT concat_ws(' ', source_repo, source_repo_git_ref, deployment_repo, deployment_repo_git_ref)
			FROM messaging_exchange_modules`)).To(Equal(want))
	},
		Entry("another boot", "b", "c", "   "),
		Entry("the same boot", "b", "b", "src v1 d main"),
		Entry("both of modules that state no boot", "", "", "src v1 d main"),
		Entry("the successor states none", "b", "", "   "),
		Entry("the predecessor stated none", "", "c", "   "),
	)

	It("E8 of one boot only go forward; another boot begins anew", func() {
		w := newWorld()
		Expect(beat(w, messages.ModuleStatus{Hostname: "h", BootID: "b", Seq: 5})).To(Equal(1))
		Expect(beat(w, messages.ModuleStatus{Hostname: "h", BootID: "b", Seq: 5})).To(Equal(0))
		Expect(beat(w, messages.ModuleStatus{Hostname: "h", BootID: "b", Seq: 4, Status: "inactive"})).To(Equal(0))
		Expect(beat(w, messages.ModuleStatus{Hostname: "h", BootID: "c", Seq: 1})).To(Equal(1))
	})

	It("E8 of an earlier boot that come late change nothing; a clock that was set back does not silence a host", func() {
		w := newWorld()
		at := func(boot string, age time.Duration, status string) int {
			started := time.Now().Add(-age)
			n, err := w.Beat(ctx(), w.exchange, []messages.ModuleStatus{{EventType: "status", Hostname: "h", Type: "builder",
				Status: status, BootID: boot, Seq: 3, StartedAt: &started}})
			Expect(err).NotTo(HaveOccurred())
			return n
		}
		boot := func() string { return w.value(`SELECT boot_id || ' ' || status FROM messaging_exchange_modules`) }
		Expect(at("old", time.Hour, "active")).To(Equal(1))
		Expect(at("new", time.Minute, "active")).To(Equal(1))
		Expect(at("old", time.Hour, "inactive")).To(Equal(0), "delivered once more, after a leader was lost")
		Expect(boot()).To(Equal("new active"))
		w.exec(`UPDATE messaging_exchange_modules SET boot_since = now() - interval '3 minutes'`)
		Expect(at("newest", 2*time.Hour, "active")).To(Equal(1), "no beat is so old: its host's clock is")
		Expect(boot()).To(Equal("newest active"))
	})

	DescribeTable("restart what a proof counts from", func(second messages.ModuleStatus, boot, steady bool) {
		w := newWorld()
		beat(w, messages.ModuleStatus{Hostname: "h", BootID: "b", Seq: 1, SourceRepoGitRef: "v1"})
		w.exec(`UPDATE messaging_exchange_modules SET boot_since = now() - interval '1 hour',
			steady_since = now() - interval '1 hour'`)
		second.Hostname, second.Seq = "h", 2
		beat(w, second)
		Expect(w.value(`SELECT (boot_since > now() - interval '1 minute')::text
			FROM messaging_exchange_modules`)).To(Equal(fmt.Sprint(boot)))
		Expect(w.value(`SELECT (steady_since > now() - interval '1 minute')::text
			FROM messaging_exchange_modules`)).To(Equal(fmt.Sprint(steady)))
	},
		Entry("the same again: nothing", messages.ModuleStatus{BootID: "b", SourceRepoGitRef: "v1"}, false, false),
		Entry("no version stated: nothing", messages.ModuleStatus{BootID: "b"}, false, false),
		Entry("another boot: both", messages.ModuleStatus{BootID: "c", SourceRepoGitRef: "v1"}, true, true),
		Entry("another version: steadiness", messages.ModuleStatus{BootID: "b", SourceRepoGitRef: "v2"}, false, true),
		Entry("another status: steadiness", messages.ModuleStatus{BootID: "b", SourceRepoGitRef: "v1", Status: "inactive"},
			false, true),
	)

	It("come in batches in which the last of a hostname counts, into exchanges that exist", func() {
		w := newWorld()
		m := func(ref string) messages.ModuleStatus {
			return messages.ModuleStatus{Hostname: "h", Type: "t", Status: "active", SourceRepoGitRef: ref}
		}
		Expect(w.Beat(ctx(), w.exchange, []messages.ModuleStatus{m("v1"), m("v2")})).To(Equal(2))
		Expect(w.value(`SELECT source_repo_git_ref FROM messaging_exchange_modules`)).To(Equal("v2"))
		_, err := w.Beat(ctx(), 99, []messages.ModuleStatus{m("v1")})
		Expect(fault.Is(err, fault.NotFound)).To(BeTrue())
	})

	It("E11 of two hosts with one hostname prove nothing, and health names the hostname", func() {
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

	It("E11 of two hosts with one hostname end a verification as the environment's failure: no version is blamed", func() {
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

	It("survive a deadlock: who is told to give up begins again", func() {
		w := newWorldWith(3, func(*times.Times) {})
		w.beat(component.Builder, "", "v1", "a", "b")
		tx := w.begin(`SELECT id FROM messaging_exchange_modules WHERE hostname = 'b' FOR UPDATE`)
		tx.MustExec(`SET LOCAL deadlock_timeout = '30s'`) // this time the batch gives up
		Expect(w.behind(tx, func() error {
			_, err := w.Beat(ctx(), w.exchange, []messages.ModuleStatus{{Hostname: "a", Type: "builder", Status: "active"},
				{Hostname: "b", Type: "builder", Status: "active"}})
			return err
		}, func() { tx.MustExec(`UPDATE messaging_exchange_modules SET status = 'inactive' WHERE hostname = 'a'`) })).
			To(Succeed())
		Expect(w.value(`SELECT count(*) FROM messaging_exchange_modules WHERE status = 'active'`)).To(Equal("2"))
	})
})

var _ = Describe("Silence", func() {
	// silent makes a module that was last heard so long before the end of an hour of covered time.
	silent := func(w *world, host string, since time.Duration) {
		GinkgoHelper()
		w.exec(`UPDATE coverage SET covered_since = covered_until - interval '1 hour'`)
		w.exec(`INSERT INTO messaging_exchange_modules (messaging_exchange_id, hostname, type, status, updated_at)
			SELECT $1, $2, 'builder', 'active', covered_until - $3 * interval '1 second'
			FROM coverage`, w.exchange, host, since.Seconds())
	}
	sweep := func(w *world) managerapi.ExpiryResult {
		GinkgoHelper()
		r, err := w.Expire(ctx(), w.exchange, managerapi.Expiry{Term: w.term})
		Expect(err).NotTo(HaveOccurred())
		return r
	}

	DescribeTable("E5 counts to the second", func(since time.Duration, inactivated, deleted int) {
		w := newWorld()
		silent(w, "h", since)
		r := sweep(w)
		Expect([]int{len(r.Inactivated), len(r.Deleted)}).To(Equal([]int{inactivated, deleted}))
		Expect(w.value(`SELECT count(*) FROM system_events WHERE messaging_exchange_id IS NOT NULL`)).
			To(Equal(fmt.Sprint(inactivated + deleted)))
	},
		Entry("9:59 nothing", 599*time.Second, 0, 0),
		Entry("exactly 10 minutes are not yet over", 600*time.Second, 0, 0),
		Entry("10:01 inactive", 601*time.Second, 1, 0),
		Entry("19:59 inactive", 1199*time.Second, 1, 0),
		Entry("exactly 20 minutes are not yet over", 1200*time.Second, 1, 0),
		Entry("20:01 deleted", 1201*time.Second, 0, 1),
	)

	It("E2 E3 counts only over covered time: our own blindness expires nobody", func() {
		w := newWorld()
		silent(w, "h", 30*time.Minute)
		w.exec(`UPDATE coverage SET covered_since = covered_until - interval '9 minutes'`)
		Expect(sweep(w)).To(Equal(managerapi.ExpiryResult{Inactivated: []string{}, Deleted: []string{}}))
		l, err := w.Lead(ctx(), w.exchange, managerapi.LeaseRequest{Holder: "overseer-1", Term: w.term, TTLMS: 60_000,
			Covered: false})
		Expect(err).NotTo(HaveOccurred())
		Expect([]any{l.Covering, l.CoveredSince == nil}).To(Equal([]any{false, true}))
		Expect(sweep(w).Deleted).To(BeEmpty())
		Expect(w.lead("overseer-1", w.term).CoveredSince).NotTo(BeNil())
	})

	DescribeTable("takes modules in the order of batches, by hostname, and meets none in a deadlock",
		func(since time.Duration) {
			w := newWorldWith(3, func(*times.Times) {})
			silent(w, "b", since)
			silent(w, "a", since)
			w.exec(`ANALYZE messaging_exchange_modules`) // so few are scanned as they lie
			tx := w.begin(`SELECT id FROM messaging_exchange_modules WHERE hostname = 'a' FOR UPDATE`)
			var r managerapi.ExpiryResult
			Expect(w.behind(tx, func() (err error) {
				r, err = w.Expire(ctx(), w.exchange, managerapi.Expiry{Term: w.term})
				return err
			}, func() {
				_, err := tx.Exec(`UPDATE messaging_exchange_modules SET updated_at = now() + interval '1 hour'
					WHERE hostname = 'b'`)
				Expect(err).NotTo(HaveOccurred())
			})).To(Succeed())
			Expect(append(r.Inactivated, r.Deleted...)).To(Equal([]string{"a"}), "b was heard meanwhile")
		},
		Entry("inactive", 15*time.Minute),
		Entry("deleted", 25*time.Minute),
	)

	It("deletes one that has said inactive, too, and takes none away that was heard after the covered time", func() {
		w := newWorld()
		silent(w, "gone", 1201*time.Second)
		silent(w, "ahead", -time.Hour)
		w.exec(`UPDATE messaging_exchange_modules SET status = 'inactive' WHERE hostname = 'gone'`)
		Expect(sweep(w)).To(Equal(managerapi.ExpiryResult{Inactivated: []string{}, Deleted: []string{"gone"}}))
	})

	DescribeTable("E4 of many at once is not believed", func(total, dead int, since time.Duration, held bool) {
		w := newWorld()
		for i := range total {
			silence := time.Second
			if i < dead {
				silence = since
			}
			silent(w, fmt.Sprint("m", i), silence)
		}
		Expect(sweep(w).Held).To(Equal(held))
	},
		Entry("six of ten", 10, 6, 10*time.Minute, true),
		Entry("five of ten is not more than half", 10, 5, 21*time.Minute, false),
		Entry("four of four are too few", 4, 4, 21*time.Minute, false),
		Entry("five of five", 5, 5, 21*time.Minute, true),
		Entry("six of ten, but only just silent", 10, 6, 10*time.Minute-time.Second, false),
		Entry("nobody", 0, 0, time.Duration(0), false),
	)

	It("R9 E6 spares a module whose beat came, and the inactive one comes back with its first beat", func() {
		w := newWorld()
		silent(w, "h", 15*time.Minute)
		Expect(sweep(w).Inactivated).To(Equal([]string{"h"}))
		Expect(sweep(w).Inactivated).To(BeEmpty(), "once is enough")
		w.exec(`UPDATE messaging_exchange_modules SET updated_at = now() - interval '25 minutes'`)
		w.beat("builder", "", "v1", "h")
		Expect(sweep(w).Deleted).To(BeEmpty())
		Expect(w.value(`SELECT status FROM messaging_exchange_modules`)).To(Equal("active"))
	})

	It("E4 of most of an exchange holds deletions until an operator releases them", func() {
		w := newWorld()
		for i := range 6 {
			silent(w, fmt.Sprint("gone-", i), 25*time.Minute)
		}
		for i := range 4 {
			silent(w, fmt.Sprint("here-", i), time.Minute)
		}
		held := sweep(w)
		Expect([]any{held.Held, len(held.Deleted), len(held.Inactivated)}).To(Equal([]any{true, 0, 6}))
		Expect(sweep(w).Held).To(BeTrue())
		Expect(w.events()).To(Equal([]string{"module_deletion_held error", "module_inactive warning"}))
		Expect(w.value(`SELECT message FROM system_events ORDER BY id`)).
			To(Equal("6 of 10 modules are silent: they are kept for 30m0s of covered time, " +
				"so look at their hosts and broker, or let them go by DELETE /messaging/exchanges/1/deletion_hold"))
		Expect(w.ReleaseHold(ctx(), w.exchange)).To(Succeed())
		Expect(sweep(w).Deleted).To(HaveLen(6))
		sweep(w)
		Expect(fault.Is(w.ReleaseHold(ctx(), w.exchange), fault.NotFound)).To(BeTrue(), "the hold went with its cause")
	})

	It("E4 the hold ends by itself after 30 covered minutes", func() {
		w := newWorld()
		for i := range 6 {
			silent(w, fmt.Sprint("gone-", i), 25*time.Minute)
		}
		Expect(sweep(w).Held).To(BeTrue())
		w.exec(`UPDATE coverage SET covered_until = covered_until + interval '29 minutes 59 seconds'`)
		Expect(sweep(w).Held).To(BeTrue())
		w.exec(`UPDATE coverage SET covered_until = covered_until + interval '2 seconds'`)
		r := sweep(w)
		Expect([]any{r.Held, len(r.Deleted)}).To(Equal([]any{false, 6}))
	})
})

var _ = Describe("Leadership", func() {
	It("C1 is one's at a time; a new process of the same host has a new term", func() {
		w := newWorld()
		_, err := w.Lead(ctx(), w.exchange, managerapi.LeaseRequest{Holder: "overseer-2", TTLMS: 15_000})
		Expect(fault.CodeOf(err)).To(Equal(db.CodeHeld))
		again := w.lead("overseer-1", 0)
		Expect(again.Term).To(BeNumerically(">", w.term))
		Expect(again.Covering).To(BeFalse())
	})

	It("C2 cannot be renewed once it has expired", func() {
		w := newWorld()
		w.exec(`UPDATE leases SET expires_at = now() - interval '1 second'`)
		_, err := w.Lead(ctx(), w.exchange, managerapi.LeaseRequest{Holder: "overseer-1", Term: w.term, TTLMS: 15_000})
		Expect(fault.CodeOf(err)).To(Equal(db.CodeStaleTerm))
		_, err = w.Leader(ctx(), w.exchange)
		Expect(fault.Is(err, fault.NotFound)).To(BeTrue())
	})
})

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
