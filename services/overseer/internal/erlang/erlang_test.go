package erlang_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	messages "github.com/openaperture/openaperture/proto-messages"
	"github.com/openaperture/openaperture/services/overseer/internal/erlang"
)

// What term_to_binary of Erlang/OTP made of the predecessor's messages.
const (
	beat = "83740000000564000a6576656e745f74797065640006737461747573640008686f73746e616d656d00000005686f73743164" +
		"0006737461747573640006616374697665640004747970656400076275696c646572640008776f726b6c6f61646a"
	request = "837400000002640006616374696f6e64000f757067726164655f726571756573746400076f7074696f6e7374000000016400" +
		"0e636f6d706f6e656e745f747970656d000000086f76657273656572"
	workload = "83740000000564000a6576656e745f74797065640006737461747573640008686f73746e616d656d00000005686f73743164" +
		"0006737461747573640006616374697665640004747970656400076275696c646572640008776f726b6c6f61646c0000000a" +
		"6101610261036d0000000178680364000161463ff800000000000062fffffff96400036e696c640004747275656e0800d20a" +
		"1feb8ca954ab6b00036162636e050100f2052a016a"
	noRepo = "83740000000764000a6576656e745f74797065640006737461747573640008686f73746e616d656d00000005686f73743164" +
		"000b736f757263655f7265706f6400036e696c640013736f757263655f7265706f5f6769745f7265666d0000000276316400" +
		"06737461747573640006616374697665640004747970656400076275696c646572640008776f726b6c6f61646a"
	compressed = "835000000578789cedcb4b0e80200c45d10efc1077e38a4cb54d44f918a81a772f4407ee413a3be9bb02003541c7073b19e4" +
		"da98a08982b2470235fb280e2ddbbccae83fdf0627d147da574fd68ebb36c42175a70fabf1482675946385ef15141414fc1c" +
		"cb0da5db7bc1"
	pid = "83740000000564000a6576656e745f74797065640006737461747573640008686f73746e616d655864000d6e6f6e6f646540" +
		"6e6f686f7374000000090000000000000000640006737461747573640006616374697665640004747970656400076275696c" +
		"646572640008776f726b6c6f61646a"
	improper = "83740000000564000a6576656e745f74797065640006737461747573640008686f73746e616d656d00000005686f73743164" +
		"0006737461747573640006616374697665640004747970656400076275696c646572640008776f726b6c6f61646c00000001" +
		"61016102"
)

func term(text string) []byte {
	GinkgoHelper()
	raw, err := hex.DecodeString(text)
	Expect(err).NotTo(HaveOccurred())
	return raw
}

const plain = `{"event_type":"status","hostname":"host1","type":"builder","status":"active","workload":`

var _ = Describe("An external term", func() {
	DescribeTable("stands for JSON",
		func(text, want string) {
			got, err := erlang.JSON(term(text))
			Expect(err).NotTo(HaveOccurred())
			Expect(got).To(MatchJSON(want))
		},
		Entry("a heartbeat", beat, plain+`[]}`),
		Entry("a heartbeat with UTF-8 atoms, of OTP 26 and later",
			"837400000001770a6576656e745f747970657706737461747573", `{"event_type":"status"}`),
		Entry("an upgrade request", request, `{"action":"upgrade_request","options":{"component_type":"overseer"}}`),
		Entry("a workload of every kind", workload,
			plain+`[1,2,3,"x",["a",1.5,-7],null,true,12345678901234567890,[97,98,99],-5000000000]}`),
		Entry("nil for what is not there", noRepo,
			`{"event_type":"status","hostname":"host1","source_repo":null,"source_repo_git_ref":"v1",
			"type":"builder","status":"active","workload":[]}`),
	)

	DescribeTable("is refused for good",
		func(body []byte, why string) {
			_, err := erlang.JSON(body)
			Expect(err).To(MatchError(messages.ErrInvalid))
			Expect(err).To(MatchError(ContainSubstring(why)))
		},
		Entry("compressed", term(compressed), "tag 80"),
		Entry("with a process in it", term(pid), "tag 88"),
		Entry("with an improper list", term(improper), "tail"),
		Entry("empty", []byte{131}, "middle of a term"),
		Entry("cut short", term(beat)[:40], "middle of a term"),
		Entry("followed by something", append(term(beat), 0), "bytes after"),
		Entry("that claims four thousand million elements", term("836cffffffff"), "middle of a term"),
		Entry("that claims a huge map", term("8374ffffffff"), "middle of a term"),
		Entry("with a number as key", term("83740000000161016102"), "no text"),
		Entry("with text that is not UTF-8", term("836d00000001ff"), "UTF-8"),
		Entry("with a float that is no number", term("83467ff8000000000000"), "unsupported value"),
		Entry("that nests for ever", append([]byte{131}, bytes.Repeat([]byte{104, 1}, 1000)...), "deeper"),
		Entry("of too many terms", append([]byte{131, 105, 0, 1, 0x86, 0xa0}, bytes.Repeat([]byte{106}, 100_000)...),
			"more than"),
		Entry("that is too large", append([]byte{131}, make([]byte, messages.MaxBody)...), "exceeds"),
		Entry("with an endless integer", append([]byte{131, 110, 200, 0}, make([]byte, 200)...), "integer"),
	)

	It("is told apart from JSON, which passes as it is", func() {
		for _, body := range []string{``, `{}`, `{"a":1}`, `nonsense`} {
			got, err := erlang.JSON([]byte(body))
			Expect(err).NotTo(HaveOccurred())
			Expect(string(got)).To(Equal(body))
		}
	})

	It("of a heartbeat decodes as a heartbeat", func() {
		body, err := erlang.JSON(term(beat))
		Expect(err).NotTo(HaveOccurred())
		m, known, err := messages.DecodeModuleStatus(body)
		Expect(err).NotTo(HaveOccurred())
		Expect(known).To(BeTrue())
		Expect(strings.Join([]string{m.Hostname, m.Type, m.Status}, " ")).To(Equal("host1 builder active"))
	})
})

// Whatever comes, the answer is valid JSON or an error.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{beat, request, workload, noRepo, compressed, pid, improper} {
		raw, err := hex.DecodeString(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		out, err := erlang.JSON(body)
		if err == nil && len(body) > 0 && body[0] == erlang.Version && !json.Valid(out) {
			t.Fatalf("not JSON: %q", out)
		}
	})
}
