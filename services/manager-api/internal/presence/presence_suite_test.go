package presence_test

import (
	"context"
	"database/sql"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/component"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/pgtest"
	"github.com/openaperture/openaperture/pkg/postgres"
	"github.com/openaperture/openaperture/pkg/times"
	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
	"github.com/openaperture/openaperture/services/manager-api/internal/presence"
)

func TestPresence(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "presence", Label("integration"))
}

var database *pgtest.Database

var _ = BeforeSuite(func() { database = pgtest.New(db.Migrate, "schema_info") })

var _ = BeforeEach(func() { database.Truncate() })

func ctx() context.Context { return context.Background() }

// site is one exchange with a leading overseer that covers it.
type site struct {
	*presence.Presence
	pool     *postgres.DB
	times    times.Times
	exchange component.ExchangeID
	term     int64
}

func newSite() *site {
	GinkgoHelper()
	return newSiteOn(database.Pool)
}

// newSiteOn is newSite on another pool than that of the suite.
func newSiteOn(pool *postgres.DB) *site {
	GinkgoHelper()
	t, err := times.Named(times.Default)
	Expect(err).NotTo(HaveOccurred())
	s := &site{pool: pool, times: t}
	s.Presence = presence.New(db.New(db.Config{Pool: s.pool, Times: t}), t)
	Expect(s.pool.Get(&s.exchange, `INSERT INTO messaging_exchanges
			(name, routing_key_fragment, routing_key, root_exchange_name)
		VALUES ('here', 'here', 'here', 'here') RETURNING id`)).To(Succeed())
	s.term = s.lead(managerapi.LeaseRequest{Holder: "overseer-1"}).Term
	s.lead(managerapi.LeaseRequest{Holder: "overseer-1", Term: s.term, Covered: true})
	return s
}

func (s *site) lead(r managerapi.LeaseRequest) managerapi.Lease {
	GinkgoHelper()
	r.TTLMS = 60_000
	l, err := s.Lead(ctx(), s.exchange, r)
	Expect(err).NotTo(HaveOccurred())
	return l
}

func (s *site) exec(sql string, args ...any) {
	GinkgoHelper()
	_, err := s.pool.Exec(sql, args...)
	Expect(err).NotTo(HaveOccurred())
}

// list reads one text value of each row.
func (s *site) list(query string, args ...any) []string {
	GinkgoHelper()
	out := []string{}
	Expect(s.pool.Select(&out, query, args...)).To(Succeed())
	return out
}

func (s *site) sweep() managerapi.ExpiryResult {
	GinkgoHelper()
	r, err := s.Expire(ctx(), s.exchange, managerapi.Expiry{Term: s.term})
	Expect(err).NotTo(HaveOccurred())
	return r
}

// value reads one text value; a missing row or NULL is "".
func (s *site) value(query string, args ...any) string {
	GinkgoHelper()
	var out []sql.NullString
	Expect(s.pool.Select(&out, query, args...)).To(Succeed())
	if len(out) == 0 {
		return ""
	}
	return out[0].String
}

// heard stores an active beat of each host.
func (s *site) heard(hosts ...string) {
	GinkgoHelper()
	for _, h := range hosts {
		Expect(s.Beat(ctx(), s.exchange, []messages.ModuleStatus{{EventType: "status", Hostname: h, Type: "builder",
			Status: "active", BootID: h + "-boot", SourceRepo: "src", SourceRepoGitRef: "v1"}})).To(Equal(1))
	}
}

// events lists "type severity" of the system events, oldest first.
func (s *site) events() []string {
	GinkgoHelper()
	return s.list(`SELECT type || ' ' || severity FROM system_events ORDER BY id`)
}
