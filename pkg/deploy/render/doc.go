// Package render is the config milestone: it fetches a deployment repository at a ref, resolves deployment and source
// ref to full commits, renders and validates the units (docs/deployment.md#deployment-repositories). Nothing is pushed
// back.
//
// Invariants: git runs as argv, without a shell, with an empty HOME and without system or user configuration; nothing
// is checked out, files are read by object id; hooks, symlinks and submodules are never followed; only https and ssh
// are spoken, and absolute local paths where the configuration allows them. Rendering the same commits gives the same
// bytes. Every error is a *failure.Error, except the end of the caller's context.
package render
