package upgrade

// Unclaimed is what is known of an order whose message was confirmed and that nobody has claimed for a while.
type Unclaimed struct {
	// Outside says that the order is for modules that others run: they answer the order, and claim nothing.
	Outside    bool
	HasUpgrade bool // the order's workflow belongs to an upgrade, whose own clock ends the wait
	Expired    bool // the order's deadline has passed
	Busy       bool // an executor of the order's queue works on another order, so this one waits in line
}

// Wait is what is done about an unclaimed order.
type Wait string

// What can be done.
const (
	WaitOn      Wait = "wait"    // nothing
	WaitResend  Wait = "resend"  // the message is sent again: it may be lost
	WaitProlong Wait = "prolong" // the same, under a fresh deadline: past its deadline nobody could claim the order
	WaitGiveUp  Wait = "give_up" // the order fails
)

// Next decides about an unclaimed order. Nothing else ends an order without upgrade, so such an order fails at its
// deadline, unless it waits in line.
func (u Unclaimed) Next() Wait {
	switch {
	case u.Outside && u.Expired:
		return WaitGiveUp
	case u.Outside:
		return WaitOn
	case !u.Expired:
		return WaitResend
	case u.HasUpgrade || u.Busy:
		return WaitProlong
	default:
		return WaitGiveUp
	}
}
