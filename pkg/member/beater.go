package member

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/loop"
	"github.com/openaperture/openaperture/pkg/rabbit"
	messages "github.com/openaperture/openaperture/proto-messages"
)

const (
	quickBeat  = 5 * time.Second // between beats of the first minute, unless Every is shorter
	quickFor   = time.Minute
	beatLimit  = 5 * time.Second // of one publish
	farewell   = 2 * time.Second // of the last one
	retryAfter = time.Second     // a beat that was not confirmed is followed by the next one so soon
)

// Publisher publishes one message and returns nil when the broker has it for sure; *rabbit.Broker does.
type Publisher interface {
	Publish(ctx context.Context, m rabbit.Message) error
}

// Readiness tells whether the service is ready; *boot.Health does.
type Readiness interface {
	Ready() bool
	Changed() <-chan struct{} // closed at the next change of Ready
}

// Beater sends the heartbeats of this process (docs/messaging.md#heartbeats): one as soon as the service is ready, then
// every 5 s for the first minute, then every Every ± 10 %, all with status active; none while the service is not ready;
// a last one with status inactive at the end, if it was ever ready. A beat that does not get through is not kept: the
// next one follows.
type Beater struct {
	Publisher Publisher
	Ready     Readiness
	// Address is asked before each beat for the exchange to beat into; an error says why there is none (yet).
	Address func(ctx context.Context) (messages.Address, error)
	// Status is what every beat carries: type, hostname, boot_id, versions … Event type, status, seq and sent_at are set
	// here.
	Status messages.ModuleStatus
	// Workload, if set, is asked for the workload of each beat.
	Workload func() json.RawMessage
	Every    time.Duration
	Log      *zap.Logger

	seq    int64
	beaten bool // whether an active beat may have been heard
	failed bool // whether the last one did not get through: logged once per spell
}

// Run beats until ctx ends, then says inactive and returns nil. Its publisher has to outlive it.
func (b *Beater) Run(ctx context.Context) error {
	readySince := time.Time{}
	for ctx.Err() == nil {
		changed := b.Ready.Changed()
		if !b.Ready.Ready() {
			waitFor(ctx, changed, nil)
			continue
		}
		if readySince.IsZero() {
			readySince = time.Now()
		}
		pause := b.pause(time.Since(readySince))
		if err := b.beat(ctx, messages.StatusActive, beatLimit); err != nil {
			pause = min(pause, retryAfter)
		}
		timer := time.NewTimer(pause)
		waitFor(ctx, changed, timer.C)
		timer.Stop()
	}
	if b.beaten {
		// Detached: ctx has ended, and these are the last words.
		// The error is logged by beat, and silence says the same later.
		_ = b.beat(context.WithoutCancel(ctx), messages.StatusInactive, farewell)
	}
	return nil
}

func waitFor(ctx context.Context, changed <-chan struct{}, timer <-chan time.Time) {
	select {
	case <-ctx.Done():
	case <-changed:
	case <-timer:
	}
}

func (b *Beater) pause(ready time.Duration) time.Duration {
	if ready < quickFor {
		return min(quickBeat, b.Every)
	}
	return time.Duration((0.9 + 0.2*rand.Float64()) * float64(b.Every))
}

func (b *Beater) beat(ctx context.Context, status string, limit time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := loop.Contain(ctx, "heartbeat", status, func() error { return b.send(limited, status) })
	if err != nil && !b.failed && ctx.Err() == nil {
		b.Log.Warn("heartbeat not sent", zap.Error(err))
	}
	b.failed = err != nil
	return err
}

func (b *Beater) send(ctx context.Context, status string) error {
	to, err := b.Address(ctx)
	if err != nil {
		return err
	}
	body, err := b.next(status)
	if err != nil {
		return err
	}
	err = b.Publisher.Publish(ctx, rabbit.Message{Exchange: to.Root, Key: to.Key(messages.QueueSystemModules),
		Type: messages.TypeModuleStatus, AppID: b.Status.Service + "/" + b.Status.Hostname, Body: body})
	if status == messages.StatusActive && rabbit.OutcomeOf(err) != rabbit.NotSent {
		b.beaten = true
	}
	return err
}

func (b *Beater) next(status string) ([]byte, error) {
	b.seq++
	now := time.Now().UTC()
	m := b.Status
	m.EventType, m.Status, m.Seq, m.SentAt = messages.EventStatus, status, b.seq, &now
	if b.Workload != nil {
		m.Workload = b.Workload()
	}
	if len(m.Workload) == 0 {
		m.Workload = json.RawMessage("[]")
	}
	body, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode heartbeat: %w", err)
	}
	return body, nil
}
