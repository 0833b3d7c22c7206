package seal_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/openaperture/openaperture/services/manager-api/internal/seal"
)

func key(c string) string { return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(c, 32))) }

func ring(text string) *seal.Ring {
	GinkgoHelper()
	r, err := seal.Parse([]byte(text))
	Expect(err).NotTo(HaveOccurred())
	return r
}

var _ = Describe("Sealed secrets", func() {
	place := seal.Place{Table: "messaging_broker_connections", Row: 7, Column: "password_sealed"}

	It("open at their place, and two seals of one secret differ", func() {
		r := ring("one " + key("a"))
		sealed, id, err := r.Seal(place, "s3cret")
		Expect(err).NotTo(HaveOccurred())
		Expect(id).To(Equal("one"))
		Expect(string(sealed)).NotTo(ContainSubstring("s3cret"))
		again, _, err := r.Seal(place, "s3cret")
		Expect(err).NotTo(HaveOccurred())
		Expect(again).NotTo(Equal(sealed))
		Expect(r.Open(place, id, sealed)).To(Equal("s3cret"))
	})

	DescribeTable("do not open (G9)", func(change func(p *seal.Place, id *string, sealed *[]byte), want error) {
		r := ring("one " + key("a") + "\ntwo " + key("b"))
		sealed, id, err := r.Seal(place, "s3cret")
		Expect(err).NotTo(HaveOccurred())
		p := place
		change(&p, &id, &sealed)
		_, err = r.Open(p, id, sealed)
		Expect(err).To(MatchError(want))
	},
		Entry("in another row", func(p *seal.Place, _ *string, _ *[]byte) { p.Row = 8 }, seal.ErrForged),
		Entry("in another column", func(p *seal.Place, _ *string, _ *[]byte) { p.Column = "host" }, seal.ErrForged),
		Entry("in another table", func(p *seal.Place, _ *string, _ *[]byte) { p.Table = "users" }, seal.ErrForged),
		Entry("under another key", func(_ *seal.Place, id *string, _ *[]byte) { *id = "two" }, seal.ErrForged),
		Entry("under a key that is gone", func(_ *seal.Place, id *string, _ *[]byte) { *id = "old" }, seal.ErrUnknownKey),
		Entry("when cut", func(_ *seal.Place, _ *string, s *[]byte) { *s = (*s)[:5] }, seal.ErrForged),
		Entry("when one bit is changed", func(_ *seal.Place, _ *string, s *[]byte) { (*s)[len(*s)-1] ^= 1 }, seal.ErrForged),
	)

	It("open under the old key after a new one was put first (G9)", func() {
		sealed, id, err := ring("one "+key("a")).Seal(place, "s3cret")
		Expect(err).NotTo(HaveOccurred())
		rotated := ring("# rotated\n\ntwo " + key("b") + "\none " + key("a"))
		Expect(rotated.Active()).To(Equal("two"))
		Expect(rotated.Open(place, id, sealed)).To(Equal("s3cret"))
	})

	It("have no key in a nil ring", func() {
		var none *seal.Ring
		_, _, err := none.Seal(place, "x")
		Expect(err).To(MatchError(seal.ErrNoKey))
		_, err = none.Open(place, "one", []byte("x"))
		Expect(err).To(MatchError(seal.ErrNoKey))
	})

	It("take their keys from a file", func() {
		path := filepath.Join(GinkgoT().TempDir(), "keys")
		Expect(os.WriteFile(path, []byte("one "+key("a")+"\n"), 0o600)).To(Succeed())
		r, err := seal.Load(path)
		Expect(err).NotTo(HaveOccurred())
		Expect(r.Active()).To(Equal("one"))
		_, err = seal.Load(path + "-missing")
		Expect(err).To(MatchError(os.ErrNotExist))
	})

	DescribeTable("refuse a key file without showing a key", func(text, says string) {
		_, err := seal.Parse([]byte(text))
		Expect(err).To(MatchError(ContainSubstring(says)))
		Expect(err.Error()).NotTo(ContainSubstring(key("a")))
	},
		Entry("that is empty", "\n# nothing\n", "no seal key"),
		Entry("with a short key", "one "+base64.StdEncoding.EncodeToString([]byte("short")),
			"line 1: key one is not the base64 of 32 bytes"),
		Entry("with a key without id", key("a"), "line 1: a key is"),
		Entry("with one id twice", "one "+key("a")+"\none "+key("b"), "line 2: key one stands twice"),
		Entry("with an odd id", "o/ne "+key("a"), "line 1: a key is"),
	)
})
