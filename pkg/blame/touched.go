package blame

// Touch is what is known of changes to instances.
type Touch struct {
	// What the executor knows.
	Acted   bool // it has sent a change, although the answer may be lost
	Failing bool // an instance is failing, perhaps by the change of an attempt whose work file is elsewhere
	Differs bool // what runs is not what was found
	Unknown bool // the executor panicked in a deploy that had begun: nobody knows how far it had come
	// What manager-api knows.
	Told      bool // the executor has said so
	Undone    bool // the executor has taken back a deploy that was complete
	Deploys   bool // the milestone replaces instances
	Claimed   bool // an order of the phase that replaces instances was claimed, whatever was heard of it
	TakenOver bool // the order went from one host to another
}

// Touched tells whether instances may have been changed. If nothing was touched there is nothing to roll back. A host
// that takes a deploy over can only speak for itself: the host before may have replaced instances.
func Touched(f Facts) bool {
	t := f.Touch
	switch f.Failure {
	case None, Unhealthy, Expired, Refused:
		return t.Acted || t.Failing || t.Differs || t.Unknown || t.Told
	case Undone, Unnamed:
		return true
	case Reported:
		return t.Told || t.Undone || t.TakenOver && t.Deploys
	case Lost:
		return t.Deploys
	case Unproven, Silent, Withdrawn:
		return t.Claimed
	default:
		return false
	}
}
