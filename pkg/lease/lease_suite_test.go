package lease_test

import (
	"testing"

	"github.com/openaperture/openaperture/pkg/pgtest"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func TestLease(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "lease", Label("integration"))
}

// schema is what the package needs of a service's migrations.
const schema = `
	CREATE SEQUENCE lease_tokens;
	CREATE TABLE leases (name text PRIMARY KEY, holder text NOT NULL, token bigint NOT NULL,
		expires_at timestamptz NOT NULL, data jsonb NOT NULL DEFAULT '{}')`

var testDB *pgtest.Database

var _ = BeforeSuite(func() { testDB = pgtest.New(pgtest.Statements(schema)) })

var _ = BeforeEach(func() { testDB.Truncate() })
