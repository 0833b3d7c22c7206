package postgres_test

import (
	"context"
	"net"
	"time"

	"github.com/openaperture/openaperture/pkg/fault"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("A server that does not answer", func() {
	// openAt has a socket deadline of 2.5 s.
	const bound = 6 * time.Second

	It("holds nobody beyond the deadline, begin included (B2, PG1)", func() {
		p, url := newProxy(testDB.URL)
		db := openAt(url)
		Expect(db.Ping(context.Background())).To(Succeed())
		p.stalled.Store(true)
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		begun := time.Now()
		err := db.InTx(ctx, insert(1))
		Expect(fault.KindOf(err)).To(Equal(fault.Unavailable))
		Expect(time.Since(begun)).To(BeNumerically("<", bound))
	})

	It("holds nobody who has no deadline of its own either", func() {
		p, url := newProxy(testDB.URL)
		db := openAt(url)
		Expect(db.Ping(context.Background())).To(Succeed())
		p.stalled.Store(true)
		begun := time.Now()
		_, err := db.Exec(insertThing, 1)
		Expect(err).To(HaveOccurred())
		Expect(time.Since(begun)).To(BeNumerically("<", 2*bound)) // database/sql tries a second connection
	})

	It("does not hold up the start, and Ping says that it is away", func() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		Expect(err).ToNot(HaveOccurred())
		address := l.Addr().String()
		Expect(l.Close()).To(Succeed())
		db := openAt("postgres://oa:hunter2@" + address + "/oa?sslmode=disable")
		err = db.Ping(context.Background())
		Expect(fault.KindOf(err)).To(Equal(fault.Unavailable))
		Expect(err.Error()).ToNot(ContainSubstring("hunter2"))
	})

	It("ends a statement that takes too long", func() {
		_, err := openAt(testDB.URL).Exec(`SELECT pg_sleep(5)`)
		Expect(err).To(MatchError(ContainSubstring("57014")))
	})
})
