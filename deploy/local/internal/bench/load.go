// Package bench measures what OpenAperture promises about speed, each figure against a bare baseline in the same run:
// heartbeats published to durable, an in-place upgrade against plain stop and start, memory and start-up time.
package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	messages "github.com/openaperture/openaperture/proto-messages"
)

// bodies makes n heartbeats with distinct hostnames; round makes them differ from those of an earlier round.
func bodies(n, round int) ([][]byte, error) {
	out := make([][]byte, n)
	started := time.Now().UTC().Truncate(time.Second)
	for i := range out {
		raw, err := json.Marshal(messages.ModuleStatus{
			EventType: messages.EventStatus, Hostname: hostname(i), Type: "bench", Status: messages.StatusActive,
			Service: "bench",
			BootID:  fmt.Sprintf("0198c0de-0000-7000-8000-%012d", i), Seq: int64(round), Workload: json.RawMessage("[]"),
			SourceRepo: "https://git.example.com/openaperture.git", SourceRepoGitRef: "v1", StartedAt: &started,
			SentAt: &started,
		})
		if err != nil {
			return nil, fmt.Errorf("encode heartbeat: %w", err)
		}
		out[i] = raw
	}
	return out, nil
}

func hostname(i int) string { return fmt.Sprintf("bench-%06d", i) }

// publishAll sends every body to an exchange as fast as the broker takes them; persistent, as modules do. It returns
// after the broker has confirmed the last.
func publishAll(ctx context.Context, url, exchange, key string, all [][]byte) error {
	conn, err := amqp.Dial(url)
	if err != nil {
		return fmt.Errorf("dial the broker to publish: %w", err)
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel to publish: %w", err)
	}
	if err := ch.Confirm(false); err != nil {
		return fmt.Errorf("ask for confirms: %w", err)
	}
	const window = 500
	inFlight := make(chan *amqp.DeferredConfirmation, window)
	done := make(chan error, 1)
	go func() { done <- awaitConfirms(ctx, inFlight) }()
	for _, body := range all {
		confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, exchange, key, false, false,
			amqp.Publishing{DeliveryMode: amqp.Persistent, ContentType: "application/json", Type: messages.TypeModuleStatus,
				Body: body})
		if err != nil {
			close(inFlight)
			return errors.Join(fmt.Errorf("publish heartbeat: %w", err), <-done)
		}
		inFlight <- confirm
	}
	close(inFlight)
	return <-done
}

func awaitConfirms(ctx context.Context, inFlight <-chan *amqp.DeferredConfirmation) error {
	var first error
	for confirm := range inFlight {
		if ok, err := confirm.WaitContext(ctx); first == nil && (err != nil || !ok) {
			first = fmt.Errorf("heartbeat was not confirmed (%t): %w", ok, err)
		}
	}
	return first
}
