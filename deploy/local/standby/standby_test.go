package standby_test

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/rabbittest"
)

var _ = Describe("A failover of the database (B6)", func() {
	It("is followed by a pool whose connections lead to a standby, once the address leads to the primary",
		func(ctx SpecContext) {
			primary, standby := pair(ctx)
			proxy := rabbittest.NewProxy(address(standby))
			db := open(strings.Replace(primary.URL("postgres"), address(primary), proxy.Address(), 1))
			err := db.Ping(ctx)
			Expect(fault.KindOf(err)).To(Equal(fault.Unavailable))
			Expect(fault.Public(err).Message).To(ContainSubstring("the database takes no writes: the server is a standby"))
			var n int
			Expect(db.GetContext(ctx, &n, `SELECT count(*) FROM things`)).To(Succeed(), "a connection that stays in the pool")

			proxy.Retarget(address(primary))
			err = db.InTx(ctx, inserts(ctx, 1))
			Expect(fault.KindOf(err)).To(Equal(fault.Unavailable))
			Expect(fault.Public(err).Message).To(ContainSubstring("the database takes no writes"))
			Expect(db.InTx(ctx, inserts(ctx, 1))).To(Succeed())
			Expect(db.Ping(ctx)).To(Succeed())
		}, SpecTimeout(2*time.Minute))

	It("is followed by a pool that knows both servers, in either order", func(ctx SpecContext) {
		primary, standby := pair(ctx)
		both := func(one, other string) string {
			return strings.Replace(primary.URL("postgres"), address(primary), one+","+other, 1)
		}
		for i, url := range []string{both(address(primary), address(standby)), both(address(standby), address(primary))} {
			Expect(open(url).InTx(ctx, inserts(ctx, i))).To(Succeed())
		}
		db := open(both(address(primary), address(standby)))
		Expect(db.InTx(ctx, inserts(ctx, 3))).To(Succeed())
		Eventually(func(g Gomega) {
			var n int
			g.Expect(open(standby.URL("postgres")).GetContext(ctx, &n, `SELECT count(*) FROM things`)).To(Succeed())
			g.Expect(n).To(Equal(3))
		}).Should(Succeed())

		Expect(primary.Crash(ctx)).To(Succeed())
		Expect(fault.KindOf(db.InTx(ctx, inserts(ctx, 4)))).To(Equal(fault.Unavailable), "there is no primary")
		Expect(standby.Promote(ctx)).To(Succeed())
		Eventually(func() error { return db.InTx(ctx, inserts(ctx, 4)) }).Should(Succeed())
		Expect(db.Ping(ctx)).To(Succeed())
	}, SpecTimeout(2*time.Minute))
})
