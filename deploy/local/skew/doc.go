// Package skew holds specs of two releases beside each other: the one that deploy/previous names, built from its
// commit, and this one. A stack is begun whole by the old one. Then its parts are upgraded to the new one, in this
// order and in that one, and bad new versions are taken back to the old one. They take minutes, so that they stand
// behind the build tag e2e: `make skew`.
package skew
