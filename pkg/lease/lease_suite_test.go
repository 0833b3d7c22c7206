package lease_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/openaperture/openaperture/pkg/lease"
	"github.com/openaperture/openaperture/pkg/pgtest"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func TestLease(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "lease", Label("integration"))
}

var testDB *pgtest.Database

var _ = BeforeSuite(func() {
	testDB = pgtest.New(func(ctx context.Context, url string) error {
		db, err := sql.Open("postgres", url)
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }()
		_, err = db.ExecContext(ctx, lease.Schema)
		return err
	})
})

var _ = BeforeEach(func() { testDB.Truncate() })
