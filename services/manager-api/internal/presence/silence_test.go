package presence_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/silence"
)

// The sweep is SQL, because a beat may come in between; its rule is pkg/silence. These specs hold the two together.
var _ = Describe("A sweep and pkg/silence", func() {
	var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

	covers := func(s *site, c silence.Covered) {
		GinkgoHelper()
		s.exec(`UPDATE coverage SET covered_since = $1, covered_until = $2`, c.Since, c.Until)
	}
	heard := func(s *site, hostname, status string, at time.Time) {
		GinkgoHelper()
		s.exec(`INSERT INTO messaging_exchange_modules (messaging_exchange_id, hostname, type, status, updated_at)
			VALUES ($1, $2, 'builder', $3, $4)`, s.exchange, hostname, status, at)
	}
	// enough are heard in every spec, so that the brake stays off unless a spec wants it on.
	enough := func(s *site, n int) {
		GinkgoHelper()
		for i := range n {
			heard(s, fmt.Sprint("z-heard-", i), "active", noon)
		}
	}

	It("agree on every module, at the limits and beside them, however long was covered (E2, E3, E5)", func() {
		s := newSite()
		limits := silence.Limits{InactiveAfter: s.times.InactiveAfter, DeleteAfter: s.times.DeleteAfter}
		draw := rand.New(rand.NewPCG(uint64(GinkgoRandomSeed()), 1))
		ages := []time.Duration{0, -time.Minute, time.Hour,
			10*time.Minute - time.Second, 10 * time.Minute, 10*time.Minute + time.Microsecond, 10*time.Minute + time.Second,
			20*time.Minute - time.Second, 20 * time.Minute, 20*time.Minute + time.Microsecond, 20*time.Minute + time.Second}
		for range 30 {
			ages = append(ages, time.Duration(draw.Int64N(int64(30*time.Minute))).Truncate(time.Microsecond))
		}
		for _, since := range []time.Duration{0, 10 * time.Minute, 10*time.Minute + time.Second,
			20*time.Minute + time.Second, 2 * time.Hour} {
			s.exec(`DELETE FROM messaging_exchange_modules`)
			enough(s, 3*len(ages))
			c := silence.Covered{Since: noon.Add(-since), Until: noon}
			covers(s, c)
			inactivated, deleted := []string{}, []string{}
			for i, age := range ages {
				for _, status := range []string{"active", "inactive"} {
					hostname := fmt.Sprintf("m-%02d-%s", i, status)
					heard(s, hostname, status, noon.Add(-age))
					switch silence.Judge(c.Silence(noon.Add(-age)), limits, false) {
					case silence.Gone:
						deleted = append(deleted, hostname)
					case silence.Inactive:
						if status == "active" {
							inactivated = append(inactivated, hostname)
						}
					case silence.Heard:
					}
				}
			}
			r := s.sweep()
			Expect(r.Held).To(BeFalse())
			Expect(r.Inactivated).To(Equal(inactivated), "covered for %s", since)
			Expect(r.Deleted).To(Equal(deleted), "covered for %s", since)
		}
	})

	It("agree on the brake and on how long a hold lasts (E4)", func() {
		s := newSite()
		limits := silence.Limits{InactiveAfter: s.times.InactiveAfter, DeleteAfter: s.times.DeleteAfter}
		draw := rand.New(rand.NewPCG(uint64(GinkgoRandomSeed()), 2))
		var hold *silence.Hold
		c := silence.Covered{Since: noon.Add(-time.Hour), Until: noon}
		for step := range 60 {
			if draw.IntN(8) == 0 { // a break: covered time begins anew
				c.Since = c.Until.Add(time.Duration(draw.Int64N(int64(time.Hour)))).Truncate(time.Millisecond)
				c.Until = c.Since
			}
			c.Until = c.Until.Add(time.Duration(draw.Int64N(int64(6 * time.Minute)))).Truncate(time.Millisecond)
			covers(s, c)
			s.exec(`DELETE FROM messaging_exchange_modules`)
			gone, missing, total := 0, 0, 3+draw.IntN(8)
			for i := range total {
				last := c.Until
				if draw.IntN(4) > 0 || step%10 < 6 {
					last = c.Since.Add(-time.Second)
				}
				heard(s, fmt.Sprint("m", i), "active", last)
				if silence.Missing(c.Silence(last), limits) {
					missing++
				}
				if silence.Judge(c.Silence(last), limits, false) == silence.Gone {
					gone++
				}
			}
			r := s.sweep()
			switch {
			case !silence.Brake(missing, total):
				hold = nil
			case hold == nil:
				hold = new(silence.Begin(c))
			default:
				*hold = hold.Tick(c)
			}
			held := hold != nil && hold.Lasts(limits)
			Expect(r.Held).To(Equal(held), "step %d: %d of %d, %+v", step, missing, total, hold)
			if held {
				gone = 0
			}
			Expect(r.Deleted).To(HaveLen(gone), "step %d", step)
			if hold != nil && draw.IntN(15) == 0 {
				Expect(s.ReleaseHold(ctx(), s.exchange)).To(Succeed())
				hold.Released = true
			}
		}
	})

	It("count the silence of a module that was never heard from when it was registered (E12)", func() {
		s := newSite()
		s.exec(`INSERT INTO messaging_exchange_modules (messaging_exchange_id, hostname, type, status)
			VALUES ($1, 'new', 'builder', 'active')`, s.exchange)
		_, err := s.pool.Exec(`UPDATE messaging_exchange_modules SET updated_at = NULL`)
		Expect(err).To(HaveOccurred(), "there is no module without a last heartbeat")
		s.exec(`UPDATE coverage SET covered_since = now() - interval '1 hour',
			covered_until = now() + interval '10 minutes 1 second'`)
		Expect(s.sweep().Inactivated).To(Equal([]string{"new"}))
	})

	It("spare a module whose beat comes while the sweep waits for its row (E6, R9)", func() {
		s := newSite()
		enough(s, 3)
		covers(s, silence.Covered{Since: noon.Add(-time.Hour), Until: noon})
		heard(s, "a", "active", noon.Add(-30*time.Minute))
		heard(s, "b", "active", noon.Add(-30*time.Minute))
		other := database.Open(1)
		tx, err := other.Beginx()
		Expect(err).NotTo(HaveOccurred())
		tx.MustExec(`UPDATE messaging_exchange_modules SET updated_at = $1 WHERE hostname = 'a'`, noon)
		swept := make(chan []string, 1)
		go func() {
			defer GinkgoRecover()
			swept <- s.sweep().Deleted
		}()
		watch := database.Open(1)
		Eventually(func() (n int, err error) {
			return n, watch.Get(&n, `SELECT count(*) FROM pg_stat_activity
				WHERE datname = current_database() AND wait_event_type = 'Lock'`)
		}).Should(Equal(1))
		Expect(tx.Commit()).To(Succeed())
		Eventually(swept).Should(Receive(Equal([]string{"b"})))
		left := s.list(`SELECT hostname FROM messaging_exchange_modules WHERE hostname IN ('a', 'b')`)
		Expect(slices.Sorted(slices.Values(left))).To(Equal([]string{"a"}))
	})
})
