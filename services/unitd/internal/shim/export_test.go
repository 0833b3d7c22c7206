package shim

// SharedLog opens a log that its unit writes itself.
func SharedLog(dir string) (*output, error) { return openOutput(dir, true) }

// MoveOut empties it if it is full.
func (o *output) MoveOut() { o.moveOut() }
