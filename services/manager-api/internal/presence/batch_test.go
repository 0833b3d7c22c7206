package presence_test

import (
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/fault"
	messages "github.com/openaperture/openaperture/proto-messages"
)

var _ = Describe("Heartbeats", func() {
	beat := func(s *site, m messages.ModuleStatus) int {
		GinkgoHelper()
		m.EventType, m.Type = "status", "builder"
		if m.Status == "" {
			m.Status = "active"
		}
		n, err := s.Beat(ctx(), s.exchange, []messages.ModuleStatus{m})
		Expect(err).NotTo(HaveOccurred())
		return n
	}

	It("update a module in place: id and first sight stay, unstated versions too", func() {
		s := newSite()
		beat(s, messages.ModuleStatus{Hostname: "h", BootID: "b", Seq: 1, SourceRepo: "src", SourceRepoGitRef: "v1"})
		before := s.value(`SELECT id || inserted_at::text FROM messaging_exchange_modules`)
		beat(s, messages.ModuleStatus{Hostname: "h", BootID: "b", Seq: 2, Workload: []byte(`[{"description":"x"}]`)})
		Expect(s.value(`SELECT id || inserted_at::text FROM messaging_exchange_modules`)).To(Equal(before))
		Expect(s.value(`SELECT source_repo_git_ref || (workload->0->>'description')
			FROM messaging_exchange_modules`)).To(Equal("v1x"))
	})

	It("that are repeated use up no ids: a module that registers after a thousand beats gets the next id", func() {
		s := newSite()
		beat(s, messages.ModuleStatus{Hostname: "first", BootID: "b"})
		for seq := range int64(1000) {
			beat(s, messages.ModuleStatus{Hostname: "first", BootID: "b", Seq: seq + 1})
		}
		beat(s, messages.ModuleStatus{Hostname: "second", BootID: "b"})
		Expect(s.value(`SELECT max(id) - min(id) FROM messaging_exchange_modules`)).To(Equal("1"))
	})

	It("of a new host are stored also when two batches register the host at once", func() {
		s := newSiteOn(database.Open(4))
		status := messages.ModuleStatus{EventType: "status", Type: "builder", Status: "active", BootID: "b"}
		for i := range 50 {
			status.Hostname = fmt.Sprintf("h%d", i)
			older, newer := status, status
			older.Seq, newer.Seq = 1, 2
			done := make(chan error)
			for _, m := range []messages.ModuleStatus{older, newer} {
				go func() { _, err := s.Beat(ctx(), s.exchange, []messages.ModuleStatus{m}); done <- err }()
			}
			Expect(<-done).To(Succeed())
			Expect(<-done).To(Succeed())
		}
		Expect(s.value(`SELECT count(*) || ' at ' || string_agg(DISTINCT seq::text, ',')
			FROM messaging_exchange_modules`)).To(Equal("50 at 2"))
	})

	DescribeTable("do not lend their version to a successor on the same host", func(before, after, want string) {
		s := newSite()
		beat(s, messages.ModuleStatus{Hostname: "h", BootID: before, SourceRepo: "src", SourceRepoGitRef: "v1",
			DeploymentRepo: "d", DeploymentRepoGitRef: "main"})
		beat(s, messages.ModuleStatus{Hostname: "h", BootID: after})
		Expect(s.value(`SELECT concat_ws(' ', source_repo, source_repo_git_ref, deployment_repo, deployment_repo_git_ref)
			FROM messaging_exchange_modules`)).To(Equal(want))
	},
		Entry("another boot", "b", "c", "   "),
		Entry("the same boot", "b", "b", "src v1 d main"),
		Entry("both of modules that state no boot", "", "", "src v1 d main"),
		Entry("the successor states none", "b", "", "   "),
		Entry("the predecessor stated none", "", "c", "   "),
	)

	It("E8 of one boot only go forward; another boot begins anew", func() {
		s := newSite()
		Expect(beat(s, messages.ModuleStatus{Hostname: "h", BootID: "b", Seq: 5})).To(Equal(1))
		Expect(beat(s, messages.ModuleStatus{Hostname: "h", BootID: "b", Seq: 5})).To(Equal(0))
		Expect(beat(s, messages.ModuleStatus{Hostname: "h", BootID: "b", Seq: 4, Status: "inactive"})).To(Equal(0))
		Expect(beat(s, messages.ModuleStatus{Hostname: "h", BootID: "c", Seq: 1})).To(Equal(1))
	})

	It("E8 of an earlier boot that come late change nothing; a clock that was set back does not silence a host", func() {
		s := newSite()
		at := func(boot string, age time.Duration, status string) int {
			started := time.Now().Add(-age)
			n, err := s.Beat(ctx(), s.exchange, []messages.ModuleStatus{{EventType: "status", Hostname: "h", Type: "builder",
				Status: status, BootID: boot, Seq: 3, StartedAt: &started}})
			Expect(err).NotTo(HaveOccurred())
			return n
		}
		boot := func() string { return s.value(`SELECT boot_id || ' ' || status FROM messaging_exchange_modules`) }
		Expect(at("old", time.Hour, "active")).To(Equal(1))
		Expect(at("new", time.Minute, "active")).To(Equal(1))
		Expect(at("old", time.Hour, "inactive")).To(Equal(0), "delivered once more, after a leader was lost")
		Expect(boot()).To(Equal("new active"))
		s.exec(`UPDATE messaging_exchange_modules SET boot_since = now() - interval '3 minutes'`)
		Expect(at("newest", 2*time.Hour, "active")).To(Equal(1), "no beat is so old: its host's clock is")
		Expect(boot()).To(Equal("newest active"))
	})

	DescribeTable("restart what a proof counts from", func(second messages.ModuleStatus, boot, steady bool) {
		s := newSite()
		beat(s, messages.ModuleStatus{Hostname: "h", BootID: "b", Seq: 1, SourceRepoGitRef: "v1"})
		s.exec(`UPDATE messaging_exchange_modules SET boot_since = now() - interval '1 hour',
			steady_since = now() - interval '1 hour'`)
		second.Hostname, second.Seq = "h", 2
		beat(s, second)
		Expect(s.value(`SELECT (boot_since > now() - interval '1 minute')::text
			FROM messaging_exchange_modules`)).To(Equal(fmt.Sprint(boot)))
		Expect(s.value(`SELECT (steady_since > now() - interval '1 minute')::text
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
		s := newSite()
		m := func(ref string) messages.ModuleStatus {
			return messages.ModuleStatus{Hostname: "h", Type: "t", Status: "active", SourceRepoGitRef: ref}
		}
		Expect(s.Beat(ctx(), s.exchange, []messages.ModuleStatus{m("v1"), m("v2")})).To(Equal(2))
		Expect(s.value(`SELECT source_repo_git_ref FROM messaging_exchange_modules`)).To(Equal("v2"))
		_, err := s.Beat(ctx(), 99, []messages.ModuleStatus{m("v1")})
		Expect(fault.Is(err, fault.NotFound)).To(BeTrue())
	})

	It("survive a deadlock: who is told to give up begins again", func() {
		s := newSite()
		s.heard("a", "b")
		tx := database.Begin(`SELECT id FROM messaging_exchange_modules WHERE hostname = 'b' FOR UPDATE`)
		tx.MustExec(`SET LOCAL deadlock_timeout = '30s'`) // this time the batch gives up
		Expect(database.Behind(tx, func() error {
			_, err := s.Beat(ctx(), s.exchange, []messages.ModuleStatus{{Hostname: "a", Type: "builder", Status: "active"},
				{Hostname: "b", Type: "builder", Status: "active"}})
			return err
		}, func() { tx.MustExec(`UPDATE messaging_exchange_modules SET status = 'inactive' WHERE hostname = 'a'`) })).
			To(Succeed())
		Expect(s.value(`SELECT count(*) FROM messaging_exchange_modules WHERE status = 'active'`)).To(Equal("2"))
	})
})
