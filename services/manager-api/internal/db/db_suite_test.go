package db_test

import (
	"context"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/pgtest"
	"github.com/openaperture/openaperture/pkg/times"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

func TestDB(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "db", Label("integration"))
}

var database *pgtest.Database

var _ = BeforeSuite(func() { database = pgtest.New(db.Migrate, "schema_info") })

var _ = BeforeEach(func() { database.Truncate() })

func ctx() context.Context { return context.Background() }

func newDB() *db.DB {
	GinkgoHelper()
	t, err := times.Named(times.Fast)
	Expect(err).NotTo(HaveOccurred())
	return db.New(db.Config{Pool: database.Pool, Times: t})
}

func exec(sql string, args ...any) {
	GinkgoHelper()
	_, err := database.Pool.Exec(sql, args...)
	Expect(err).NotTo(HaveOccurred())
}

// texts reads one text value of each row.
func texts(query string, args ...any) []string {
	GinkgoHelper()
	out := []string{}
	Expect(database.Pool.Select(&out, query, args...)).To(Succeed())
	return out
}
