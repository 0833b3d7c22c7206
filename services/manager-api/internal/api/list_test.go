package api_test

import (
	"errors"
	"io"
	"net/http"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("A streamed list", func() {
	It("is cut, not closed, when the database fails in the middle: a part is not taken for the whole", func() {
		h := start()
		_, err := h.db.Exec(`INSERT INTO system_component_refs (type, source_repo, source_repo_git_ref, auto_upgrade_enabled)
			SELECT 't' || n, repeat('x', 500), 'v', true FROM generate_series(1, 200000) n`)
		Expect(err).NotTo(HaveOccurred())
		req, err := http.NewRequest("GET", h.url+"/system_component_refs", nil)
		Expect(err).NotTo(HaveOccurred())
		req.Header.Set("Authorization", "Bearer "+tokenOf("admin"))
		res, err := http.DefaultClient.Do(req)
		Expect(err).NotTo(HaveOccurred())
		defer func() { _ = res.Body.Close() }()
		Expect(res.StatusCode).To(Equal(200))
		_, err = io.ReadFull(res.Body, make([]byte, 100))
		Expect(err).NotTo(HaveOccurred())
		_, err = h.db.Exec(`ALTER TABLE system_component_refs RENAME TO gone`)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func() {
			_, err := h.db.Exec(`ALTER TABLE gone RENAME TO system_component_refs`)
			Expect(err).NotTo(HaveOccurred())
		})
		_, err = io.Copy(io.Discard, res.Body)
		Expect(errors.Is(err, io.ErrUnexpectedEOF)).To(BeTrue(), "%v", err)
	})
})
