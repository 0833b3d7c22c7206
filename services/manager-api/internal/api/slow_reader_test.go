package api_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/url"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("A client that reads slowly", func() {
	It("holds no connection of the database: ten of them keep nobody waiting (trust H6)", func() {
		h := start() // over one connection
		h.ok(201, "POST", "/messaging/exchanges", `{"name":"here"}`)
		_, err := h.db.Exec(`INSERT INTO messaging_exchange_modules (messaging_exchange_id, hostname, type, status, workload)
			SELECT 1, 'host-' || n, 'builder', 'active', to_jsonb(repeat('x', 20000)) FROM generate_series(1, 2000) n`)
		Expect(err).NotTo(HaveOccurred())
		at, err := url.Parse(h.url)
		Expect(err).NotTo(HaveOccurred())
		for range 10 {
			conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", at.Host)
			Expect(err).NotTo(HaveOccurred())
			DeferCleanup(conn.Close)
			fmt.Fprintf(conn, "GET /messaging/exchanges/1/modules HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n",
				tokenOf("admin"))
			line, err := bufio.NewReaderSize(conn, 16).ReadString('\n')
			Expect(err).NotTo(HaveOccurred())
			Expect(line).To(ContainSubstring("200"), "it has begun, and reads no further")
		}
		began := time.Now()
		h.ok(200, "GET", "/messaging/exchanges/1", "")
		Expect(time.Since(began)).To(BeNumerically("<", 5*time.Second))
	})

	It("gets the whole list, in the order of ids, over more than one page", func() {
		h := start()
		h.ok(201, "POST", "/messaging/exchanges", `{"name":"here"}`)
		_, err := h.db.Exec(`INSERT INTO messaging_exchange_modules (messaging_exchange_id, hostname, type, status)
			SELECT 1, 'host-' || n, 'builder', 'active' FROM generate_series(1, 301) n`)
		Expect(err).NotTo(HaveOccurred())
		list := h.ok(200, "GET", "/messaging/exchanges/1/modules", "").objects()
		Expect(list).To(HaveLen(301))
		for i, m := range list {
			Expect(m).To(HaveKeyWithValue("hostname", fmt.Sprintf("host-%d", i+1)))
		}
		Expect(h.ok(200, "GET", "/messaging/exchanges/1/modules?limit=150", "").objects()).To(HaveLen(150))
		Expect(h.ok(200, "GET", "/messaging/exchanges/1/modules?limit=100", "").objects()).To(HaveLen(100))
	})
})
