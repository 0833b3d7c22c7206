package api

// Codes of the two refusals with a status of their own.
const (
	codePrecondition = "precondition_failed"    // 412: If-Match names another version
	codeKeyReused    = "idempotency_key_reused" // 422: the same key with another request
)
