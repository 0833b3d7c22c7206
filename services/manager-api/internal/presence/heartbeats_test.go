package presence_test

import (
	"math/rand/v2"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/module"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// presenceRow is a row of messaging_exchange_modules with its receipts as seconds before the database's now. The specs
// let time pass in steps of 16 seconds; to these the ages are rounded, as the database's clock runs on.
type presenceRow struct {
	Status       string     `db:"status"`
	BootID       string     `db:"boot_id"`
	Seq          int64      `db:"seq"`
	StartedAt    *time.Time `db:"started_at"`
	Repo         string     `db:"source_repo"`
	Ref          string     `db:"source_repo_git_ref"`
	Since        int        `db:"since"`
	Seen         int        `db:"seen"`
	Steady       int        `db:"steady"`
	RivalBootID  *string    `db:"rival_boot_id"`
	RivalSeq     *int64     `db:"rival_seq"`
	RivalStarted *time.Time `db:"rival_started_at"`
	RivalSince   *int       `db:"rival_since"`
	RivalSeen    *int       `db:"rival_seen"`
	RivalAgain   *int       `db:"rival_again"`
}

func (s *site) row() presenceRow {
	GinkgoHelper()
	var r presenceRow
	ago := func(column string) string {
		return "(round(extract(epoch FROM now() - " + column + ") / 16) * 16)::int"
	}
	Expect(s.pool.Get(&r, `SELECT status, boot_id, seq, started_at, source_repo, source_repo_git_ref,
			`+ago("boot_since")+` AS since, `+ago("updated_at")+` AS seen, `+ago("steady_since")+` AS steady,
			rival_boot_id, rival_seq, rival_started_at, `+ago("rival_since")+` AS rival_since,
			`+ago("rival_seen")+` AS rival_seen, `+ago("rival_again")+` AS rival_again
		FROM messaging_exchange_modules WHERE hostname = 'h'`)).To(Succeed())
	r.StartedAt, r.RivalStarted = utc(r.StartedAt), utc(r.RivalStarted)
	return r
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	return new(t.UTC())
}

// asRow is the row that a presence should be, at now.
func asRow(p module.Presence, now time.Time) presenceRow {
	ago := func(t time.Time) int { return int(now.Sub(t).Seconds()) }
	started := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	r := presenceRow{Status: p.Says.Status, BootID: p.Boot.ID, Seq: p.Boot.Seq, StartedAt: started(p.Boot.StartedAt),
		Repo: p.Says.SourceRepo, Ref: p.Says.SourceRepoGitRef, Since: ago(p.Boot.Since), Seen: ago(p.Boot.Seen),
		Steady: ago(p.Steady)}
	if o := p.Other; o != nil {
		r.RivalBootID, r.RivalSeq, r.RivalStarted = &o.ID, &o.Seq, started(o.StartedAt)
		r.RivalSince, r.RivalSeen = new(ago(o.Since)), new(ago(o.Seen))
		if !p.Again.IsZero() {
			r.RivalAgain = new(ago(p.Again))
		}
	}
	return r
}

// passes lets time pass by making all receipts older.
func (s *site) passes(d time.Duration) {
	GinkgoHelper()
	s.exec(`UPDATE messaging_exchange_modules SET updated_at = updated_at - $1 * interval '1 second',
		boot_since = boot_since - $1 * interval '1 second', steady_since = steady_since - $1 * interval '1 second',
		rival_since = rival_since - $1 * interval '1 second', rival_seen = rival_seen - $1 * interval '1 second',
		rival_again = rival_again - $1 * interval '1 second'`, d.Seconds())
}

func beatOf(m messages.ModuleStatus) module.Beat {
	b := module.Beat{BootID: m.BootID, Seq: m.Seq, Status: m.Status, SourceRepo: m.SourceRepo,
		SourceRepoGitRef: m.SourceRepoGitRef}
	if m.StartedAt != nil {
		b.StartedAt = *m.StartedAt
	}
	return b
}

// The batch is SQL, because it stores thousands of beats a second; its rule is module.Merge. What the overseer's
// coalescer makes of beats is held to the same function by a spec of its own.
var _ = Describe("A batch of heartbeats and pkg/module", func() {
	It("agree on every row, for boots that come, go, return, repeat themselves and live side by side (E8, E11)", func() {
		s := newSite()
		draw := rand.New(rand.NewPCG(uint64(GinkgoRandomSeed()), 4))
		began := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		kinds := map[bool]int{}
		for range 25 {
			s.exec(`DELETE FROM messaging_exchange_modules`)
			now, dated := began, draw.IntN(3) > 0
			var known *module.Presence
			seq := map[string]int64{}
			for range 14 {
				var batch []messages.ModuleStatus
				for range 1 + draw.IntN(3) {
					boot := []string{"x", "y", "z", ""}[draw.IntN(4)]
					seq[boot] = max(1, seq[boot]+int64(draw.IntN(4))-1)
					m := messages.ModuleStatus{EventType: "status", Hostname: "h", Type: "builder", BootID: boot, Seq: seq[boot],
						Status: []string{"active", "active", "active", "active", "inactive"}[draw.IntN(5)]}
					if dated && boot != "" {
						m.StartedAt = new(began.Add(time.Duration(boot[0]) * time.Hour))
					}
					if draw.IntN(2) == 0 {
						m.SourceRepo, m.SourceRepoGitRef = "src", []string{"v1", "v2"}[draw.IntN(2)]
					}
					if boot == "" {
						m.Seq = 0
					}
					batch = append(batch, m)
				}
				want := 0
				for _, m := range batch {
					next, changed := module.Merge(known, beatOf(m), now, s.times.LiveWithin)
					if changed {
						want++
					}
					known = &next
					kinds[next.RivalAlive(now, s.times.LiveWithin)]++
				}
				n, err := s.Beat(ctx(), s.exchange, batch)
				Expect(err).NotTo(HaveOccurred())
				Expect(n).To(Equal(want), "%+v", batch)
				Expect(s.row()).To(Equal(asRow(*known, now)), "%+v", batch)
				pass := time.Duration(16*draw.IntN(9)) * time.Second // no multiple of 16 is near 90 or 120
				s.passes(pass)
				now = now.Add(pass)
			}
		}
		Expect(kinds[true]).To(BeNumerically(">", 20))
		Expect(kinds[false]).To(BeNumerically(">", 20))
	})

	It("rest on the database's receipt alone, whatever the sender's clock says (E7)", func() {
		s := newSite()
		for i, year := range []int{1, 1970, 9999, time.Now().Year()} {
			at := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
			n, err := s.Beat(ctx(), s.exchange, []messages.ModuleStatus{{EventType: "status", Hostname: "h", Type: "builder",
				Status: "active", BootID: "x", Seq: int64(i + 1), StartedAt: &at, SentAt: &at}})
			Expect(err).NotTo(HaveOccurred())
			Expect(n).To(Equal(1))
			Expect(s.list(`SELECT (now() - updated_at < interval '1 minute')::text FROM messaging_exchange_modules`)).
				To(Equal([]string{"true"}))
			Expect(s.sweep().Deleted).To(BeEmpty())
		}
	})

	It("register a module that is not known, or was deleted, in their own exchange (E9)", func() {
		s := newSite()
		s.exec(`INSERT INTO messaging_exchanges (name, routing_key_fragment, routing_key, root_exchange_name)
			VALUES ('there', 'there', 'there', 'there')`)
		m := messages.ModuleStatus{EventType: "status", Hostname: "h", Type: "builder", Status: "active", BootID: "x", Seq: 1}
		hosts := func() []string {
			GinkgoHelper()
			return s.list(`SELECT messaging_exchange_id || ' ' || hostname FROM messaging_exchange_modules ORDER BY 1`)
		}
		for _, exchange := range []component.ExchangeID{s.exchange, s.exchange + 1} {
			_, err := s.Beat(ctx(), exchange, []messages.ModuleStatus{m})
			Expect(err).NotTo(HaveOccurred())
		}
		Expect(hosts()).To(Equal([]string{"1 h", "2 h"}))
		Expect(s.DeleteModule(ctx(), s.exchange, "h")).To(Succeed())
		Expect(hosts()).To(Equal([]string{"2 h"}))
		_, err := s.Beat(ctx(), s.exchange, []messages.ModuleStatus{m})
		Expect(err).NotTo(HaveOccurred())
		Expect(hosts()).To(Equal([]string{"1 h", "2 h"}))
		_, err = s.Beat(ctx(), 99, []messages.ModuleStatus{m})
		Expect(fault.Is(err, fault.NotFound)).To(BeTrue())
	})

	It("take of many beats of one hostname the last eight", func() {
		s := newSite()
		var batch []messages.ModuleStatus
		for i := range int64(30) {
			batch = append(batch, messages.ModuleStatus{EventType: "status", Hostname: "h", Type: "builder", Status: "active",
				BootID: []string{"x", "y"}[i%2], Seq: i + 1})
		}
		n, err := s.Beat(ctx(), s.exchange, batch)
		Expect(err).NotTo(HaveOccurred())
		Expect(n).To(Equal(8))
		Expect(s.row().Seq + *s.row().RivalSeq).To(Equal(int64(29 + 30)))
	})
})
