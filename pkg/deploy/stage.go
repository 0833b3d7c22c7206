package deploy

import "fmt"

// stage is how far the work on a deploy order has come. It stands in the work file.
type stage string

const (
	unbegun   stage = ""          // there is no work file
	rolling   stage = "rolling"   // instances are being replaced, or an instance is being put back
	reported  stage = "reported"  // the result is decided, and not yet confirmed by the broker
	confirmed stage = "confirmed" // the broker has the result; the order is not yet settled
	undoing   stage = "undoing"   // a deploy whose result was confirmed is being taken back
	ended     stage = "ended"     // the work file goes; it is never written
	// foreign stands for every stage that this release does not know: a newer one has written the file. Such a file is
	// left alone until manager-api gives this host the next attempt at the order.
	foreign stage = "?"
)

// event is what happens to the work on an order.
type event string

const (
	begun     event = "begun"     // the executor has looked at what runs, and is about to touch it
	retaken   event = "retaken"   // this host has claimed another attempt at the order
	unsent    event = "unsent"    // the result is decided, and the broker does not take it at the moment
	delivered event = "delivered" // the broker has confirmed the result
	missed    event = "missed"    // manager-api has the result of a rollout that this process still found unfinished
	overdue   event = "overdue"   // the order of a confirmed deploy of manager-api was not settled in time
	postponed event = "postponed" // an undo cannot be finished now
	closed    event = "closed"    // the order is settled, undone or somebody else's, or a newer deploy has begun
)

// transitions is the one table by which work moves: the stage after an event, by the stage before. What is not in the
// table does not happen. docs/state-machines.md shows it.
var transitions = map[event]map[stage]stage{
	begun:     {unbegun: rolling},
	retaken:   {rolling: rolling, reported: rolling, confirmed: rolling, undoing: rolling, foreign: rolling},
	unsent:    {rolling: reported, reported: reported, undoing: undoing},
	delivered: {rolling: confirmed, reported: confirmed, undoing: ended},
	missed:    {rolling: confirmed},
	overdue:   {confirmed: undoing},
	postponed: {undoing: confirmed},
	closed:    {rolling: ended, reported: ended, confirmed: ended, undoing: ended},
}

// known tells whether this release knows the stage.
func (s stage) known() bool {
	switch s {
	case rolling, reported, confirmed, undoing:
		return true
	default:
		return false
	}
}

// after is the stage that follows an event; an error says that the event does not happen in this stage.
func (s stage) after(e event) (stage, error) {
	from := s
	if s != unbegun && s != ended && !s.known() {
		from = foreign
	}
	next, ok := transitions[e][from]
	if !ok {
		return s, fmt.Errorf("%q does not happen to work that is %q", e, s)
	}
	return next, nil
}
