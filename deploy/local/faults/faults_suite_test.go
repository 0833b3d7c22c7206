//go:build e2e

package faults_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	_ "github.com/lib/pq" // the outbox and the orders are read beside manager-api, which is a victim itself
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/deploy/local/internal/stack"
	"github.com/openaperture/openaperture/deploy/local/internal/stacktest"
	"github.com/openaperture/openaperture/deploy/local/internal/witness"
)

func TestFaults(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "faults")
}

// The stack that all specs share, one after the other.
var (
	suite *stack.Stack
	see   witness.Witness
	db    *sqlx.DB

	failed bool // a spec has failed
)

// manager is manager-api.
var manager = stack.Own[0]

var _ = BeforeSuite(func(ctx SpecContext) {
	suite = stacktest.Open(ctx, "../../..", "faults", func() bool { return failed })
	// bad versions are given up earlier, all else is as ever
	suite.Tuning = "{health_deadline: 6s, progress_deadline: 16s}"
	Expect(suite.Up(ctx, func(what string) { GinkgoWriter.Println("starting", what) })).To(Succeed())
	api, err := suite.Client()
	Expect(err).NotTo(HaveOccurred())
	see = witness.Witness{Stack: suite, API: api}
	Expect(suite.LaunchHello(ctx, api)).To(Succeed())
	db, err = sqlx.ConnectContext(ctx, "postgres", suite.DatabaseURL())
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(db.Close)
	Eventually(wrong).WithContext(ctx).WithTimeout(time.Minute).Should(Succeed())
}, NodeTimeout(5*time.Minute))

var _ = ReportAfterEach(func(r SpecReport) { failed = failed || r.Failed() })

var _ = AfterEach(func(ctx SpecContext) {
	Eventually(wrong).WithContext(ctx).WithTimeout(time.Minute).WithPolling(300 * time.Millisecond).Should(Succeed())
}, NodeTimeout(90*time.Second))

// wrong lists what is not as it should be: every service runs its recorded version and reports it, a leader covers the
// exchange, nothing is under way, and nothing waits to be sent.
func wrong(ctx context.Context) error {
	snapshot, err := see.API.Snapshot(ctx, suite.ExchangeID())
	if err != nil {
		return err
	}
	var all []error
	if snapshot.Lease == nil || !snapshot.Lease.Covering {
		all = append(all, errors.New("no leader covers the exchange"))
	}
	for _, u := range snapshot.Upgrades {
		all = append(all, fmt.Errorf("the upgrade %s of %s is %s", u.ID, u.ComponentType, u.State))
	}
	recorded := map[string]string{}
	for _, c := range snapshot.Components {
		recorded[string(c.Type)] = c.SourceRepoGitRef
	}
	for _, v := range append([]stack.Service{stack.Hello}, stack.Own...) {
		_, err := see.Runs(ctx, v, recorded[string(v.Type)])
		all = append(all, err, see.Reported(ctx, v, recorded[string(v.Type)]))
	}
	return errors.Join(append(all, unsent(ctx), inactive(ctx))...)
}

func unsent(ctx context.Context) error {
	var n int
	if err := db.GetContext(ctx, &n, `SELECT count(*) FROM outbox WHERE published_at IS NULL`); err != nil {
		return fmt.Errorf("count what waits to be sent: %w", err)
	}
	if n > 0 {
		return fmt.Errorf("%d messages wait to be sent", n)
	}
	return nil
}

func inactive(ctx context.Context) error {
	states, err := suite.UnitStates(ctx)
	for unit, state := range states {
		if state != "active" {
			err = errors.Join(err, fmt.Errorf("%s is %s", unit, state))
		}
	}
	return err
}
