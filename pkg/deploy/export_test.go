package deploy

import (
	"context"
	"os"
	"strings"
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
	due := !now.Before(undoAt(w, time.Time{}))
	return map[fate]string{keep: "keep", drop: "drop", undo: "undo"}[settle(w, view, due)]
}

// Stages are the stages that a work file can have, with one of a newer release and those before and after it.
var Stages = []string{string(unbegun), string(rolling), string(reported), string(confirmed), string(undoing),
	string(ended), "hibernating"}

// Events are what can happen to work.
var Events = []string{string(begun), string(retaken), string(unsent), string(delivered), string(missed),
	string(overdue),
	string(postponed), string(closed)}

// After is the stage after an event; "-" if the event does not happen in this stage.
func After(before, what string) string {
	next, err := stage(before).after(event(what))
	if err != nil {
		return "-"
	}
	return string(next)
}

// Turns lists the orders that are begun of a line. A place is "<order> <state> <keys>", such as "a waiting x,y";
// "waiting*" is one that needs no room.
func Turns(room int, places ...string) []string {
	states := map[string]placeState{"claiming": claiming, "waiting": waiting, "inhand": inHand, "probing": probing}
	var line []*place
	for _, text := range places {
		words := strings.Fields(text)
		state, roomless := strings.CutSuffix(words[1], "*")
		p := &place{order: words[0], claim: states[state], roomless: roomless}
		if len(words) > 2 {
			p.keys = strings.Split(words[2], ",")
		}
		line = append(line, p)
	}
	out := []string{}
	for _, p := range turns(line, room) {
		out = append(out, p.order)
	}
	return out
}

// KeysOf are what an order shares with no other order in hand.
func KeysOf(o messages.Order) []string { return keysOf(o) }

// OnDisk has an engine's work files written through sync and rename.
func OnDisk(e *Engine, sync func(*os.File) error, rename func(from, to string) error) {
	e.works.files.disk = disk{sync: sync, rename: rename}
}

// Encode is the body of a result's message.
func Encode(r messages.Result) ([]byte, error) { return encode(r) }

// Scrub takes secrets out of a text.
func Scrub(text string) string { return scrub(text) }

// Join is how an executor's start joins its exchange.
func Join(ctx context.Context, cfg ServiceConfig, env *boot.Env) (*member.Member, error) {
	return join(ctx, cfg, env)
}
