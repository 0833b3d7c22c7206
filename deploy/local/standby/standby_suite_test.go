// Package standby has the specs of pkg/postgres against a primary and its standby, which takes over.
package standby_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/servers"
	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/postgres"
)

func TestStandby(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	RunSpecs(t, "standby", Label("integration"))
}

// pair starts a primary, with a table in it, and its standby.
func pair(ctx SpecContext) (primary, standby servers.Postgres) {
	GinkgoHelper()
	dir, err := os.MkdirTemp("/var/tmp", "openaperture-standby-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	Expect(os.Chmod(dir, 0o755)).To(Succeed()) // the server's user passes through
	ports, err := servers.FreePorts(ctx, 2)
	Expect(err).NotTo(HaveOccurred())
	server := func(name string, port int) servers.Postgres {
		p := servers.Postgres{Dir: filepath.Join(dir, name), Port: port, Password: "postgres", Throwaway: true}
		DeferCleanup(func(ctx SpecContext) { Expect(p.Stop(ctx)).To(Succeed()) })
		return p
	}
	primary, standby = server("one", ports[0]), server("two", ports[1])
	Expect(primary.Start(ctx)).To(Succeed())
	db := open(primary.URL("postgres"))
	_, err = db.ExecContext(ctx, `CREATE TABLE things (id int PRIMARY KEY)`)
	Expect(err).NotTo(HaveOccurred())
	Expect(standby.Follow(ctx, primary)).To(Succeed())
	Expect(standby.Start(ctx)).To(Succeed())
	return primary, standby
}

// open opens a pool and closes it when the spec ends.
func open(url string) *postgres.DB {
	GinkgoHelper()
	c := postgres.DefaultConfig("spec")
	c.URL = boot.Secret(url)
	db, err := postgres.Open(c)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(db.Close)
	return db
}

// inserts returns what a transaction does.
func inserts(ctx SpecContext, id int) func(tx *sqlx.Tx) error {
	return func(tx *sqlx.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO things VALUES ($1)`, id)
		return err
	}
}

func address(p servers.Postgres) string { return fmt.Sprintf("127.0.0.1:%d", p.Port) }
