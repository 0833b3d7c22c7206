package store_test

import (
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/pgtest"
	"github.com/openaperture/openaperture/services/manager-api/internal/store"
)

func TestStore(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "store", Label("integration"))
}

var database *pgtest.Database

var _ = BeforeSuite(func() { database = pgtest.New(store.Migrate, "schema_info") })

var _ = BeforeEach(func() { database.Truncate() })
