package fleet

import "github.com/openaperture/openaperture/pkg/unit"

// RawHash is the hash of a real fleet, over all that it stores.
func RawHash(options []unit.Option) string { return rawHash(options) }
