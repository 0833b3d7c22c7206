package postgres_test

import (
	"context"
	"net"
	"time"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/loop"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("A server that does not answer", func() {
	// openAt has a socket deadline of 2.5 s.
	const bound = 6 * time.Second

	It("holds nobody beyond the deadline, begin included (PG1)", func() {
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

var _ = Describe("Listen", func() {
	start := func(url string) (*loop.Waker, context.CancelFunc, chan error) {
		db, w, done := openAt(url), loop.NewWaker(), make(chan error, 1)
		ctx, cancel := context.WithCancel(context.Background())
		joined := make(chan struct{})
		go func() { defer close(joined); done <- db.Listen(ctx, "outbox", w.Wake) }()
		DeferCleanup(func() { cancel(); Eventually(joined, "5s").Should(BeClosed()) })
		return w, cancel, done
	}

	It("wakes when listening begins, on notifications and after a reconnect (PG10)", func() {
		w, _, _ := start(testDB.URL)
		db := testDB.Open(1)
		Eventually(w.C(), "5s").Should(Receive())
		db.MustExec(`NOTIFY outbox`)
		Eventually(w.C(), "5s").Should(Receive())
		db.MustExec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%' AND datname = current_database()`)
		Eventually(w.C(), "5s").Should(Receive())
		Eventually(func() chan struct{} { // listens again: sent until heard, for the reconnect may still be under way
			db.MustExec(`NOTIFY outbox`)
			heard := make(chan struct{}, 1)
			select {
			case <-w.C():
				heard <- struct{}{}
			default:
			}
			return heard
		}, "5s").Should(Receive())
	})

	It("ends with its context, also on a server that went silent", func() {
		p, url := newProxy(testDB.URL)
		w, cancel, done := start(url)
		Eventually(w.C(), "5s").Should(Receive())
		p.stalled.Store(true)
		cancel()
		Eventually(done, "4s").Should(Receive(BeNil()))
	})

	It("waits for a server that is away", func() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		Expect(err).ToNot(HaveOccurred())
		address := l.Addr().String()
		Expect(l.Close()).To(Succeed())
		_, cancel, done := start("postgres://oa@" + address + "/oa?sslmode=disable")
		Consistently(done, "300ms").ShouldNot(Receive())
		cancel()
		Eventually(done, "4s").Should(Receive(BeNil()))
	})
})
