package messages

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json" // encoding/json/v2: half the time, a fifth of the garbage
	"github.com/go-json-experiment/json/jsontext"
)

// MaxBody is the limit in bytes of a message body, both ways.
const MaxBody = 256 << 10

// ErrInvalid marks a body that no retry can mend: it goes to the dead-letter queue.
var ErrInvalid = errors.New("invalid message")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

var tolerant = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// Unmarshal reads JSON that carries messages, as all receivers of messages do: unknown fields are ignored, of a key
// that stands twice the last counts, and what is no UTF-8 is replaced.
func Unmarshal(body []byte, v any) error { return json.Unmarshal(body, v, tolerant) }

func decode[T any](body []byte) (T, error) {
	var v T
	if len(body) > MaxBody {
		return v, invalid("body of %d bytes exceeds %d", len(body), MaxBody)
	}
	if err := Unmarshal(body, &v); err != nil {
		return v, invalid("%v", err)
	}
	return v, nil
}

// DecodeModuleStatus reads and checks a heartbeat. Unknown fields are ignored. known is false for an event type
// that is not ours, which is acked and counted.
func DecodeModuleStatus(body []byte) (m ModuleStatus, known bool, err error) {
	m, err = decode[ModuleStatus](body)
	if err != nil {
		return m, false, err
	}
	if m.EventType == "" {
		return m, false, invalid("event_type is missing")
	}
	if m.EventType != EventStatus {
		return m, false, nil
	}
	m.Workload = bytes.ToValidUTF8(m.Workload, []byte("\uFFFD")) // raw JSON, which Unmarshal leaves as it is
	return m, true, m.Validate()
}

// Validate checks the required fields of a heartbeat and the lengths of all.
func (m ModuleStatus) Validate() error {
	for _, f := range []struct{ name, value string }{{"hostname", m.Hostname}, {"type", m.Type}, {"status", m.Status}} {
		if strings.TrimSpace(f.value) == "" {
			return invalid("%s is missing", f.name)
		}
	}
	for _, f := range []struct {
		name, value string
		limit       int
	}{
		{"hostname", m.Hostname, 255}, {"type", m.Type, 255}, {"status", m.Status, 64}, {"service", m.Service, 255},
		{"boot_id", m.BootID, 64},
		{"source_repo", m.SourceRepo, 1024}, {"source_repo_git_ref", m.SourceRepoGitRef, 256},
		{"deployment_repo", m.DeploymentRepo, 1024}, {"deployment_repo_git_ref", m.DeploymentRepoGitRef, 256},
	} {
		if len(f.value) > f.limit {
			return invalid("%s is longer than %d bytes", f.name, f.limit)
		}
		if strings.ContainsRune(f.value, 0) || !utf8.ValidString(f.value) {
			return invalid("%s contains invalid characters", f.name)
		}
	}
	if strings.Contains(m.Hostname, "/") {
		return invalid("hostname contains a slash")
	}
	return nil
}

// DecodeOverseerMessage reads and checks an upgrade request or a change. known is false for an action that is not
// ours, which is acked and counted.
func DecodeOverseerMessage(body []byte) (m OverseerMessage, known bool, err error) {
	m, err = decode[OverseerMessage](body)
	if err != nil {
		return m, false, err
	}
	switch m.Action {
	case "":
		return m, false, invalid("action is missing")
	case ActionUpgradeRequest:
		if m.Options.ComponentType == "" {
			return m, true, invalid("options.component_type is missing")
		}
		return m, true, nil
	case ActionChanged:
		return m, true, nil
	default:
		return m, false, nil
	}
}

// DecodeOrder reads and checks a milestone order.
func DecodeOrder(body []byte) (Order, error) {
	o, err := decode[Order](body)
	if err != nil {
		return o, err
	}
	return o, o.Validate()
}

// Validate checks the required fields of an order.
func (o Order) Validate() error {
	switch {
	case o.OrderID == "":
		return invalid("order_id is missing")
	case o.WorkflowID == "":
		return invalid("workflow_id is missing")
	case o.Attempt < 1:
		return invalid("attempt is missing")
	case o.CurrentStep == "":
		return invalid("current_step is missing")
	case o.Deadline.IsZero():
		return invalid("deadline is missing")
	}
	return nil
}

// DecodeResult reads and checks a milestone result. known is false for an event type that is not ours.
func DecodeResult(body []byte) (r Result, known bool, err error) {
	r, err = decode[Result](body)
	if err != nil {
		return r, false, err
	}
	switch r.EventType {
	case "":
		return r, false, invalid("event_type is missing")
	case EventMilestoneProgress, EventMilestoneCompleted, EventMilestoneFailed:
		return r, true, r.Validate()
	default:
		return r, false, nil
	}
}

// Validate checks the required fields of a result.
func (r Result) Validate() error {
	switch {
	case r.OrderID == "":
		return invalid("order_id is missing")
	case r.WorkflowID == "":
		return invalid("workflow_id is missing")
	case r.Attempt < 1:
		return invalid("attempt is missing")
	case r.Token < 1:
		return invalid("token is missing")
	case r.EventType == EventMilestoneFailed && (r.Cause == "" || r.Reason == ""):
		return invalid("a failure needs cause and reason")
	}
	return nil
}

// MinHealthy is how long an instance has to be healthy without a break.
func (o Order) MinHealthy() time.Duration { return time.Duration(o.MinHealthyMS) * time.Millisecond }

// HealthDeadline is how long one instance may take to become healthy.
func (o Order) HealthDeadline() time.Duration {
	return time.Duration(o.HealthDeadlineMS) * time.Millisecond
}

// ProgressDeadline bounds how long a confirmed result may stay without a closed order.
func (o Order) ProgressDeadline() time.Duration {
	return time.Duration(o.ProgressDeadlineMS) * time.Millisecond
}
