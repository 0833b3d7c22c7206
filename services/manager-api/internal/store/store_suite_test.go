package store_test

import (
	"context"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/pgtest"
	"github.com/openaperture/openaperture/pkg/postgres"
	"github.com/openaperture/openaperture/services/manager-api/internal/store"
)

func TestStore(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "store", Label("integration"))
}

var database *pgtest.Database

var _ = BeforeSuite(func() { database = pgtest.New(migrate, "schema_info") })

var _ = BeforeEach(func() { database.Truncate() })

func migrate(ctx context.Context, url string) error {
	c := postgres.DefaultConfig("migrations")
	c.URL = boot.Secret(url)
	return store.Migrate(ctx, c)
}
