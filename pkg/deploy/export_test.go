package deploy

import (
	"context"
	"time"

	"github.com/openaperture/openaperture/pkg/boot"
	"github.com/openaperture/openaperture/pkg/managerapi"
	"github.com/openaperture/openaperture/pkg/member"
	messages "github.com/openaperture/openaperture/proto-messages"
)

// Settled is what becomes of the work behind a result that was confirmed age ago, with a progress deadline of a minute.
func Settled(componentType string, r messages.Result, age time.Duration, view *managerapi.OrderView) string {
	now := time.Now()
	w := &work{Token: 5, ConfirmedAt: now.Add(-age), Result: &r,
		Order: messages.Order{ComponentType: componentType, ProgressDeadlineMS: time.Minute.Milliseconds()}}
	return map[fate]string{keep: "keep", drop: "drop", undo: "undo"}[settle(w, view, now)]
}

// Encode is the body of a result's message.
func Encode(r messages.Result) ([]byte, error) { return encode(r) }

// Scrub takes secrets out of a text.
func Scrub(text string) string { return scrub(text) }

// Join is how an executor's start joins its exchange.
func Join(ctx context.Context, cfg ServiceConfig, env *boot.Env) (*member.Member, error) {
	return join(ctx, cfg, env)
}
