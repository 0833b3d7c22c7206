package shim

// MaxLog is the size at which a log is rotated.
const MaxLog = maxLog

// PipedLog opens a log that the shim writes.
func PipedLog(dir string) (*output, error) { return openOutput(dir, false) }

// SharedLog opens a log that its unit writes itself.
func SharedLog(dir string) (*output, error) { return openOutput(dir, true) }

// MarkStart writes the mark of a start.
func (o *output) MarkStart(unitName string) { o.markStart(unitName) }

// RotateShared empties it if it is full.
func (o *output) RotateShared() { o.rotateShared() }
