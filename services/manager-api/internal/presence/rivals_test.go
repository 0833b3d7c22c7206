package presence_test

import (
	"encoding/json"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	messages "github.com/openaperture/openaperture/proto-messages"
)

var _ = Describe("Two hosts with one hostname (E11)", func() {
	beat := func(s *site, hostname, boot string, seq int64) {
		GinkgoHelper()
		_, err := s.Beat(ctx(), s.exchange, []messages.ModuleStatus{{EventType: "status", Hostname: hostname, Type: "builder",
			Status: "active", BootID: boot, Seq: seq, SourceRepoGitRef: "v of " + boot}})
		Expect(err).NotTo(HaveOccurred())
	}
	events := func(s *site) []string {
		GinkgoHelper()
		Expect(s.TellRivals(ctx())).To(Succeed())
		return s.list(`SELECT type || ' ' || severity || ': ' || message FROM system_events ORDER BY id`)
	}
	shown := func(s *site, hostname string) string {
		GinkgoHelper()
		m, err := s.Module(ctx(), s.exchange, hostname)
		Expect(err).NotTo(HaveOccurred())
		text, err := json.Marshal(m)
		Expect(err).NotTo(HaveOccurred())
		return string(text)
	}

	It("are told of once for each pair, and shown while both live; the row does not flap", func() {
		s := newSite()
		beat(s, "h", "a", 1)
		s.passes(time.Hour)
		beat(s, "h", "a", 2)
		beat(s, "h", "b", 1)
		for i := range int64(6) { // three minutes
			s.passes(30 * time.Second)
			beat(s, "h", "a", 3+i)
			beat(s, "h", "b", 2+i)
			Expect(s.list(`SELECT boot_id || ' ' || source_repo_git_ref FROM messaging_exchange_modules`)).
				To(Equal([]string{"b v of b"}))
			Expect(shown(s, "h")).To(And(ContainSubstring(`"boot_id":"b"`), ContainSubstring(`"rival_boot_id":"a"`),
				ContainSubstring(`"rival_seen"`)))
			Expect(events(s)).To(HaveLen(min(1, int(i/2))), "only when no queue can have kept the beats")
		}
		const message = "hostname_taken error: two hosts beat as h (type builder, boots b and a): " +
			"neither proves a version; give each host a HOSTNAME of its own, or stop one of them"
		Expect(events(s)).To(Equal([]string{message}), "once")
		Expect(s.list(`SELECT data->'hostnames'->0->>'rival_boot_id' FROM system_events`)).To(Equal([]string{"a"}))

		s.passes(95 * time.Second)
		beat(s, "h", "a", 20) // b is silent: a counts
		beat(s, "h", "b", 20)
		s.passes(95 * time.Second)
		beat(s, "h", "a", 21)
		beat(s, "h", "b", 21)
		Expect(events(s)).To(HaveLen(1), "the same pair, the other way round")

		s.passes(95 * time.Second)
		beat(s, "h", "a", 22)
		Expect(shown(s, "h")).NotTo(ContainSubstring("boot_id"), "b is gone")
	})

	It("are not what a restart leaves, however late the last beats of the boot before are given out", func() {
		s := newSite()
		beat(s, "h", "a", 1)
		s.passes(30 * time.Second)
		beat(s, "h", "b", 1)
		s.passes(60 * time.Second)
		beat(s, "h", "b", 2)
		beat(s, "h", "a", 2) // was kept by the queue
		Expect(events(s)).To(BeEmpty())
		for i := range int64(4) {
			s.passes(30 * time.Second)
			beat(s, "h", "b", 3+i)
			Expect(events(s)).To(BeEmpty())
		}
		Expect(shown(s, "h")).NotTo(ContainSubstring("boot_id"))
	})

	It("are told of in one event per exchange", func() {
		s := newSite()
		for _, h := range []string{"h1", "h2", "h3"} {
			beat(s, h, "a", 1)
			beat(s, h, "b", 1)
		}
		s.passes(80 * time.Second)
		for _, h := range []string{"h1", "h2", "h3"} {
			beat(s, h, "b", 2)
		}
		s.passes(20 * time.Second)
		for _, h := range []string{"h1", "h2", "h3"} {
			beat(s, h, "a", 2)
		}
		all := events(s)
		Expect(all).To(HaveLen(1))
		Expect(strings.HasSuffix(all[0], "; so do two hosts under 2 more hostname(s)")).To(BeTrue(), all[0])
	})
})
