package messages_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	messages "github.com/openaperture/openaperture/proto-messages"
)

var _ = Describe("Decoding", func() {
	DescribeTable("a heartbeat (E10, R12)",
		func(body string, known bool, problem string) {
			_, ok, err := messages.DecodeModuleStatus([]byte(body))
			if problem != "" {
				Expect(err).To(MatchError(ContainSubstring(problem)))
				Expect(err).To(MatchError(messages.ErrInvalid))
				return
			}
			Expect(err).NotTo(HaveOccurred())
			Expect(ok).To(Equal(known))
		},
		Entry("with what the predecessor sent", `{"event_type":"status","hostname":"h","type":"builder","status":"active",
			"workload":[]}`, true, ""),
		Entry("of an unknown event type", `{"event_type":"party"}`, false, ""),
		Entry("without an event type", `{"hostname":"h"}`, false, "event_type is missing"),
		Entry("of null", `{"event_type":null}`, false, "event_type is missing"),
		Entry("without hostname", `{"event_type":"status","type":"b","status":"active"}`, false, "hostname is missing"),
		Entry("with a blank hostname", `{"event_type":"status","hostname":" ","type":"b","status":"active"}`, false,
			"hostname is missing"),
		Entry("with a slash in the hostname", `{"event_type":"status","hostname":"a/b","type":"b","status":"active"}`, false,
			"hostname contains a slash"),
		Entry("with a NUL in the type", `{"event_type":"status","hostname":"h","type":"b\u0000","status":"active"}`, false,
			"type contains invalid characters"),
		Entry("with a workload of any kind", `{"event_type":"status","hostname":"h","type":"b","status":"active",
			"workload":{"a":1}}`, true, ""),
		Entry("with a number as hostname", `{"event_type":"status","hostname":7}`, false, "invalid message"),
		Entry("with a field that nobody knows", `{"event_type":"status","hostname":"h","type":"b","status":"active",
			"mood":[{}]}`, true, ""),
		Entry("with a key that stands twice", `{"event_type":"status","hostname":"h","type":"b","status":"active",
			"workload":[{"a":1,"a":2}]}`, true, ""),
		Entry("with bytes behind it", `{"event_type":"status","hostname":"h","type":"b","status":"active"}x`, false,
			"invalid message"),
		Entry("in Erlang's term format", "\x83t\x00\x00\x00\x00", false, "invalid message"),
	)

	It("replaces what is no UTF-8, in the workload too", func() {
		m, _, err := messages.DecodeModuleStatus(
			[]byte("{\"event_type\":\"status\",\"hostname\":\"h\xe9\",\"type\":\"b\",\"status\":\"active\"," +
				"\"workload\":[\"\xe9\"]}"))
		Expect(err).NotTo(HaveOccurred())
		Expect([]string{m.Hostname, string(m.Workload)}).To(Equal([]string{"h\uFFFD", "[\"\uFFFD\"]"}))
	})

	DescribeTable("a message to the overseer",
		func(body string, known bool, problem string) {
			_, ok, err := messages.DecodeOverseerMessage([]byte(body))
			if problem != "" {
				Expect(err).To(MatchError(ContainSubstring(problem)))
				return
			}
			Expect(err).NotTo(HaveOccurred())
			Expect(ok).To(Equal(known))
		},
		Entry("a change without options", `{"action":"changed"}`, true, ""),
		Entry("a request without a type", `{"action":"upgrade_request","options":{}}`, false,
			"options.component_type is missing"),
		Entry("no action", `{}`, false, "action is missing"),
		Entry("an action that is not ours", `{"action":"dance"}`, false, ""),
	)

	It("a failure demands cause and reason, a progress does not", func() {
		const body = `{"event_type":"milestone_%","order_id":"o","workflow_id":"w","attempt":1,"token":1}`
		_, known, err := messages.DecodeResult([]byte(strings.Replace(body, "%", "progress", 1)))
		Expect(err).NotTo(HaveOccurred())
		Expect(known).To(BeTrue())
		_, _, err = messages.DecodeResult([]byte(strings.Replace(body, "%", "failed", 1)))
		Expect(err).To(MatchError(ContainSubstring("cause and reason")))
		_, known, err = messages.DecodeResult([]byte(strings.Replace(body, "%", "danced", 1)))
		Expect(err).NotTo(HaveOccurred())
		Expect(known).To(BeFalse())
	})

	It("an order carries its durations in milliseconds", func() {
		o := messages.Order{MinHealthyMS: 2500, HealthDeadlineMS: 60_000, ProgressDeadlineMS: 600_000}
		Expect([]time.Duration{o.MinHealthy(), o.HealthDeadline(), o.ProgressDeadline()}).
			To(Equal([]time.Duration{2500 * time.Millisecond, time.Minute, 10 * time.Minute}))
	})
})

var _ = Describe("An address", func() {
	DescribeTable("names key and queue",
		func(a messages.Address, key, queue string) {
			Expect(a.Key(messages.QueueOverseer)).To(Equal(key))
			Expect(a.QueueName(messages.QueueOverseer)).To(Equal(queue))
		},
		Entry("of a leaf", messages.Address{Name: "east", Root: "root", RoutingKey: "aws.us-east-1"},
			"aws.us-east-1.overseer", "aws:us-east-1.overseer"),
		Entry("of a root", messages.Address{Name: "root", Root: "root", RoutingKey: "aws"}, "aws.overseer", "aws.overseer"),
		Entry("without any fragment", messages.Address{Name: "lone", Root: "lone"}, "overseer", "lone.overseer"),
	)

	DescribeTable("is joined from fragments",
		func(want string, fragments ...string) { Expect(messages.JoinFragments(fragments...)).To(Equal(want)) },
		Entry("of the whole chain", "aws.us-east-1", "aws", "us-east-1"),
		Entry("without a dot for an empty one", "aws.us-east-1", "aws", "", "us-east-1"),
		Entry("of nothing", "", "", ""),
	)

	DescribeTable("binds a child by everything below its key",
		func(key, want string) { Expect(messages.BindingKey(key)).To(Equal(want)) },
		Entry("with a key", "aws", "aws.#"),
		Entry("without", "", "#"),
	)
})

// Whatever comes, the decoders answer; what they take can be encoded and is taken again.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"event_type":"status","hostname":"h","type":"b","status":"active","workload":[]}`))
	f.Add([]byte(`{"action":"changed","options":{"component_id":1}}`))
	f.Add([]byte(`{"event_type":"milestone_progress","order_id":"o","workflow_id":"w","attempt":1,"token":1}`))
	f.Add([]byte("\x83t\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, c := range contracts {
			m, known, err := c.decode(body)
			if err != nil || !known {
				continue
			}
			raw, err := json.Marshal(m)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if _, known, err := c.decode(raw); err != nil || !known {
				t.Fatalf("%s: not taken again: %v: %s", c.name, err, raw)
			}
		}
	})
}
