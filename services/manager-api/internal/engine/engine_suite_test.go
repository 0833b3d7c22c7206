package engine_test

import (
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/pgtest"
	"github.com/openaperture/openaperture/services/manager-api/internal/db"
)

func TestEngine(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "engine", Label("integration"))
}

var database *pgtest.Database

var _ = BeforeSuite(func() { database = pgtest.New(db.Migrate, "schema_info") })

var _ = BeforeEach(func() { database.Truncate() })
