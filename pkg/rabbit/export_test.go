package rabbit

// The pure rules, for their tables.
var (
	RedialDelay = redialDelay
	Backoff     = backoff
)
