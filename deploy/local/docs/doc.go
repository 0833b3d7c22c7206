// Package docs holds the specs that keep README.md and docs/ true: what they name exists, what exists is named, and the
// commands that they show work.
package docs
