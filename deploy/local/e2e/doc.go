// Package e2e holds the story of the demo as a spec, on a stack of its own. It takes minutes, so that it stands behind
// the build tag e2e: `make e2e`.
package e2e
